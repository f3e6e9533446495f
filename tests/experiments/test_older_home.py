"""Does a home of the first release open, with the same identities, and go on where it stopped?

``tests/homes/release_0_1`` was made by commit 41642b8 (its ``make_home.py`` says how): two sweeps
that share trials; finished, waiting, preempted, diverged, pruned and failed ones.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import isoflop
from experiments.cli import run
from search.record.ledger import Ledger, TrialRecord
from tests.experiments.toy import run_json

pytestmark = pytest.mark.filterwarnings("default")

MADE = Path(__file__).resolve().parents[1] / "homes" / "release_0_1"
EXPECTED: dict[str, Any] = json.loads((MADE / "expected.json").read_text())
SWEEPS = tuple(EXPECTED["sweeps"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home beside its text and experiments, somewhere else than it was made."""
    place = tmp_path_factory.mktemp("older") / "moved"
    shutil.copytree(MADE, place)
    return place


def records_of(folder: Path, sweep: str) -> list[TrialRecord]:
    ledger = Ledger(folder / "home")
    records = ledger.trials(sweep)
    ledger.close()
    return records


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_trial_is_there_under_its_hash(folder: Path, sweep: str) -> None:
    records, expected = records_of(folder, sweep), EXPECTED["sweeps"][sweep]
    assert [record.config_hash for record in records] == expected["config_hashes"]
    for record, row in zip(records, expected["trials"], strict=True):
        outcome = record.outcome
        assert record.state == row["state"]
        assert record.set_aside == row["set_aside"]
        assert (outcome.loss_nats if outcome else None) == row["loss_nats"]
        assert len(record.curve) == row["curve_points"]
        assert len(record.attempts) == len(row["attempts"])


@pytest.mark.parametrize("sweep", SWEEPS)
def test_todays_code_gives_these_configurations_the_same_hashes(folder: Path, sweep: str) -> None:
    for record in records_of(folder, sweep):
        anew = replace(record.proposal.config)
        assert "config_hash" not in vars(anew)
        assert anew.config_hash == record.config_hash


@pytest.mark.parametrize("sweep", SWEEPS)
def test_leaderboard_and_spending_are_what_they_were(folder: Path, sweep: str) -> None:
    expected = EXPECTED["sweeps"][sweep]
    found = {
        f"{board.target_train_flops:g}": {
            "recommended": board.recommended.config_hash,
            "leaderboard": [entry.record.config_hash for entry in board.entries],
        }
        for board in isoflop.best(sweep, folder / "home").budgets
    }
    assert found == expected["best"]
    status = isoflop.status(sweep, folder / "home")
    assert status.train_flops_spent == pytest.approx(expected["flops"]["spent"])
    assert status.train_flops_behind_results == expected["flops"]["counted"]


def test_routing_of_the_first_release_is_read_as_readouts(folder: Path) -> None:
    dual = next(
        record
        for record in records_of(folder, "second")
        if record.proposal.arm == "dual" and record.state == "complete"
    )
    assert dual.outcome is not None
    assert set(dual.outcome.readouts) == {"deep_share", "gate_entropy_nats"}
    layers = dual.proposal.config.architecture.num_layers
    assert all(len(values) == layers for values in dual.outcome.readouts.values())
    assert all(0 < share < 1 for share in dual.outcome.readouts["deep_share"])


def test_laws_are_what_they_were(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("fit", "first", "--home", str(folder / "home"), "--every-row", "--curve", "parabola")
    document = run_json(capfd, *words)
    laws = {f"{arm} surface": fits["surface"] for arm, fits in document["arms"].items()}
    laws |= {f"{arm} isoflop": fits["isoflop"] for arm, fits in document["arms"].items()}
    for name, expected in EXPECTED["sweeps"]["first"]["laws"].items():
        if name not in laws:
            continue
        parameters = {key: value for key, value in laws[name]["parameters"].items() if value}
        assert set(parameters) >= set(expected["parameters"]), name  # A and B may stand now
        for key, value in expected["parameters"].items():
            assert parameters[key] == pytest.approx(value, rel=1e-4), (name, key)


def test_reading_leaves_the_file_as_it_is(folder: Path) -> None:
    before = (MADE / "home" / "ledger.sqlite").read_bytes()
    records_of(folder, "first")
    assert (folder / "home" / "ledger.sqlite").read_bytes() == before
    assert not list((folder / "home").glob("ledger.schema-*"))


def test_the_same_command_goes_on_to_what_the_first_release_would_have_reached(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Finished results are reused, the waiting trial runs, the preempted one goes on in its middle.

    The grid proposes what it would have proposed, told to leave the standard arm without the step
    scales that today's default gives it beside the loop's; the sweep that tunes its rates goes on
    with what it has, by today's search.
    """
    home = folder / "home"
    for sweep in SWEEPS:
        words = ["sweep", str(folder / f"{sweep}.toml"), "--home", str(home), "--json"]
        assert run([*words, "--axes.step-scales", "own"]) == 0
    assert (home / "ledger.schema-1.sqlite").read_bytes()[:15] == b"SQLite format 3"
    for sweep in SWEEPS:
        records = records_of(folder, sweep)
        expected = EXPECTED["gone_on"][sweep]
        if sweep == "second":
            known = len(EXPECTED["sweeps"][sweep]["config_hashes"])
            was_aside = [row["set_aside"] for row in EXPECTED["sweeps"][sweep]["trials"]]
            assert [record.set_aside for record in records[:known]] == was_aside
            assert len(records) == len(expected)
            records, expected = records[:known], expected[:known]
        assert [record.config_hash for record in records] == [row[1] for row in rows(expected)]
        assert [record.state for record in records] == [row[2] for row in rows(expected)]
        for record, (*_, loss) in zip(records, rows(expected), strict=True):
            found = record.outcome.loss_nats if record.outcome else None
            assert (found is None) == (loss is None)
            assert found is None or math.isclose(found, loss, rel_tol=1e-3)
    capfd.readouterr()
    document = run_json(capfd, "doctor", "--home", str(home), "--rebuild-mlflow")
    assert document["findings"] == []


def rows(expected: list[Any]) -> list[tuple[Any, ...]]:
    """Number, hash, state and loss of every trial."""
    return [tuple(row.values()) if isinstance(row, dict) else tuple(row) for row in expected]
