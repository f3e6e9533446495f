"""Does a sweep on a GPU outlive its worker? Needs a GPU."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.faults.toolbox import Home, Launcher, wait_until, write_toy

SECONDS_LONG = """
--workers.device cuda --workers.pool ray --workers.checkpoint-seconds 0.5 --trials 4
--budget.train-flops 6e13 1.2e14 --training.batch-tokens 8192 --training.batch-reference-flops 2e13
--axes.d-model 64 128 --architecture.head-dim 32 --architecture.context-length 256
"""
"""What makes the toy sweep's trials last for seconds on a GPU."""


@pytest.mark.gpu
def test_a_killed_worker_costs_its_trial_time_not_the_sweep(tmp_path: Path) -> None:
    launcher = Launcher()
    try:
        home = Home(launcher, tmp_path, write_toy(tmp_path / "toy"))
        command = home.start(*SECONDS_LONG.split())
        wait_until(home.running_attempt, what="a checkpoint", timeout_seconds=240)
        victim = home.running_attempt()
        assert victim is not None
        os.kill(victim[0], signal.SIGKILL)
        assert command.wait() == 0, command.err
    finally:
        launcher.close()
    assert home.rows("SELECT config_hash FROM attempts WHERE state = 'lost'") == [(victim[1],)]
    outcomes = {name: json.loads(row[1]) for name, row in home.acknowledged().items()}
    assert [each["status"] for each in outcomes.values()] == ["complete"] * 4
    assert outcomes[victim[1]]["resumed_tokens"] > 0
