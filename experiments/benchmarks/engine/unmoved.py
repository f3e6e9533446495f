"""Did training move? Twelve fixed configurations over all five arms, trained on a CPU by two
checkouts, must give bitwise the same losses and weights.

Each checkout runs the same two experiments (``EXPERIMENTS``) with its own code, in processes of its
own on one thread; then both ledgers are read as plain SQLite and JSON, because the classes that
wrote them may differ, and compared by configuration hash: the losses along the curve, the final
loss, and every tensor of the weights. Exits with 1 if anything moved.

    python -m experiments.benchmarks.engine.unmoved --before DIR [--after DIR]
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

NUM_TRIALS = 12

SHARED = """
trials = 6
axes.num_layers = [2]
axes.wide_multiplier = [3]
architecture.head_dim = 16
architecture.context_length = 32
training.batch_tokens = 256
training.batch_reference_flops = 4e9
training.precision = "float32"
training.eval_sequences = 32
training.eval_points = 8
training.save_weights = true
search.sampler = "grid"
workers.pool = "inline"
workers.device = "cpu"
workers.cpus_each = 1
"""
"""Of the six trials each arm gets one, its baseline, and the dual arm another K and gate."""

EXPERIMENTS = {
    "cosine": """
name = "cosine"
budget.train_flops = [1e10]
axes.num_loops = [1, 2]
axes.d_model = [32]
axes.gate_mode = ["convex", "independent"]
""",
    "wsd": """
name = "wsd"
budget.train_flops = [4e9]
axes.num_loops = [2, 3]
axes.d_model = [16]
axes.gate_mode = ["fixed", "softmax"]
axes.step_scale_init = [-7.0]
architecture.qk_norm = "before"
architecture.wide_attention = false
training.schedule = "wsd"
training.ponder_penalty = 0.01
training.gate_entropy_penalty = 0.02
""",
}
"""Between them K of 1 to 3, every gate mode, routers that mix, both starts of the step scales, both
schedules, and penalties on and off."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one checkout made of one configuration."""

    arm: str
    """The family it stands for."""
    shape: str
    """What tells its architecture from the others, for a person."""
    loss_nats: float | None
    """Final validation loss; None where it diverged."""
    curve: list[tuple[int, float | None, float | None]]
    """Step, training loss and validation loss of every measured point."""
    weights: Arrays
    """Final weights by name; none where it diverged."""


def train(checkout: Path, home: Path) -> dict[str, Trained]:
    """Run both experiments with a checkout's code; what they left, by configuration hash."""
    home.mkdir()
    for name, text in EXPERIMENTS.items():
        print(f"{checkout}: {name}", file=sys.stderr, flush=True)
        experiment = home / f"{name}.toml"
        experiment.write_text(text + SHARED)
        command = [sys.executable, "-m", "experiments", "sweep", str(experiment)]
        done = subprocess.run(
            [*command, "--home", str(home), "--json"],
            cwd=checkout,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": str(checkout)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{checkout}: {' '.join(command)} failed\n{done.stderr}")
    return read_home(home)


def read_home(home: Path) -> dict[str, Trained]:
    """Every trial of a home that has an outcome, in order of proposal."""
    query = """
        SELECT config_hash, proposal_json, outcome_json
        FROM trials JOIN outcomes USING (config_hash) ORDER BY sweep, number
    """
    with closing(sqlite3.connect(home / "ledger.sqlite")) as connection:
        rows = connection.execute(query).fetchall()
    found = {}
    for config_hash, proposal_json, outcome_json in rows:
        proposal, outcome = json.loads(proposal_json), json.loads(outcome_json)
        found[config_hash] = Trained(
            arm=proposal["arm"],
            shape=shape_of(proposal["config"]),
            loss_nats=outcome["loss_nats"],
            curve=[
                (point["step"], point["train_loss_nats"], point["val_loss_nats"])
                for point in outcome["curve"]
            ],
            weights={} if outcome["loss_nats"] is None else read_weights(home, config_hash),
        )
    return found


def shape_of(config: Mapping[str, Any]) -> str:
    """The sizes and choices in which the configurations differ."""
    a = config["architecture"]
    parts = [f"{a['num_layers']} x {a['d_model']}"]
    if a["arm"] in ("dual", "loop"):
        parts.append(f"K {a['num_loops']}")
    if a["arm"] == "dual":
        parts.append(a["gate_mode"])
    if a["arm"] != "standard":
        parts.append(f"scale {a['step_scale_init']:.2g}")
    return ", ".join([*parts, config["training"]["schedule"]])


def read_weights(home: Path, config_hash: str) -> Arrays:
    """The final weights of a trial, wherever the home keeps them."""
    (path,) = home.rglob(f"{config_hash}.safetensors")
    return load_file(path)


def what_moved(before: Trained | None, after: Trained | None) -> list[str]:
    """What differs by as much as a bit; empty where nothing does."""
    if before is None or after is None:
        return ["only after" if before is None else "only before"]
    moved = []
    if repr(before.loss_nats) != repr(after.loss_nats):
        moved.append(f"final loss, now {after.loss_nats}")
    if repr(before.curve) != repr(after.curve):
        moved.append("curve")
    names = sorted(before.weights.keys() | after.weights.keys())
    differing = [name for name in names if not _is_same(before.weights, after.weights, name)]
    if differing:
        moved.append(f"{len(differing)} of {len(names)} tensors, first {differing[0]}")
    return moved


def _is_same(before: Arrays, after: Arrays, name: str) -> bool:
    if name not in before or name not in after:
        return False
    one, other = before[name], after[name]
    kinds_agree = (one.dtype, one.shape) == (other.dtype, other.shape)
    return kinds_agree and one.tobytes() == other.tobytes()


def report(before: Mapping[str, Trained], after: Mapping[str, Trained]) -> int:
    """Print a row per trial; how many moved."""
    num_moved = 0
    for config_hash in [*before, *(key for key in after if key not in before)]:
        one, other = before.get(config_hash), after.get(config_hash)
        moved = what_moved(one, other)
        num_moved += bool(moved)
        shown = one or other
        assert shown is not None
        loss = "diverged" if shown.loss_nats is None else f"{shown.loss_nats:.6f}"
        verdict = f"MOVED ({'; '.join(moved)})" if moved else "same"
        print(f"{config_hash}  {shown.arm:8}  {shown.shape:43}  {loss:>8}  {verdict}")
    return num_moved


def main(argv: Sequence[str] | None = None) -> int:
    """Train in both checkouts and print the table; 1 if anything moved."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, required=True, help="checkout to compare with")
    parser.add_argument("--after", type=Path, default=Path(), help="left out: this folder")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        before, after = (
            train(checkout.resolve(), Path(folder) / side)
            for side, checkout in (("before", options.before), ("after", options.after))
        )
    num_moved = report(before, after)
    print(f"{len(before)} configurations before, {len(after)} after: {num_moved} moved")
    if len(before) != NUM_TRIALS:
        print(f"expected {NUM_TRIALS} configurations before, got {len(before)}", file=sys.stderr)
    return int(num_moved > 0 or len(before) != NUM_TRIALS)


if __name__ == "__main__":
    sys.exit(main())
