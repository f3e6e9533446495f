"""How fast is one training step: plain eager, whole-model compile, and the warm engine?

All train the same model on the same tokens. *eager* and *compile* are the loop of any script:
autocast, `F.cross_entropy` over all logits, clipping, fused AdamW; compile wraps forward and loss
of the whole model in `torch.compile`. *compile-same* is that with the engine's arithmetic (weights
rounded once a step, the state in bfloat16). Tokens per second are the median of three timings.

    python -m experiments.benchmarks.engine.engine_step [--sides eager compile compile-same engine]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from experiments.benchmarks.engine.plain_loop import PlainStep
from runners.engine.graph import GraphEngine, StepTask
from runners.engine.step import EagerEngine, StepEngine
from runners.machine.device import device_name, find_device, peak_flops_per_second
from search.record.trial import Precision, TrainingRecipe
from spaces.architecture import Architecture
from spaces.flops import train_flops_per_token
from spaces.model import LanguageModel

VOCABULARY, CONTEXT, HEAD = 8_192, 512, 64
SIDES = ("eager", "compile", "compile-same", "engine")
Step = Callable[[Tensor, Tensor], Any]


def standard(d_model: int, num_layers: int) -> Architecture:
    """The standard arm, its feed-forward 8/3 of the width (the nearest multiple of 64)."""
    return Architecture(
        arm="standard",
        d_model=d_model,
        num_layers=num_layers,
        deep_ffn=round(d_model * 8 / 3 / 64) * 64,
        head_dim=HEAD,
        context_length=CONTEXT,
        vocab_size=VOCABULARY,
    )


DUAL = Architecture(
    arm="dual",
    d_model=256,
    num_layers=4,
    num_loops=2,
    deep_ffn=704,
    wide_ffn=1_024,
    head_dim=HEAD,
    context_length=CONTEXT,
    vocab_size=VOCABULARY,
)
GPU_SHAPES = [
    (architecture, batch)
    for architecture in (standard(256, 6), standard(512, 8), standard(768, 12))
    for batch in (16, 64)
] + [(DUAL, 64)]
CPU_SHAPES = [
    (
        Architecture(
            arm="standard",
            d_model=64,
            num_layers=2,
            deep_ffn=192,
            head_dim=32,
            context_length=128,
            vocab_size=256,
        ),
        4,
    )
]


def recipe_of(batch: int, device: torch.device) -> TrainingRecipe:
    """The recipe of every side."""
    precision: Precision = "bfloat16" if device.type == "cuda" else "float32"
    return TrainingRecipe(
        learning_rate=1e-3,
        batch_sequences=batch,
        precision=precision,
    )


def engine_step(architecture: Architecture, recipe: TrainingRecipe, device: torch.device) -> Step:
    """The engine's step: captured on a GPU, eager on a CPU."""
    engine: StepEngine
    if device.type == "cuda":
        engine = GraphEngine(
            StepTask(architecture=architecture, recipe=recipe, device=device), init_seed=0
        )
    else:
        engine = EagerEngine(LanguageModel(architecture), recipe)
    return lambda inputs, targets: engine.step(inputs, targets, learning_rate=1e-3)


def tokens_per_second(
    step: Step, batches: Sequence[tuple[Tensor, Tensor]], *, seconds: float
) -> float:
    """Median of three timings of about so many seconds."""
    tokens = batches[0][0].numel()
    _run(step, batches, 10)
    num_steps = max(10, round(seconds / 3 * 10 / _run(step, batches, 10)))
    return statistics.median(tokens * num_steps / _run(step, batches, num_steps) for _ in range(3))


def _run(step: Step, batches: Sequence[tuple[Tensor, Tensor]], num_steps: int) -> float:
    """Seconds of so many steps, the device's last one included."""
    started = time.perf_counter()
    for index in range(num_steps):
        loss = step(*batches[index % len(batches)])
    loss.item()
    return time.perf_counter() - started


def measure(
    architecture: Architecture,
    batch: int,
    *,
    device: torch.device,
    sides: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """One row: every side's readiness and speed on one shape."""
    a, recipe = architecture, recipe_of(batch, device)
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(8):
        tokens = torch.randint(a.vocab_size, (batch, a.context_length + 1), generator=generator).to(
            device
        )
        batches.append((tokens[:, :-1], tokens[:, 1:]))
    row: dict[str, Any] = {
        "arm": a.arm,
        "d_model": a.d_model,
        "num_layers": a.num_layers,
        "num_loops": a.num_loops,
        "batch_sequences": batch,
    }
    flops = train_flops_per_token(a)
    peak = peak_flops_per_second(device_name(device))
    for side in sides:
        started = time.perf_counter()
        if side == "engine":
            step = engine_step(a, recipe, device)
        else:
            compiled, autocast = side != "eager", side != "compile-same"
            step = PlainStep(a, recipe, device, compiled=compiled, autocast=autocast)
        step(*batches[0]).item()
        ready = time.perf_counter() - started
        speed = tokens_per_second(step, batches, seconds=seconds)
        row[side] = {"ready_seconds": ready, "tokens_per_second": speed}
        if peak is not None:
            row[side]["utilization_full"] = flops.full * speed / peak
            row[side]["utilization_causal"] = flops.causal * speed / peak
        del step
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return row


def table(rows: list[dict[str, Any]], sides: Sequence[str]) -> str:
    """One line a shape; million tokens a second, and the engine's utilisation."""
    lines = []
    for row in rows:
        parts = [
            f"{row['arm']:8} {row['d_model']:4} x {row['num_layers']:2}  K {row['num_loops']}  "
            f"batch {row['batch_sequences']:3}"
        ]
        for side in sides:
            each = row[side]
            parts.append(
                f"{side} {each['tokens_per_second'] / 1e6:6.3f} M/s "
                f"(ready {each['ready_seconds']:5.1f} s)"
            )
        if "engine" in sides:
            speed = row["engine"]["tokens_per_second"]
            parts += [
                f"{speed / row[side]['tokens_per_second']:5.2f} x {side}"
                for side in sides
                if side != "engine"
            ]
            if "utilization_full" in row["engine"]:
                each = row["engine"]
                parts.append(
                    f"{each['utilization_full']:.1%} full, {each['utilization_causal']:.1%} causal"
                )
        lines.append("  ".join(parts))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and with ``--json`` one document instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sides", nargs="+", default=list(SIDES), choices=SIDES)
    parser.add_argument("--shapes", type=int, nargs="+", help="only these rows, from 0")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing, each side and shape")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    device = find_device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        print("no GPU: a small size on the CPU, to which no bar applies", file=sys.stderr)
    rows = []
    shapes = GPU_SHAPES if device.type == "cuda" else CPU_SHAPES
    for architecture, batch in [shapes[number] for number in options.shapes or range(len(shapes))]:
        row = measure(
            architecture, batch, device=device, sides=options.sides, seconds=options.seconds
        )
        rows.append(row)
        print(table([row], options.sides), file=sys.stderr, flush=True)
    document = {
        "device": device_name(device),
        "torch": str(torch.__version__),
        "sides": options.sides,
        "rows": rows,
    }
    print(json.dumps(document, indent=2) if options.json else table(rows, options.sides))
    return 0


if __name__ == "__main__":
    sys.exit(main())
