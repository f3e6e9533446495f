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
from typing import Any

import torch

from experiments.benchmarks.engine.engine_step import VOCABULARY, recipe_of
from runners.engine.graph import StepTask, WarmEngine
from runners.machine.device import device_name, find_device
from search.limits.memory import training_memory_bytes
from spaces.architecture import Architecture, CommonFields
from spaces.arms.contract import find_arm, shape_in_words
from spaces.axes import AxisValue
from spaces.identity import canonical_form

ARMS = ("dual", "dual", "loop", "wide", "standard", "moe")
WIDTHS = (128, 192, 256, 320, 384, 512, 640, 768)

VALUES: dict[str, Sequence[AxisValue]] = {
    "num_layers": (2, 3, 4, 6, 8),
    "num_loops": (1, 2, 3, 4),
    "deep_multiplier": (1, 2, 3, 4),
    "wide_multiplier": (1, 2, 4, 8),
    "expert_multiplier": (1, 2),
    "num_experts": (4, 8, 16),
    "top_k": (1, 2, 4),
}
"""Of axes; of one that is not here, the values that its arm comes with."""


def shapes(
    count: int, *, arms: Sequence[str], widths: Sequence[int], seed: int
) -> list[tuple[Architecture, int]]:
    """Architectures with sequences of a batch."""
    rng = random.Random(seed)
    found = []
    for _ in range(count):
        arm, width = find_arm(rng.choice(arms)), rng.choice(tuple(widths))
        axes = [axis for axis in arm.axes["tokens"] if axis.role == "shape"]
        point = {axis.name: rng.choice(VALUES.get(axis.name, axis.values)) for axis in axes}
        vocabulary = rng.choice((256, VOCABULARY, 4 * VOCABULARY))
        common = CommonFields(head_dim=64, context_length=512, vocab_size=vocabulary)
        architecture = arm.shape(point, common, d_model=width, ffn_multiple=8)
        found.append((architecture, rng.choice((8, 16, 32, 64))))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print the table, and with ``--json`` one document instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shapes", type=int, default=24)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--widths", nargs="+", type=int, default=list(WIDTHS))
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("no GPU: a CPU process has no peak of its own to compare with", file=sys.stderr)
        return 0
    device, warm = find_device("cuda"), WarmEngine()
    rows: list[dict[str, Any]] = []
    wanted = {"arms": options.arms, "widths": options.widths, "seed": options.seed}
    for architecture, batch in shapes(options.shapes, **wanted):
        warm.let_go()
        before = torch.cuda.memory_allocated()
        recipe = recipe_of(batch, device)
        task = StepTask(architecture=architecture, recipe=recipe, device=device)
        engine = warm.start(task, init_seed=0)
        measured = engine.peak_memory_bytes - before
        predicted = training_memory_bytes(architecture, sequences=engine.micro_batch_sequences)
        rows.append(
            {
                "architecture": canonical_form(architecture),
                "shape": shape_in_words(architecture),
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
            f"{a['arm']:8} {row['shape']:48} vocabulary {a['vocab_size']:5}  "
            f"batch {row['batch_sequences']:2}: {row['measured_bytes'] / 1e9:6.3f} GB, predicted "
            f"{ratio - 1:+.1%}"
        )
    worst = max(abs(row["predicted_bytes"] / row["measured_bytes"] - 1) for row in rows)
    print(f"worst of {len(rows)}: {worst:.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
