"""Does a sweep on a GPU outlive its worker? Needs a GPU."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.faults.toolbox import TOML, Home, Launcher, wait_until, write_toy

WIDER = TOML.replace("d_model = [16, 32]", "d_model = [64, 128]").replace(
    "head_dim = 16\ncontext_length = 32", "head_dim = 32\ncontext_length = 256"
)
LARGER = WIDER.replace("[1e9, 2e9]", "[6e13, 1.2e14]").replace(
    "batch_tokens = 256\nbatch_reference_flops = 1e9",
    "batch_tokens = 8192\nbatch_reference_flops = 2e13",
)
ON_GPU = LARGER.replace('pool = "inline"\ndevice = "cpu"', 'pool = "ray"\ndevice = "cuda"')
ON_GPU = ON_GPU.replace("checkpoint_seconds = 0.05", "checkpoint_seconds = 0.5")


@pytest.mark.gpu
def test_a_killed_worker_costs_its_trial_time_not_the_sweep(tmp_path: Path) -> None:
    launcher = Launcher()
    home = Home(launcher, tmp_path, write_toy(tmp_path / "toy", toml=ON_GPU))
    command = home.start("--trials", "4")

    wait_until(home.running_attempt, what="a checkpoint", timeout_seconds=240)
    victim = home.running_attempt()
    assert victim is not None
    os.kill(victim[0], signal.SIGKILL)
    assert command.wait() == 0, command.err
    launcher.close()
    assert home.rows("SELECT config_hash FROM attempts WHERE state = 'lost'") == [(victim[1],)]
    outcomes = {name: json.loads(row[1]) for name, row in home.acknowledged().items()}
    assert [each["status"] for each in outcomes.values()] == ["complete"] * 4
    assert outcomes[victim[1]]["resumed_tokens"] > 0
