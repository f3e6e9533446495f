"""Does ``isoflop sync`` make another MLflow show what the ledger has, however often it is sent?"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from experiments.cli import run
from runners.mlflow.comparison import compare_run, find_runs
from runners.mlflow.saved_view import local_tracking_uri
from search.record.ledger import Ledger
from tests.experiments.toy import run_json

pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).resolve().parents[2]


def assert_shown(uri: str, home: Path, name: str = "toy") -> list[Run]:
    """One run a trial, equal to the ledger in every number, tag and curve."""
    client = MlflowClient(tracking_uri=uri)
    runs = {r.data.tags["isoflop.config_hash"]: r for r in find_runs(client, name, "trial")}
    with contextlib.closing(Ledger(home)) as ledger:
        records = ledger.trials("toy")
        assert ledger.sweep("toy").tracking_uri is None, "the home's own place stays"
    assert sorted(runs) == sorted(record.config_hash for record in records)
    assert len(find_runs(client, name, "trial")) == len(records)
    assert len(find_runs(client, name, "sweep")) == 1
    for record in records:
        assert compare_run(client, record, runs[record.config_hash]) == []
    return list(runs.values())


def test_again_and_again_without_doubles(
    swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home, uri = tmp_path / "home", f"sqlite:///{tmp_path}/there/mlflow.sqlite"
    shutil.copytree(swept / "home", home)
    (tmp_path / "there").mkdir()
    words = ["sync", "--to", uri, "--home", str(home)]
    counts = {"sweep": "toy", "experiment": "toy", "num_runs": 2}
    assert run_json(capfd, *words)["sweeps"] == [counts | {"num_new": 2}]
    first = {each.info.run_id for each in assert_shown(uri, home)}
    assert run_json(capfd, *words)["sweeps"] == [counts | {"num_new": 0}]
    runs = assert_shown(uri, home)
    assert {each.info.run_id for each in runs} == first
    artifacts = (tmp_path / "there" / "artifacts").as_uri()
    assert all((each.info.artifact_uri or "").startswith(artifacts) for each in runs)
    # a run that somebody deleted there comes again
    MlflowClient(tracking_uri=uri).delete_run(runs[0].info.run_id)
    assert run_json(capfd, *words)["sweeps"] == [counts | {"num_new": 1}]
    assert_shown(uri, home)
    # so do new trials, and a score
    toy = (swept / "toy.toml").read_text().replace("trials = 2", "trials = 3")
    (tmp_path / "toy.toml").write_text(toy)
    assert run(["sweep", str(tmp_path / "toy.toml"), "--home", str(home)]) == 0
    (tmp_path / "wiki.jsonl").write_text('{"text": "the people of the United States"}\n')
    task = ["--tasks", str(tmp_path / "wiki.jsonl"), "--home", str(home)]
    assert run(["evaluate", "toy/0", *task]) == 0
    again = run_json(capfd, *words, str(tmp_path / "toy.toml"))
    assert again["sweeps"] == [counts | {"num_runs": 3, "num_new": 1}]
    assert any("eval.wiki.bits_per_byte" in r.data.metrics for r in assert_shown(uri, home))
    assert run(["doctor", "--home", str(home)]) == 0, "the home's own MLflow is as it was"


def test_two_homes_do_not_mix(
    swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other, uri = tmp_path / "other", f"sqlite:///{tmp_path}/mlflow.sqlite"
    toy = (swept / "toy.toml").read_text().replace("trials = 2", "trials = 1")
    (tmp_path / "toy.toml").write_text(toy)
    assert run(["sweep", str(tmp_path / "toy.toml"), "--home", str(other)]) == 0
    assert run(["sync", "--to", uri, "--home", str(swept / "home")]) == 0
    assert run(["sync", "--to", uri, "--home", str(other)]) == 2
    assert "of another home" in capfd.readouterr().err
    assert run(["sync", "--to", uri, "--home", str(other), "--prefix", "mine/"]) == 0
    assert "mine/toy: 1 runs, 1 of them new" in capfd.readouterr().out
    assert_shown(uri, swept / "home")
    assert_shown(uri, other, "mine/toy")


def test_a_wrong_request_is_explained(swept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = swept / "home"
    for words, said in (
        (["--to", "elsewhere"], "takes a tracking address"),
        (["--to", local_tracking_uri(home)], "the home's own"),
        (["none", "--to", "http://127.0.0.1:9"], "none"),
    ):
        assert run(["sync", *words, "--home", str(home)]) == 2
        assert said in capfd.readouterr().err


def test_a_server_that_is_not_there_is_named_without_its_password(
    swept: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    words = ["sync", "--to", "http://me:hidden-word@127.0.0.1:9", "--home", str(swept / "home")]
    assert run(words) == 1
    said = capfd.readouterr().err
    assert "http://127.0.0.1:9" in said
    assert "hidden-word" not in said


def test_wandb_offline_again_and_again_without_doubles(
    swept: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    home = tmp_path / "home"
    shutil.copytree(swept / "home", home)
    words = ["sync", "--to", "wandb", "--home", str(home)]
    counts = {"sweep": "toy", "experiment": "toy", "num_runs": 2}

    def kept() -> list[str]:
        """Ids of the runs that wandb wrote, one for every time."""
        files = (home / "wandb").glob("offline-run-*/run-*.wandb")
        return sorted(file.stem.removeprefix("run-") for file in files)

    assert run_json(capfd, *words)["sweeps"] == [counts | {"num_new": 2}]
    first = kept()
    assert len(set(first)) == len(first) == 2
    assert run_json(capfd, *words)["sweeps"] == [counts | {"num_new": 0}]
    assert kept() == first
    # a score goes to the run that is there
    (tmp_path / "wiki.jsonl").write_text('{"text": "the people of the United States"}\n')
    task = ["--tasks", str(tmp_path / "wiki.jsonl"), "--home", str(home)]
    assert run(["evaluate", "toy/0", *task]) == 0
    assert run_json(capfd, *words)["sweeps"] == [counts | {"num_new": 0}]
    assert len(kept()) == 3
    assert set(kept()) == set(first)
    assert run([*words, "--prefix", "a/"]) == 2
    assert "choose another --prefix" in capfd.readouterr().err


def test_wandb_that_is_not_installed_is_named(
    swept: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert run(["sync", "--to", "wandb", "--home", str(swept / "home")]) == 2
    assert "pip install isoflop[wandb]" in capfd.readouterr().err


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an MLflow server on this machine, with a database of its own."""
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
    command += ["--port", "0", "--backend-store-uri", f"sqlite:///{tmp_path}/served.sqlite"]
    command += ["--artifacts-destination", (tmp_path / "served").as_uri()]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, start_new_session=True, env=environment
        )
    try:
        yield _address(tmp_path / "said")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _address(said: Path) -> str:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", said.read_text()):
            return found.group(1)
        time.sleep(0.2)
    raise AssertionError(said.read_text())


@pytest.mark.slow
def test_a_server(swept: Path, server: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = ["sync", "--to", server, "--home", str(swept / "home")]
    assert [run_json(capfd, *words)["sweeps"][0]["num_new"] for _ in range(2)] == [2, 0]
    run_id = assert_shown(server, swept / "home")[0].info.run_id
    files = MlflowClient(tracking_uri=server).list_artifacts(run_id)
    assert {each.path for each in files} >= {"trial.json", "outcome.json"}
