"""Do captured steps of small models go faster side by side, each on a stream of its own?

Models of one shape, each with its own captured step, data and seed, are trained one after the
other, then all at once on as many streams. Tokens per second of all together are the median of
five timings; the loss of every model after the same steps must be the same both ways.

    python -m experiments.benchmarks.engine.engine_streams [--models 1 2 4 8] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from runners.engine import graph
from runners.engine.graph import GraphEngine, StepTask
from runners.machine.device import device_name
from search.record.trial import TrainingRecipe
from spaces.architecture import Architecture

WIDTHS = (64, 128, 192, 256)
CONTEXT, SEQUENCES, LAYERS, VOCABULARY = 512, 4, 4, 256
DIFFERENT = 128
"""Batches of each model before they come again."""
LOSS_STEPS, TIMED_STEPS, TIMINGS = 50, 100, 5
RATE = 1e-3


def architecture(arm: str, width: int) -> Architecture:
    """Four layers; the feed-forward 8/3 of the width; dual with K = 2 and wide 4."""
    dual: dict[str, Any] = {"num_loops": 2, "wide_ffn": 4 * width} if arm == "dual" else {}
    return Architecture(
        arm=arm,
        d_model=width,
        num_layers=LAYERS,
        deep_ffn=round(width * 8 / 3 / 8) * 8,
        head_dim=64,
        context_length=CONTEXT,
        vocab_size=VOCABULARY,
        **dual,
    )


@contextmanager
def captured_on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Engines made inside are captured on a stream: graphs that run at once share no workspace."""
    before = graph.capture_stream
    graph.capture_stream = lambda: stream  # type: ignore[assignment]
    try:
        yield
    finally:
        graph.capture_stream = before


def measure(arm: str, width: int, count: int) -> dict[str, Any]:
    """One row: so many models of a shape, both ways."""
    device = torch.device("cuda")
    recipe = TrainingRecipe(learning_rate=RATE, batch_sequences=SEQUENCES, precision="bfloat16")
    task = StepTask(architecture=architecture(arm, width), recipe=recipe, device=device)
    streams = [torch.cuda.Stream() for _ in range(count)]  # type: ignore[no-untyped-call]
    engines = []
    for seed, stream in enumerate(streams):
        with captured_on(stream):
            engines.append(GraphEngine(task, init_seed=seed))
    shape = (DIFFERENT, 2, SEQUENCES, CONTEXT)
    batches = [torch.randint(VOCABULARY, shape, device=device) for _ in engines]

    def one_after_the_other(steps: int) -> list[float]:
        losses = []
        for engine, own in zip(engines, batches, strict=True):
            for step in range(steps):
                loss = engine.step(*own[step % DIFFERENT], learning_rate=RATE)
            losses.append(loss)
        return [float(loss) for loss in losses]

    def side_by_side(steps: int) -> list[float]:
        torch.cuda.synchronize()
        losses: list[Any] = [None] * count
        for step in range(steps):
            for index, (engine, stream) in enumerate(zip(engines, streams, strict=True)):
                with torch.cuda.stream(stream):
                    own = batches[index][step % DIFFERENT]
                    losses[index] = engine.step(*own, learning_rate=RATE)
        torch.cuda.synchronize()
        return [float(loss) for loss in losses]

    found = []
    for way in (one_after_the_other, side_by_side, one_after_the_other):
        for seed, engine in enumerate(engines):
            engine.restart(recipe, init_seed=seed)
        losses, seconds = way(LOSS_STEPS), []
        for _ in range(TIMINGS):
            torch.cuda.synchronize()
            before = time.perf_counter()
            way(TIMED_STEPS)
            seconds.append(time.perf_counter() - before)
        tokens = count * TIMED_STEPS * SEQUENCES * CONTEXT
        found.append((losses, tokens / statistics.median(seconds)))
    (alone, serial), (together, parallel), (again, _) = found
    for engine in engines:
        engine.release()
    return {
        "arm": arm,
        "d_model": width,
        "models": count,
        "serial_tokens_per_second": serial,
        "streams_tokens_per_second": parallel,
        "ratio": parallel / serial,
        "largest_relative_loss_difference": _difference(alone, together),
        "the_same_of_two_serial_runs": _difference(alone, again),
    }


def _difference(one: Sequence[float], two: Sequence[float]) -> float:
    """The largest relative difference."""
    return max(abs(a - b) / a for a, b in zip(one, two, strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--arms", nargs="+", default=["standard", "dual"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("streams need a GPU", file=sys.stderr)
        return 2
    rows = [
        measure(arm, width, count)
        for arm in options.arms
        for width in WIDTHS
        for count in options.models
    ]
    if options.json:
        print(json.dumps({"device": device_name(torch.device("cuda")), "rows": rows}))
        return 0
    print(device_name(torch.device("cuda")))
    for row in rows:
        print(
            f"{row['arm']:9} width {row['d_model']:3}  {row['models']:2} models: "
            f"{row['serial_tokens_per_second'] / 1e6:6.2f} M tokens/s one after the other, "
            f"{row['streams_tokens_per_second'] / 1e6:6.2f} on streams, "
            f"{row['ratio']:.2f} x; losses differ by {row['largest_relative_loss_difference']:.1e} "
            f"(two runs one after the other by {row['the_same_of_two_serial_runs']:.1e})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
