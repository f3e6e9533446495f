"""Foreign input: refused with one message, or passed on as the text it is; nothing is executed."""

from __future__ import annotations

import http.client
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient

from experiments.cli import run
from runners.mlflow.comparison import compare_sweep
from runners.mlflow.projection import MlflowProjection
from runners.mlflow.saved_view import local_tracking_uri
from runners.trial.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from search.record.trial import Outcome
from spaces.errors import RequestError
from tests.faults.toolbox import ROOT, wait_until, write_toy
from tests.sweeps import open_ledger, toy_experiment, toy_proposals

pytestmark = pytest.mark.filterwarnings("default")


class Canary:
    """An object whose unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (_touch, (str(self.path), "dead"))


def _touch(path: str, text: str) -> None:
    Path(path).write_text(text)


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def poison(tmp_path: Path, canary: Path) -> Path:
    path = tmp_path / "poison"
    path.write_bytes(pickle.dumps(Canary(canary)))
    return path


@pytest.mark.parametrize("place", ["text", "tokenizer", "experiment"])
def test_a_pickle_is_refused(
    place: str,
    poison: Path,
    canary: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    toy = write_toy(tmp_path / "toy")
    home = ["--home", str(tmp_path / "home")]
    words = {
        "text": [str(toy), "--text.source", str(poison)],
        "tokenizer": [str(toy), "--text.tokenizer", f"file:{poison}"],
        "experiment": [str(poison.rename(tmp_path / "poison.toml"))],
    }[place]
    assert run(["plan", *words, *home]) == 2
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    assert "poison" in said.err
    assert not canary.exists()


def test_a_pickle_among_the_checkpoints_is_passed_over(
    poison: Path, canary: Path, tmp_path: Path
) -> None:
    import torch

    folder = tmp_path / "checkpoints"
    for step in (1, 2):
        save_checkpoint(
            folder,
            Checkpoint(
                config_hash="a",
                step=step,
                weights={"w": torch.ones(2)},
                optimizer={"m": torch.ones(2)},
                state={},
            ),
        )
    newest = sorted(folder.iterdir())[-1]
    (newest / "weights.safetensors").write_bytes(poison.read_bytes())
    found = load_checkpoint(folder, config_hash="a")
    assert found.checkpoint is not None
    assert found.checkpoint.step == 1
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../outside", "a/b", "..", "/etc/x", "<script>", "A b"])
def test_names_that_are_paths_are_refused(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toy = write_toy(tmp_path / "toy")
    assert run(["sweep", str(toy), "--name", name, "--home", str(tmp_path / "home")]) == 2
    assert "name" in capfd.readouterr().err
    assert not (tmp_path / "home").exists()


def test_files_that_are_too_large_are_refused_unread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    large = tmp_path / "large.toml"
    with large.open("wb") as file:
        file.truncate(100_000_000)
    home = ["--home", str(tmp_path / "home")]
    assert run(["plan", str(large), *home]) == 2
    assert "100,000,000" in capfd.readouterr().err
    toy = write_toy(tmp_path / "toy")
    assert run(["plan", str(toy), "--text.tokenizer", f"file:{large}", *home]) == 2
    assert "100,000,000" in capfd.readouterr().err


def test_long_and_hostile_values_reach_mlflow_whole_or_say_that_they_are_cut(
    tmp_path: Path,
) -> None:
    home = tmp_path / "home"
    ledger = open_ledger(home, toy_experiment())
    script, long = "<script>alert(1)</script>", "x" * 9000
    for proposal, reason in zip(toy_proposals(tmp_path, 2), (script, long), strict=True):
        named = replace(proposal, axes=proposal.axes | {"note": reason})
        ledger.add_trial("toy", named)
        attempt = ledger.start_attempt("toy", named.config_hash)
        ledger.accept(attempt.id, Outcome(status="failed", reason=reason), spent_flops=0.0)
    uri = local_tracking_uri(home)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    client = MlflowClient(tracking_uri=uri)
    shown = []
    for record in ledger.trials("toy"):
        assert record.mlflow_run_id is not None
        shown.append(client.get_run(record.mlflow_run_id).data)
        place = Path(client.download_artifacts(record.mlflow_run_id, "trial.json"))
        assert json.loads(place.read_text())["axes"]["note"] == record.reason
    assert shown[0].tags["isoflop.reason"] == shown[0].params["axis.note"] == script
    for value, limit in (
        (shown[1].tags["isoflop.reason"], 8000),
        (shown[1].params["axis.note"], 6000),
    ):
        assert len(value) == limit
        assert "cut at MLflow's limit" in value
        assert "whole in" in value
    assert compare_sweep(ledger, "toy", tracking_uri=uri) == {}
    ledger.close()


def test_a_remote_cluster_without_a_token_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from runners.pools.ray_pool import require_authentication

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for local in ("auto", "local", "127.0.0.1:6379", "localhost:6379"):
        require_authentication(local)
    for remote in ("203.0.113.9:6379", "localhost.evil.example:1"):
        with pytest.raises(RequestError, match="--insecure"):
            require_authentication(remote)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t")
    require_authentication("10.0.0.7:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(RequestError, match="token authentication"):
        require_authentication("10.0.0.7:6379")


def test_insecure_joins_a_remote_cluster_without_a_token(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def joins(address: str, **_: object) -> None:
        raise RequestError(f"Ray joins {address}")

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("require_listening", "require_cluster"):
        monkeypatch.setattr(f"runners.pools.ray_pool.{name}", lambda address: None)
    monkeypatch.setattr("runners.pools.ray_pool._start_ray", joins)
    toy, home = write_toy(tmp_path / "toy"), tmp_path / "home"
    words = ["sweep", str(toy), "--home", str(home), "--workers.pool", "ray"]
    words += ["--workers.address", "head.example:6379"]
    assert run(words) == 2
    assert "token authentication" in capfd.readouterr().err
    assert run([*words, "--insecure"]) == 2
    assert "Ray joins head.example:6379" in capfd.readouterr().err


def test_secrets_of_addresses_are_nowhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    toy, home = write_toy(tmp_path / "toy"), tmp_path / "home"
    address = "ray://me:hunter2@head.example:10001"
    words = ["sweep", str(toy), "--home", str(home), "--workers.pool", "ray"]
    assert run([*words, "--workers.address", address]) == 2
    assert run([*words[:4], "--trials", "0", "--tracking-uri", "http://me:hunter2@h:1"]) == 2
    said = capfd.readouterr()
    assert "hunter2" not in said.err + said.out
    for path in home.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


@pytest.mark.faults
def test_the_ui_answers_this_machine_only(tmp_path: Path) -> None:
    open_ledger(tmp_path / "home", toy_experiment()).close()
    MlflowClient(tracking_uri=local_tracking_uri(tmp_path / "home")).search_experiments()
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    command = [sys.executable, "-c", "from experiments.cli import main; main()", "ui"]
    command += ["--home", str(tmp_path / "home"), "--port", str(port)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    ) as server:
        try:
            wait_until(lambda: _status(port, "127.0.0.1") == 200, what="the UI")
            assert _status(port, f"localhost:{port}") == 200
            for foreign in ("evil.example", "192.168.evil.example", f"127.0.0.1.evil:{port}", ""):
                assert _status(port, foreign) == 403
            with pytest.raises(OSError, match="refused"):
                socket.create_connection(("127.0.0.2", port), 2)
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def _status(port: int, host: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(
            "GET", "/api/2.0/mlflow/experiments/get?experiment_id=0", headers={"Host": host}
        )
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()
