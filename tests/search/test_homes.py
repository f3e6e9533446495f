"""What can a home be? Files, read-only folders, homes that moved: each is read or named."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.cli import run
from search.record.homes import read_from, stored_in
from search.record.ledger import Ledger
from search.record.trial import Outcome
from spaces.errors import RequestError
from tests.sweeps import complete_outcome, open_ledger, toy_experiment, toy_proposals

ROOT = Path(__file__).resolve().parents[2]


def home_with_weights(folder: Path, *, weights: str | None = None) -> Path:
    """A home of one result, whose weights lie in it; ``weights``: the path that is written down."""
    home = folder / "home"
    ledger = open_ledger(home, toy_experiment())
    (proposal,) = toy_proposals(folder, 1)
    place = home / "sweeps" / "toy" / "weights" / f"{proposal.config_hash}.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    outcome = replace(complete_outcome(proposal), weights_path=str(place))
    ledger.accept(attempt.id, outcome, spent_flops=1.0)
    ledger.close()
    if weights is not None:
        with closing(sqlite3.connect(home / "ledger.sqlite")) as file, file:
            file.execute(
                "UPDATE outcomes SET outcome_json = json_set(outcome_json, '$.weights_path', ?)",
                (str(home / weights / place.name),),
            )
    return home


def weights_of(home: Path) -> str:
    with closing(Ledger(home)) as ledger:
        (record,) = ledger.trials("toy")
    assert record.outcome is not None
    assert record.outcome.weights_path is not None
    return record.outcome.weights_path


@pytest.mark.parametrize("weights", [None, "sweeps/toy/weights"], ids=["now", "older release"])
@pytest.mark.parametrize("copied", [False, True], ids=["moved", "copied"])
def test_a_home_that_moved_has_its_weights(
    weights: str | None, copied: bool, tmp_path: Path
) -> None:
    home = home_with_weights(tmp_path, weights=weights)
    assert weights_of(home).startswith(str(home))
    there = tmp_path / "there"
    shutil.copytree(home, there) if copied else home.rename(there)
    assert weights_of(there).startswith(str(there))
    assert Path(weights_of(there)).read_bytes() == b"weights"


def test_the_ledger_holds_no_path_of_the_machine(tmp_path: Path) -> None:
    home = home_with_weights(tmp_path)
    with closing(sqlite3.connect(home / "ledger.sqlite")) as file:
        ((stored,),) = file.execute("SELECT outcome_json FROM outcomes").fetchall()
    assert str(tmp_path) not in stored


def test_weights_outside_the_home_stay_where_they_are(tmp_path: Path) -> None:
    outside = Outcome(status="complete", weights_path="/elsewhere/w.safetensors")
    assert stored_in(tmp_path, outside) == outside
    assert read_from(tmp_path, outside) == outside


def test_a_file_is_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    for place in (file, file / "inside", tmp_path / ("x" * 300), Path("a\0b")):
        for words in (["status", "toy"], ["best", "toy"], ["doctor"], ["plan", "quickstart"]):
            assert run([*words, "--home", str(place)]) == 2
            assert "--home" in capsys.readouterr().err
        with pytest.raises(RequestError, match="--home"):
            Ledger(place, create=True)
    assert file.read_text() == "no folder"


def read_only(home: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a verb where the home is read only, for root too."""
    command = [sys.executable, "-m", "experiments", *words, "--home", str(home)]
    if os.geteuid() != 0:
        folders = [home, *(each for each in home.rglob("*") if each.is_dir())]
        for each in folders:
            each.chmod(0o555)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        for each in folders:
            each.chmod(0o755)
        return done
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("root writes everywhere, and may mount nothing here")
    inside = ["unshare", "-m", "sh", "-c", mount, str(home), *command]
    return subprocess.run(inside, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_a_home_that_is_read_only_is_read(tmp_path: Path) -> None:
    home = home_with_weights(tmp_path)
    shown = {"status": "1 of 6 trials: 1 complete", "best": "1 results"}
    for verb, words in shown.items():
        done = read_only(home, [verb, "toy"])
        assert done.returncode == 0, done.stderr
        assert words in done.stdout
    refused = read_only(home, ["sweep", "quickstart", "--trials", "8"])
    assert refused.returncode == 2
    assert "cannot be written" in refused.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="mounts as Linux does")
def test_what_a_killed_driver_left_in_the_log_is_read_from_a_read_only_home(
    tmp_path: Path,
) -> None:
    home = home_with_weights(tmp_path)
    killed = tmp_path / "killed"
    with closing(sqlite3.connect(home / "ledger.sqlite")) as file:
        file.execute("PRAGMA wal_autocheckpoint=0")
        file.execute("UPDATE trials SET state = 'failed'")
        file.commit()
        killed.mkdir()
        for each in ("ledger.sqlite", "ledger.sqlite-wal"):
            shutil.copyfile(home / each, killed / each)
    assert (killed / "ledger.sqlite-wal").stat().st_size > 0
    done = read_only(killed, ["status", "toy"])
    assert "1 of 6 trials: 1 failed" in done.stdout, done.stderr
