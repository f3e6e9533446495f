"""How much faster do small models train side by side than one after the other?

The same trials, as a sweep's worker trains them (real text, batches, losses, measurements), first
one after the other with the warm engine, then as packs of several sizes. Tokens per second are
those of all trials together, set-up excluded by a pass before. In float32 every loss of a short
run must be what the trial has alone.

    python -m experiments.benchmarks.engine.engine_pack --text FOLDER [--packs 2 4 8 16] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from runners.machine.device import device_name, find_device
from runners.pools.contract import Assignment, WorkerOptions
from runners.pools.pack import Pack
from runners.text.corpus import Corpus, prepare_corpus
from search.limits.packs import step_flops
from search.record.trial import Outcome, TrainingRecipe, TrialConfig
from spaces.architecture import Architecture

CONTEXT, LAYERS = 512, 4
RATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Row:
    """One shape in one pack size, beside one after the other."""

    arm: str
    d_model: int
    batch_sequences: int
    models: int
    step_flops: float
    """Of one model, `full`."""
    serial_tokens_per_second: float
    pack_tokens_per_second: float
    ratio: float
    largest_relative_loss_difference: float | None
    """Of a float32 loss after a short run from the same trial alone; None where not compared."""


def architecture(arm: str, width: int, vocab_size: int) -> Architecture:
    """Four layers; the feed-forward 8/3 of the width; dual with K = 2 and wide 4."""
    dual: dict[str, Any] = {"num_loops": 2, "wide_ffn": 4 * width} if arm == "dual" else {}
    return Architecture(
        arm=arm,
        d_model=width,
        num_layers=LAYERS,
        deep_ffn=round(width * 8 / 3 / 8) * 8,
        head_dim=min(64, width),
        context_length=CONTEXT,
        vocab_size=vocab_size,
        **dual,
    )


def trial(
    corpus: Corpus, arm: str, width: int, *, sequences: int, steps: int, precision: str, seed: int
) -> TrialConfig:
    """One of the trials; its seeds are its own."""
    return TrialConfig(
        architecture=architecture(arm, width, max(256, corpus.vocab_size)),
        tokens=steps * sequences * CONTEXT,
        training=TrainingRecipe(
            learning_rate=RATE,
            batch_sequences=sequences,
            precision=precision,  # type: ignore[arg-type]
        ),
        text_fingerprint=corpus.fingerprint,
        init_seed=seed,
        data_seed=seed,
        eval_sequences=32,
        eval_points=1,
    )


def train(pack: Pack, configs: Sequence[TrialConfig], *, most: int) -> tuple[float, list[float]]:
    """Seconds until all have ended, at most so many at once, and their losses."""
    losses: dict[int, float] = {}
    folder = Path(tempfile.mkdtemp())
    began = time.perf_counter()
    for first in range(0, len(configs), most):
        for index, config in enumerate(configs[first : first + most], start=first):
            pack.add(
                Assignment(
                    attempt_id=index,
                    config=config,
                    checkpoint_dir=folder / str(index),
                    weights_path=None,
                )
            )
        for report in pack.reports():
            if isinstance(report.content, Outcome):
                assert report.content.loss_nats is not None, report.content.reason
                losses[report.attempt_id] = report.content.loss_nats
    return time.perf_counter() - began, [losses[index] for index in range(len(configs))]


def measure(
    corpus: Corpus,
    device: str,
    arm: str,
    width: int,
    sequences: int,
    packs: Sequence[int],
    *,
    steps: int,
    compare: bool,
) -> list[Row]:
    """One shape: one after the other, then each size of pack."""
    pack = Pack(WorkerOptions(corpus=corpus, device=device, num_threads=1, checkpoint_seconds=1e9))
    count = max(packs)

    def trials(steps: int, precision: str) -> list[TrialConfig]:
        common = {"sequences": sequences, "steps": steps, "precision": precision}
        return [trial(corpus, arm, width, seed=seed, **common) for seed in range(count)]  # type: ignore[arg-type]

    fast = "bfloat16" if device == "cuda" else "float32"
    train(pack, trials(4, fast), most=count)  # set-up of every lane
    serial, _ = train(pack, trials(steps, fast)[:4], most=1)
    tokens = steps * sequences * CONTEXT
    alone = train(pack, trials(50, "float32"), most=1)[1] if compare else None
    rows = []
    for most in packs:
        train(pack, trials(4, fast), most=count)
        seconds, _ = train(pack, trials(steps, fast)[:most], most=most)
        gap = None
        if alone is not None:
            together = train(pack, trials(50, "float32")[:most], most=most)[1]
            gap = max(abs(a - b) / a for a, b in zip(alone[:most], together, strict=True))
        rows.append(
            Row(
                arm=arm,
                d_model=width,
                batch_sequences=sequences,
                models=most,
                step_flops=step_flops(trials(1, fast)[0]),
                serial_tokens_per_second=4 * tokens / serial,
                pack_tokens_per_second=most * tokens / seconds,
                ratio=(most * tokens / seconds) / (4 * tokens / serial),
                largest_relative_loss_difference=gap,
            )
        )
    return rows


def in_words(row: Row) -> str:
    """One line."""
    gap = row.largest_relative_loss_difference
    return (
        f"{row.arm:9} width {row.d_model:3}, {row.batch_sequences * CONTEXT:5} tokens a step "
        f"({row.step_flops:.1e} FLOPs), {row.models:2} models: "
        f"{row.serial_tokens_per_second / 1e6:6.2f} M tokens/s one after the other, "
        f"{row.pack_tokens_per_second / 1e6:6.2f} as a pack, {row.ratio:.2f} x"
        + ("" if gap is None else f"; float32 losses differ by {gap:.1e}")
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--arms", nargs="+", default=["standard", "dual"])
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 192])
    parser.add_argument("--sequences", type=int, nargs="+", default=[4])
    parser.add_argument("--packs", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--no-compare", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("packs gain on a GPU; --device cpu only checks", file=sys.stderr)
        return 2
    corpus = prepare_corpus(options.text, cache_dir=Path(tempfile.mkdtemp()))
    print(device_name(find_device(options.device)), file=sys.stderr)
    found = []
    for arm in options.arms:
        for width in options.widths:
            for sequences in options.sequences:
                for row in measure(
                    corpus,
                    options.device,
                    arm,
                    width,
                    sequences,
                    options.packs,
                    steps=options.steps,
                    compare=not options.no_compare,
                ):
                    print(in_words(row), file=sys.stderr, flush=True)
                    found.append(asdict(row))
    if options.json:
        print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
