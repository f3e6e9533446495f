"""Do a sweep's readers stay quick as it grows? Processor seconds, since machines are shared."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from analysis.sweep.leaderboard import best
from analysis.sweep.sweep_status import status
from search.record.ledger import Ledger
from tests.many_trials import many_trials


@pytest.mark.parametrize(
    ("count", "seconds"), [(2_000, 15.0), pytest.param(20_000, 30.0, marks=pytest.mark.slow)]
)
def test_the_leaderboard_takes_seconds(count: int, seconds: float, tmp_path: Path) -> None:
    experiment = many_trials(tmp_path, count)
    before = time.process_time()
    found = best(experiment.name, tmp_path)
    assert time.process_time() - before < seconds
    assert sum(len(board.entries) for board in found.budgets) == count
    assert all(board.degrees_of_freedom > 100 for board in found.budgets)
    assert {tuning.arm for tuning in found.tunings} == {"dual", "wide", "standard"}
    before = time.process_time()
    assert len(status(experiment.name, tmp_path).trials) == count
    assert time.process_time() - before < seconds


def test_what_changed_is_asked_in_milliseconds(tmp_path: Path) -> None:
    experiment = many_trials(tmp_path, 2_000)
    with contextlib.closing(Ledger(tmp_path)) as ledger:
        ledger.faces(experiment.name)
        took = []
        for _ in range(3):
            before = time.process_time()
            faces = ledger.faces(experiment.name)
            took.append(time.process_time() - before)
        assert min(took) < 1.0, "milliseconds on an idle core"
        some = sorted(faces)[::3]
        found = {record.config_hash for record in ledger.trials(experiment.name, only=some)}
        assert found == set(some)
