"""The verb doctor: agreement is said, every difference is named, MLflow is made the ledger's."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import run
from runners.mlflow.projection import MlflowProjection
from runners.mlflow.saved_view import local_tracking_uri
from search.record.trial import Outcome
from tests.sweeps import complete_outcome, open_ledger, toy_experiment, toy_proposals

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two results and a divergence, in ledger and MLflow."""
    folder = tmp_path_factory.mktemp("doctor")
    ledger = open_ledger(folder / "home", toy_experiment())
    for number, proposal in enumerate(toy_proposals(folder, 3)):
        ledger.add_trial("toy", proposal)
        attempt = ledger.start_attempt("toy", proposal.config_hash)
        outcome = complete_outcome(proposal, loss_nats=3.0 + number)
        if number == 2:
            outcome = Outcome(status="diverged", reason="loss rose", steps=2)
        ledger.accept(attempt.id, outcome, spent_flops=float(proposal.train_flops))
    uri = local_tracking_uri(folder / "home")
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    ledger.close()
    return folder / "home"


def examine(home: Path, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[Any]]:
    """Exit code and findings."""
    capfd.readouterr()
    code = run(["doctor", "--home", str(home), "--json", *words])
    document = json.loads(capfd.readouterr().out)
    assert document["sweeps"] == {"toy": 3}
    return code, document["findings"]


def change(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def test_agreement_is_said(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert examine(home, capfd) == (0, [])
    assert run(["doctor", "--home", str(home)]) == 0
    assert "ledger, MLflow and files agree" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE latest_metrics SET value = 1.5 WHERE key = 'loss_nats'", "metric loss_nats"),
        ("UPDATE runs SET status = 'RUNNING' WHERE name NOT IN ('toy')", "RUNNING for a trial"),
        ("UPDATE params SET value = 'x' WHERE key = 'arm'", "parameter arm"),
        (
            "INSERT INTO metrics SELECT key, value, timestamp + 1, run_uuid, step, is_nan FROM "
            "metrics WHERE key = 'val_loss_nats'",
            "several points at steps",
        ),
        ("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name != 'toy'", "MLflow has 0"),
    ],
)
def test_mlflow_is_made_the_ledgers(
    home: Path, statement: str, problem: str, capfd: pytest.CaptureFixture[str]
) -> None:
    change(home / "mlflow.sqlite", statement)
    code, findings = examine(home, capfd)
    assert code == 1
    assert any(problem in finding["problem"] for finding in findings)
    assert {finding["place"] for finding in findings} == {"mlflow"}
    assert examine(home, capfd, "--rebuild-mlflow") == (0, [])


def test_what_a_killed_driver_left_is_found_and_put_right(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change(
        home / "ledger.sqlite",
        "UPDATE attempts SET state = 'running' WHERE state = 'diverged'",
    )
    change(home / "ledger.sqlite", "UPDATE trials SET state = 'running' WHERE state = 'diverged'")
    change(
        home / "ledger.sqlite",
        "DELETE FROM outcomes WHERE config_hash IN "
        "(SELECT config_hash FROM trials WHERE state = 'running')",
    )
    leftover = home / "sweeps" / "toy" / "checkpoints" / "unknown"
    leftover.mkdir(parents=True)
    code, findings = examine(home, capfd)
    assert code == 1
    problems = [finding["problem"] for finding in findings]
    assert any("marked running, but no driver" in problem for problem in problems)
    assert any("is no longer needed" in problem for problem in problems)
    leftover.rmdir()
    assert examine(home, capfd, "--rebuild-mlflow") == (0, [])


def test_an_unreadable_mlflow_is_put_aside(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    moved = home.with_name("moved")
    home.rename(moved)
    (moved / "mlflow.sqlite").write_bytes(b"no database")
    assert examine(moved, capfd, "--rebuild-mlflow") == (0, [])
    assert (moved / "mlflow.sqlite.broken").read_bytes() == b"no database"
