"""A toy experiment file on real text: seconds on one core, all arms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run

TOML = """
name = "toy"
trials = 6

[budget]
train_flops = [1e9, 2e9]

[axes]
num_loops = [1, 2]
wide_multiplier = [2, 4]
num_layers = [1, 2]
d_model = [16, 32]

[architecture]
head_dim = 16
context_length = 32

[training]
batch_tokens = 256
batch_reference_flops = 1e9
eval_sequences = 16
eval_points = 2

[workers]
pool = "inline"
device = "cpu"
"""


def write_toy(folder: Path) -> str:
    """The path of the toy experiment's file."""
    path = folder / "toy.toml"
    path.write_text(TOML)
    return str(path)


def run_json(capfd: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The one document that a verb prints on standard output with ``--json``."""
    capfd.readouterr()
    assert run([*words, "--json"]) == 0
    captured = capfd.readouterr()
    document: dict[str, Any] = json.loads(captured.out)
    return document
