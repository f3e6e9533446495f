"""Does the engine move the loss? Against a plain loop in float32, beside the noise of data order.

The same trial (dual, width 256, 4 layers, K = 2) is trained in every order of the data by a plain
float32 loop, by that loop in the engine's arithmetic, and by the engine twice. What an order
changes is the noise that a difference must be seen against; two runs of the engine differ because
sums on a GPU have no fixed order. Losses are nats per token on the same validation tokens.

    python -m experiments.benchmarks.engine.engine_loss [--orders 4] [--steps 300] [--json]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from experiments.benchmarks.engine.engine_setup import base_architecture
from experiments.benchmarks.engine.plain_loop import train_plainly
from runners.machine.device import device_name
from runners.text.corpus import Corpus, prepare_corpus
from runners.trial.training import TrainingOptions, run_trial
from search.record.trial import Outcome, Precision, TrainingRecipe, TrialConfig

SIDES = ("plain float32", "plain bfloat16", "engine", "engine again")


def trial(corpus: Corpus, *, device: str, steps: int, data_seed: int) -> TrialConfig:
    """The trial in one order of the data, in the engine's precision."""
    on_gpu = device == "cuda"
    batch = 16 if on_gpu else 4
    architecture = base_architecture(256 if on_gpu else 32, on_gpu=on_gpu)
    return TrialConfig(
        architecture=architecture,
        tokens=steps * batch * architecture.context_length,
        training=TrainingRecipe(
            learning_rate=2e-3,
            batch_sequences=batch,
            precision="bfloat16" if on_gpu else "float32",
        ),
        text_fingerprint=corpus.fingerprint,
        eval_sequences=64,
        eval_points=1,
        data_seed=data_seed,
    )


def loss_of(side: str, config: TrialConfig, corpus: Corpus, device: str) -> float:
    """The validation loss that one side ends with."""
    if side.startswith("plain"):
        precision: Precision = "float32" if side == "plain float32" else "bfloat16"
        training = replace(config.training, precision=precision)
        return train_plainly(replace(config, training=training), corpus, device, compiled=False)
    *_, outcome = run_trial(config, corpus, TrainingOptions(device=device))
    assert isinstance(outcome, Outcome)
    assert outcome.loss_nats is not None, outcome.reason
    return outcome.loss_nats


def summary(losses: dict[str, list[float]]) -> dict[str, float]:
    """The engine's distance from the float32 loop, and the noises beside it, in nats."""
    plain, engine = losses["plain float32"], losses["engine"]
    differences = [one - other for one, other in zip(engine, plain, strict=True)]
    reruns = zip(engine, losses["engine again"], strict=True)
    found = {
        "engine_less_plain_mean": statistics.mean(differences),
        "standard_error_of_that": statistics.stdev(differences) / math.sqrt(len(differences)),
        "engine_less_plain_worst": max(map(abs, differences)),
        "rerun_worst": max(abs(one - other) for one, other in reruns),
    }
    deviations = {
        f"standard_deviation_over_orders_of_{side.replace(' ', '_')}": statistics.stdev(values)
        for side, values in losses.items()
    }
    return found | deviations


def main(argv: Sequence[str] | None = None) -> int:
    """Train all sides, print the table, and with ``--json`` one document instead."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--orders", type=int, default=4, help="data orders, two at least")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--text", type=Path, help="file or folder; left out: the default corpus")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print("no GPU: a small size on the CPU; plain bfloat16 is left out", file=sys.stderr)
    sides = [side for side in SIDES if device == "cuda" or side != "plain bfloat16"]
    losses: dict[str, list[float]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare_corpus(options.text, cache_dir=Path(folder))
        for data_seed in range(options.orders):
            config = trial(corpus, device=device, steps=options.steps, data_seed=data_seed)
            for side in sides:
                losses[side].append(loss_of(side, config, corpus, device))
                said = f"order {data_seed}, {side}: {losses[side][-1]:.5f} nats"
                print(said, file=sys.stderr, flush=True)
    document = {
        "device": device_name(torch.device(device)),
        "torch": str(torch.__version__),
        "steps": options.steps,
        "losses": losses,
        "nats": summary(losses),
    }
    if options.json:
        print(json.dumps(document, indent=2))
        return 0
    for side, found in losses.items():
        print(f"{side:15}" + "".join(f"  {loss:.5f}" for loss in found))
    for name, nats in summary(losses).items():
        print(f"{name.replace('_', ' '):48} {nats:.6f} nats")
    return 0


if __name__ == "__main__":
    sys.exit(main())
