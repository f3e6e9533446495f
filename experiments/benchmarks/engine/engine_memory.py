"""Is the memory of a trial known before it is spent? Predicted against measured, random shapes.

By default shapes that the prediction was not fitted to. Those were ``--seed 0 --widths 256 512``,
``--seed 1 --widths 128 192 384 768`` and ``--seed 2``.

    python -m experiments.benchmarks.engine.engine_memory [--shapes 24] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from experiments.benchmarks.engine.engine_step import VOCABULARY, recipe_of
from runners.engine.graph import StepTask, WarmEngine
from runners.machine.device import device_name, find_device
from search.limits.memory import training_memory_bytes
from spaces.architecture import Architecture

ARMS: tuple[str, ...] = ("dual", "dual", "loop", "wide", "standard")
WIDTHS = (128, 192, 256, 320, 384, 512, 640, 768)


def shapes(count: int, *, widths: Sequence[int], seed: int) -> list[tuple[Architecture, int]]:
    """Architectures with sequences of a batch."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        arm, width = rng.choice(ARMS), rng.choice(tuple(widths))
        architecture = Architecture(
            arm=arm,
            d_model=width,
            num_layers=rng.choice((2, 3, 4, 6, 8)),
            num_loops=rng.choice((1, 2, 3, 4)) if arm in ("dual", "loop") else 1,
            deep_ffn=None if arm == "wide" else width * rng.choice((1, 2, 3, 4)),
            wide_ffn=width * rng.choice((1, 2, 4, 8)) if arm in ("dual", "wide") else None,
            head_dim=64,
            context_length=512,
            vocab_size=rng.choice((256, VOCABULARY, 4 * VOCABULARY)),
        )
        found.append((architecture, rng.choice((8, 16, 32, 64))))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and with ``--json`` one document instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", type=int, default=24)
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("no GPU: a CPU process has no peak of its own to compare with", file=sys.stderr)
        return 0
    device, warm = find_device("cuda"), WarmEngine()
    rows: list[dict[str, Any]] = []
    for architecture, batch in shapes(options.shapes, widths=options.widths, seed=options.seed):
        warm.let_go()
        before = torch.cuda.memory_allocated()
        recipe = recipe_of(batch, device)
        task = StepTask(architecture=architecture, recipe=recipe, device=device)
        engine = warm.start(task, init_seed=0)
        measured = engine.peak_memory_bytes - before
        predicted = training_memory_bytes(architecture, sequences=engine.micro_batch_sequences)
        rows.append(
            {
                "architecture": asdict(architecture),
                "batch_sequences": batch,
                "micro_batch_sequences": engine.micro_batch_sequences,
                "predicted_bytes": predicted,
                "measured_bytes": measured,
                "before_bytes": before,
            }
        )
        del engine
    if options.json:
        print(json.dumps({"device": device_name(device), "rows": rows}, indent=2))
        return 0
    for row in rows:
        a, ratio = row["architecture"], row["predicted_bytes"] / row["measured_bytes"]
        print(
            f"{a['arm']:8} {a['d_model']:4} x {a['num_layers']}  K {a['num_loops']}  deep "
            f"{a['deep_ffn'] or 0:5}  wide {a['wide_ffn'] or 0:5}  vocabulary {a['vocab_size']:5}  "
            f"batch {row['batch_sequences']:2}: {row['measured_bytes'] / 1e9:6.3f} GB, predicted "
            f"{ratio - 1:+.1%}"
        )
    worst = max(abs(row["predicted_bytes"] / row["measured_bytes"] - 1) for row in rows)
    print(f"worst of {len(rows)}: {worst:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
