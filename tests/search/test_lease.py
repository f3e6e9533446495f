"""One driver at a time: who is refused, who takes over, and who may write no more."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from search.record import ledger_errors, processes
from search.record.lease import LEASE_SECONDS, LeaseLost
from search.record.ledger import Ledger
from search.record.ledger_errors import LedgerUnavailable
from search.record.processes import Process, this_process
from spaces.errors import RequestError
from tests.sweeps import open_ledger, reopened, toy_experiment, toy_proposals

HOLD = """
import sys, time
from pathlib import Path
from search.record.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]), create=True)
with ledger.held():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    open_ledger(tmp_path, toy_experiment()).close()
    return tmp_path


@pytest.fixture
def other(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the home."""
    command = [sys.executable, "-c", HOLD, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def age_lease(home: Path, seconds: float) -> None:
    """As if the holder had last shown life that long ago."""
    with sqlite3.connect(home / "ledger.sqlite") as database:
        database.execute("UPDATE lease SET renewed_at = renewed_at - ?", (seconds,))
    database.close()


def test_a_second_driver_is_refused_and_told_who_works(
    home: Path, other: subprocess.Popen[str]
) -> None:
    ledger = reopened(home)
    me = this_process()
    for take_over in (False, True):
        with (
            pytest.raises(RequestError, match=rf"process {other.pid} on {me.host} since 20"),
            ledger.held(take_over=take_over),
        ):
            pass


def test_a_killed_holder_is_succeeded_at_once(home: Path, other: subprocess.Popen[str]) -> None:
    other.kill()
    other.wait()
    with reopened(home).held():
        pass


def test_a_killed_driver_worked_until_its_last_sign_of_life(
    home: Path, tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    (proposal,) = toy_proposals(tmp_path, 1)
    ledger = reopened(home)
    holder = ledger.holder()
    assert holder is not None
    ledger._token = holder.token  # as the other process would
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    other.kill()
    other.wait()
    with sqlite3.connect(home / "ledger.sqlite") as database:  # all of it, hours ago
        database.execute("UPDATE attempts SET started_at = started_at - 9000")
        database.execute("UPDATE lease SET renewed_at = ?", (attempt.started_at - 8900,))
    database.close()
    with ledger.held():
        assert ledger.fence_all(reason="its driver is gone") == 1
        second = ledger.start_attempt("toy", proposal.config_hash)
        ledger.fence_all(reason="stopped")
    ended = [each.ended_at for each in ledger.trials("toy")[0].attempts]
    assert ended[0] == pytest.approx(attempt.started_at - 8900)
    assert ended[1] is not None
    assert ended[1] >= second.started_at


def test_a_frozen_holder_is_succeeded_on_request_and_writes_no_more(
    home: Path, other: subprocess.Popen[str]
) -> None:
    os.kill(other.pid, signal.SIGSTOP)
    frozen, late = reopened(home), reopened(home)
    holder = frozen.holder()
    assert holder is not None
    frozen._token = holder.token  # the frozen driver's own ledger, as it wakes later
    age_lease(home, LEASE_SECONDS + 1)
    with pytest.raises(RequestError, match="--take-over"), late.held():
        pass
    with late.held(take_over=True), pytest.raises(LeaseLost, match=f"process {os.getpid()}"):
        frozen.fence_all(reason="woke up")


def test_a_frozen_holder_writes_no_more_when_its_successor_has_ended(home: Path) -> None:
    frozen, late = reopened(home), reopened(home)
    with frozen.held():
        age_lease(home, LEASE_SECONDS + 1)
        with late.held(take_over=True):
            pass
        with pytest.raises(LeaseLost, match="took it over since"):
            frozen.fence_all(reason="woke up")
    late.fence_all(reason="nobody holds it")


def test_a_lease_is_renewed_while_it_is_held(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.record.ledger.RENEWAL_SECONDS", 0.05)
    ledger = reopened(home)
    with ledger.held():
        age_lease(home, LEASE_SECONDS + 1)
        time.sleep(0.5)
        holder = ledger.holder()
        assert holder is not None
        assert not holder.has_ended
    assert ledger.holder() is None


def test_processes_elsewhere_are_never_called_gone() -> None:
    here = this_process()
    assert not here.is_gone
    elsewhere = Process(host="a", machine="a other", pid=here.pid, started="long ago")
    assert not elsewhere.is_gone
    reused = Process(host=here.host, machine=here.machine, pid=here.pid, started="long ago")
    assert reused.is_gone


def test_a_process_that_the_system_does_not_show_is_not_called_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = this_process()

    def refuse(*_: object, **__: object) -> str:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        patched.setattr(processes, "_machine", lambda: here.machine)
        assert not here.is_gone
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    monkeypatch.setattr(processes, "_machine", lambda: here.machine)
    assert not here.is_gone
    assert replace(here, pid=2**22 + 1).is_gone


def _open_and_hold(home: Path, results: multiprocessing.Queue[str], all_said: Event) -> None:
    try:
        with Ledger(home, create=True).held():
            results.put("held")
            all_said.wait()
    except RequestError:
        results.put("refused")


def test_of_many_that_start_on_an_empty_home_one_works(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results: multiprocessing.Queue[str] = context.Queue()
    all_said = context.Event()
    arguments = (tmp_path / "home", results, all_said)
    workers = [context.Process(target=_open_and_hold, args=arguments) for _ in range(8)]
    for worker in workers:
        worker.start()
    said = sorted(results.get(timeout=60) for _ in workers)
    all_said.set()
    for worker in workers:
        worker.join()
    assert said == ["held"] + ["refused"] * 7


def test_a_locked_ledger_names_the_process_that_holds_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.record.ledger.LOCK_WAIT_SECONDS", 0.2)
    monkeypatch.setattr(ledger_errors, "LOCK_WAIT_SECONDS", 0.2)
    script = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); "
        "c.execute('BEGIN EXCLUSIVE'); print('locked', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script, str(home / "ledger.sqlite")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        ledger = reopened(home)
        with pytest.raises(LedgerUnavailable, match=rf"locked for 0.2 s by .*{process.pid}"):
            ledger.fence_all(reason="test")
        process.kill()
    ledger.fence_all(reason="test")
