"""MLflow shows what the ledger has: the same numbers, one point per step, nothing left running."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from runners.mlflow.comparison import compare_sweep
from runners.mlflow.database import analyse_database
from runners.mlflow.description import NOTE_TAG
from runners.mlflow.projection import MlflowProjection, log_fit, log_report
from runners.mlflow.run_rows import run_name
from runners.mlflow.saved_view import BEST_VIEW_KEY, flops_in_words, local_tracking_uri
from search.record.ledger import Attempt, Ledger, TrialRecord
from search.record.numbers import configuration_numbers, outcome_numbers
from search.record.trial import CurvePoint, Outcome
from tests.search.records import record_of
from tests.sweeps import complete_outcome, open_ledger, toy_experiment, toy_proposals


def fill(ledger: Ledger, scratch: Path) -> None:
    """Three results and one divergence."""
    for number, proposal in enumerate(toy_proposals(scratch, 4)):
        ledger.add_trial("toy", proposal)
        attempt = ledger.start_attempt("toy", proposal.config_hash)
        outcome = complete_outcome(proposal, loss_nats=3.0 + number / 10)
        if number == 3:
            outcome = Outcome(status="diverged", reason="loss rose", steps=2)
        ledger.accept(attempt.id, outcome, spent_flops=float(proposal.train_flops))


def runs_of(client: MlflowClient, ledger: Ledger) -> dict[str, Run]:
    experiment = ledger.sweep("toy").mlflow_experiment_id
    found = client.search_runs([experiment], filter_string="tags.`isoflop.kind` = 'trial'")
    return {run.data.tags["isoflop.config_hash"]: run for run in found}


def assert_equal(client: MlflowClient, record: TrialRecord, run: Run) -> None:
    numbers = configuration_numbers(record.proposal) | outcome_numbers(record.outcome)
    shown = {key: value for key, value in run.data.metrics.items() if key in numbers}
    assert shown == numbers
    for name in ("train_loss_nats", "val_loss_nats", "learning_rate"):
        history = client.get_metric_history(run.info.run_id, name)
        expected = [(point.step, getattr(point, name)) for point in record.curve]
        assert sorted((point.step, point.value) for point in history) == expected


@pytest.mark.filterwarnings("default")
def test_a_run_names_the_commit_that_made_its_result(tmp_path: Path) -> None:
    ledger, home = open_ledger(tmp_path / "home", toy_experiment()), tmp_path / "home"
    finished, queued = toy_proposals(tmp_path, 2)
    uri = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    for proposal in (finished, queued):
        ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", finished.config_hash)
    MlflowProjection(ledger, "toy", tracking_uri=uri).sync()
    outcome = replace(complete_outcome(finished), versions={"commit": "0123456789ab"})
    ledger.accept(attempt.id, outcome, spent_flops=1.0)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    runs = runs_of(MlflowClient(tracking_uri=uri), ledger)
    for proposal, commit in ((finished, "0123456789ab"), (queued, "fedcba987654+")):
        tags = runs[proposal.config_hash].data.tags
        assert tags["isoflop.commit"] == commit
        assert tags["isoflop.arm"] == proposal.arm
        assert tags["isoflop.budget"] == f"{proposal.budget.train_flops:.3g}"
        assert tags["isoflop.text_fingerprint"] == proposal.config.text_fingerprint
    artifacts = runs[finished.config_hash].info.artifact_uri
    assert artifacts.startswith((home.resolve() / "artifacts").as_uri())
    ledger.close()


@pytest.mark.filterwarnings("default")
def test_mlflow_equals_the_ledger_run_by_run_however_often_it_is_sent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    ledger = open_ledger(home, toy_experiment())
    fill(ledger, tmp_path)
    uri = local_tracking_uri(home)
    for _ in range(2):
        projection = MlflowProjection(ledger, "toy", tracking_uri=uri)
        projection.sync()
        projection.finish(interrupted=False)
    client = MlflowClient(tracking_uri=uri)
    runs = runs_of(client, ledger)
    records = {record.config_hash: record for record in ledger.trials("toy")}
    assert set(runs) == set(records)
    for config_hash, record in records.items():
        assert record.mlflow_run_id == runs[config_hash].info.run_id
        assert_equal(client, record, runs[config_hash])
    states = sorted(run.info.status for run in runs.values())
    assert states == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    failed = next(run for run in runs.values() if run.info.status == "FAILED")
    assert failed.data.tags["isoflop.reason"] == "loss rose"
    experiment = client.get_experiment(ledger.sweep("toy").mlflow_experiment_id)
    assert f"mlflow.sharedViewState.{BEST_VIEW_KEY}" in experiment.tags


def begin(ledger: Ledger, scratch: Path) -> tuple[Attempt, Outcome, CurvePoint]:
    """An attempt at one trial, its whole outcome, and a first point that differs from it."""
    (proposal,) = toy_proposals(scratch, 1)
    whole = complete_outcome(proposal)
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    return attempt, whole, replace(whole.curve[0], train_loss_nats=9.0)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("in_one_process", [True, False])
def test_another_try_leaves_nothing_of_the_failure_in_its_run(
    tmp_path: Path, in_one_process: bool
) -> None:
    ledger = open_ledger(tmp_path / "home", toy_experiment())
    uri = local_tracking_uri(tmp_path / "home")
    attempt, whole, half = begin(ledger, tmp_path)
    failure = Outcome(status="failed", reason="a bug", steps=half.step, curve=(half,))
    ledger.accept(attempt.id, failure, spent_flops=1.0)
    projection = MlflowProjection(ledger, "toy", tracking_uri=uri)
    projection.sync()
    ledger.reopen("toy", "failed")
    if not in_one_process:
        projection = MlflowProjection(ledger, "toy", tracking_uri=uri)
    attempt = ledger.start_attempt("toy", ledger.trials("toy")[0].config_hash)
    projection.sync()
    ledger.accept(attempt.id, whole, spent_flops=1.0)
    projection.finish(interrupted=False)
    assert compare_sweep(ledger, "toy", tracking_uri=uri) == {}
    (record,), client = ledger.trials("toy"), MlflowClient(tracking_uri=uri)
    assert_equal(client, record, runs_of(client, ledger)[record.config_hash])
    ledger.close()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("in_one_process", [True, False])
def test_points_that_were_trained_again_otherwise_are_those_of_the_ledger(
    tmp_path: Path, in_one_process: bool
) -> None:
    ledger = open_ledger(tmp_path / "home", toy_experiment())
    uri = local_tracking_uri(tmp_path / "home")
    attempt, whole, half = begin(ledger, tmp_path)
    ledger.record_progress(
        attempt.id, step=half.step, spent_flops=1.0, curve=(half,), node="n", pid=1
    )
    projection = MlflowProjection(ledger, "toy", tracking_uri=uri)
    projection.sync()
    ledger.fence(attempt.id, reason="killed", state="lost")
    if not in_one_process:
        projection = MlflowProjection(ledger, "toy", tracking_uri=uri)
    attempt = ledger.start_attempt("toy", ledger.trials("toy")[0].config_hash)
    ledger.accept(attempt.id, whole, spent_flops=1.0)
    projection.finish(interrupted=False)
    assert compare_sweep(ledger, "toy", tracking_uri=uri) == {}
    ledger.close()


@pytest.mark.filterwarnings("default")
def test_a_copied_home_leaves_the_original_alone(tmp_path: Path) -> None:
    home, copy = tmp_path / "home", tmp_path / "copy"
    ledger = open_ledger(home, toy_experiment())
    fill(ledger, tmp_path)
    MlflowProjection(ledger, "toy", tracking_uri=local_tracking_uri(home)).finish(interrupted=False)
    ledger.close()
    shutil.copytree(home, copy)
    before = sorted(home.rglob("*"))
    _artifact_repos_cache.clear()  # another process, as a user's would be
    ledger = Ledger(copy)
    sweep = ledger.sweep("toy")
    assert sweep.tracking_uri is None
    assert log_fit(copy, sweep, {"arms": {}, "compute_capacity": None}, []) is None
    assert len(list(copy.rglob("fit.json"))) == 1
    page = tmp_path / "report.html"
    page.write_text("<!doctype html>")
    assert log_report(copy, sweep, [page]) is None
    assert len(list(copy.rglob("artifacts/report/report.html"))) == 1
    (proposal,) = toy_proposals(tmp_path / "more", 5)[4:]
    ledger.add_trial("toy", proposal)
    uri = local_tracking_uri(copy)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    assert len(list(copy.rglob("trial.json"))) == 5
    assert compare_sweep(ledger, "toy", tracking_uri=uri) == {}
    assert sorted(home.rglob("*")) == before
    ledger.close()


@pytest.mark.filterwarnings("default")
def test_an_experiment_deleted_in_mlflow_is_restored(tmp_path: Path) -> None:
    ledger, uri = open_ledger(tmp_path, toy_experiment()), local_tracking_uri(tmp_path)
    fill(ledger, tmp_path)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    client = MlflowClient(tracking_uri=uri)
    client.delete_experiment(ledger.sweep("toy").mlflow_experiment_id)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    assert compare_sweep(ledger, "toy", tracking_uri=uri) == {}
    ledger.close()


@pytest.mark.filterwarnings("default")
def test_a_database_that_was_left_half_made_is_made_again(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, toy_experiment())
    (tmp_path / ".mlflow.sqlite.1-ab.partial").write_bytes(b"half")
    uri = local_tracking_uri(tmp_path)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    assert not list(tmp_path.glob(".*"))
    assert MlflowClient(tracking_uri=uri).get_experiment_by_name("toy") is not None


@pytest.mark.filterwarnings("default")
def test_an_error_of_the_database_is_raised_and_not_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ledger = open_ledger(tmp_path, toy_experiment())
    uri = local_tracking_uri(tmp_path)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.sqlite")) as database:
        database.execute("DROP TABLE experiments")
    capfd.readouterr()
    with pytest.raises(MlflowException, match="no such table"):
        MlflowProjection(ledger, "toy", tracking_uri=uri)
    assert "Traceback" not in capfd.readouterr().err
    ledger.close()


@pytest.mark.filterwarnings("default")
def test_a_moved_rank_is_one_more_point_and_an_equal_one_is_none(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "home", toy_experiment())
    fill(ledger, tmp_path)
    uri = local_tracking_uri(tmp_path / "home")
    for _ in range(3):
        MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    best = next(record for record in ledger.trials("toy") if record.is_result)
    ledger.set_aside("toy", {best.config_hash: "the text changed"})
    for _ in range(2):
        MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    client = MlflowClient(tracking_uri=uri)
    steps = {
        config_hash: [p.step for p in client.get_metric_history(run.info.run_id, "rank_in_budget")]
        for config_hash, run in runs_of(client, ledger).items()
    }
    assert all(found == list(range(len(found))) for found in steps.values())
    assert max(map(len, steps.values())) == 2
    assert compare_sweep(ledger, "toy", tracking_uri=uri) == {}


@pytest.mark.filterwarnings("default")
def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_ledger(tmp_path / "home", toy_experiment())
    proposals = toy_proposals(tmp_path, 3)
    for proposal in proposals:
        ledger.add_trial("toy", proposal)
    uri = local_tracking_uri(tmp_path / "home")
    projection = MlflowProjection(ledger, "toy", tracking_uri=uri)
    read: list[list[str]] = []
    faces: list[str] = []
    trials, faces_of = ledger.trials, ledger.faces

    def counted(sweep: str, only: Sequence[str] | None = None) -> list[TrialRecord]:
        read.append(list(only or ()))
        return trials(sweep, only)

    monkeypatch.setattr(ledger, "trials", counted)
    monkeypatch.setattr(ledger, "faces", lambda sweep: faces.append(sweep) or faces_of(sweep))
    projection.sync(with_ranks=True)
    assert read == [[proposal.config_hash for proposal in proposals]]
    projection.sync(with_ranks=True)  # its own writes change no trial
    projection.sync()
    assert (len(read), len(faces)) == (1, 1)
    attempt = ledger.start_attempt("toy", proposals[1].config_hash)
    projection.sync()
    assert read[1:] == [[proposals[1].config_hash]]
    ledger.accept(attempt.id, complete_outcome(proposals[1]), spent_flops=1.0)
    ledger.set_aside("toy", {proposals[2].config_hash: "no longer asked for"})
    projection.finish(interrupted=False)
    assert sorted(read[2]) == sorted(proposal.config_hash for proposal in proposals[1:])
    monkeypatch.undo()
    assert compare_sweep(ledger, "toy", tracking_uri=uri) == {}
    ledger.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_sorting_20000_runs_by_a_metric_takes_less_than_a_second(tmp_path: Path) -> None:
    uri = local_tracking_uri(tmp_path)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("many")
    template = client.create_run(experiment).info.run_id
    path = tmp_path / "mlflow.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE numbers AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL "
            "SELECT i + 1 FROM n WHERE i < 20000) SELECT printf('%032x', i) AS id, i FROM n"
        )
        _copy(database, "runs", "run_uuid", template, extra={"name": "'run-' || i"})
        for name in ("loss_nats", *(f"metric_{k}" for k in range(29))):
            database.execute(
                "INSERT INTO latest_metrics (run_uuid, key, value, timestamp, step, is_nan) "
                "SELECT id, ?, (i * 7919) % 20011, 0, 0, 0 FROM numbers",
                (name,),
            )
        for k in range(20):
            database.execute(
                "INSERT INTO params (run_uuid, key, value) SELECT id, ?, i FROM numbers",
                (f"param_{k}",),
            )
        database.execute(
            "INSERT INTO tags (run_uuid, key, value) SELECT id, 'isoflop.kind', 'trial' "
            "FROM numbers"
        )
        database.execute("DROP TABLE numbers")
    analyse_database(path)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        page = client.search_runs(
            [experiment],
            filter_string="tags.`isoflop.kind` = 'trial'",
            order_by=["metrics.`loss_nats` ASC"],
            max_results=100,
        )
        seconds.append(time.perf_counter() - began)
    losses = [run.data.metrics["loss_nats"] for run in page]
    assert losses == sorted(losses)
    assert len(losses) == 100
    print(f"sorted in {min(seconds):.2f} s")
    assert min(seconds) < 5.0, "a fifth of a second on an idle core"


def _copy(
    database: sqlite3.Connection, table: str, key: str, template: str, *, extra: dict[str, str]
) -> None:
    """As many copies of a row as there are numbers, with another key each."""
    columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
    values = [{key: "n.id", **extra}.get(name, f"t.{name}") for name in columns]
    database.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(values)} "
        f"FROM {table} t, numbers n WHERE t.{key} = ?",
        (template,),
    )


def test_a_run_s_name_reads_and_sorts_by_itself(tmp_path: Path) -> None:
    (proposal,) = toy_proposals(tmp_path, 1)
    name = run_name(record_of(proposal, 3.0, number=7))
    assert re.fullmatch(r"[24]e09 \w+ \dx\d+( K\d)?( d\d+)?( w\d+)? #7", name), name


@pytest.mark.filterwarnings("default")
def test_a_stranger_reads_what_the_sweep_asks_and_own_words_stay(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "home", toy_experiment())
    uri = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    MlflowProjection(ledger, "toy", tracking_uri=uri).sync()
    client, experiment = MlflowClient(tracking_uri=uri), ledger.sweep("toy").mlflow_experiment_id
    (parent,) = client.search_runs([experiment], filter_string="tags.`isoflop.kind` = 'sweep'")
    note = parent.data.tags[NOTE_TAG]
    assert all(f"`{arm}`" in note for arm in toy_experiment().arms)
    assert all(flops_in_words(flops) in note for flops in toy_experiment().budget.train_flops)
    client.set_tag(parent.info.run_id, NOTE_TAG, "mine")
    MlflowProjection(ledger, "toy", tracking_uri=uri).sync()
    assert client.get_run(parent.info.run_id).data.tags[NOTE_TAG] == "mine"
