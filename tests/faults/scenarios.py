"""The faults: each takes a seed, hurts a toy sweep, lets it finish, and returns the verdict.

Tests and ``python -m experiments.benchmarks.faults`` run the same ones.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from search.record.crash_points import CRASH_POINTS, EXIT_CODE
from search.record.ledger import Ledger
from tests.faults.checker import Clean, Verdict, check, processes_of, take_clean
from tests.faults.proxy import Proxy
from tests.faults.toolbox import (
    TOML,
    TRUNK_TOML,
    Command,
    Home,
    Launcher,
    locked,
    wait_until,
    write_toy,
)

RAY = ("--workers.pool", "ray")
NUM_TRIES = 10


class Unavailable(Exception):
    """The machine does not allow the fault; says why."""


class Missed(Exception):
    """The sweep was over, or elsewhere, when the fault came: nothing was shown."""


@dataclass
class Bench:
    """Where faults are tried: a launcher, a folder, and the clean sweep to compare with."""

    launcher: Launcher
    folder: Path
    homes: list[Home] = field(default_factory=list)
    toml: str = TOML
    """The sweep that is hurt."""
    num_misses: int = 0
    """Tries of the present run that did not strike."""
    clean_seconds: float = 0.0
    """What the clean sweep took, start to end."""

    @cached_property
    def toy(self) -> Path:
        """The experiment's file."""
        return write_toy(self.folder, toml=self.toml)

    @cached_property
    def trunks(self) -> Bench:
        """Another bench, whose sweep trains two budgets as branches of one trunk."""
        return Bench(self.launcher, self.folder / "trunks", homes=self.homes, toml=TRUNK_TOML)

    @cached_property
    def clean(self) -> Clean:
        """What the sweep leaves when nothing happens."""
        home = self.home("clean")
        began = time.monotonic()
        home.finish()
        self.clean_seconds = time.monotonic() - began
        return take_clean(home)

    def chance(self, seed: int) -> random.Random:
        """The randomness of a run; another one for each try of it."""
        return random.Random(f"{seed} {self.num_misses}")

    def home(self, name: str) -> Home:
        """A new home of the toy sweep."""
        home = Home(self.launcher, self.folder / f"{name}-{len(self.homes)}", self.toy)
        self.homes.append(home)
        return home

    def close_home(self, *, keep: bool) -> None:
        """End what still runs in the last home, and remove it unless it is to be looked at."""
        home = self.homes[-1]
        for command in home.commands:
            if command.poll() is None:
                command.kill()
        if not keep:
            shutil.rmtree(home.folder, ignore_errors=True)


def _finish(bench: Bench, home: Home, acknowledged: dict[str, tuple[Any, ...]]) -> Verdict:
    home.finish()
    return check(home, bench.clean, acknowledged)


def _wait_into(home: Home, command: Command, chance: random.Random) -> tuple[int, str]:
    """Wait until up to five trials are done and another one runs and has saved: that one's process
    and identity. Raises `Missed` where the sweep is over by then."""
    num_done = chance.randrange(6)
    found: list[tuple[int, str] | None] = []

    def is_there() -> bool:
        if len(home.acknowledged()) >= num_done:
            found.append(home.running_attempt())
        return command.poll() is not None or bool(found and found[-1])

    wait_until(is_there, what="a running attempt", timeout_seconds=300)
    if command.poll() is not None or not found[-1]:
        raise Missed
    return found[-1]


def _send(pid: int, number: int) -> None:
    """Signal a worker. Raises `Missed` where it has gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        raise Missed from None


def _wait_for_end(home: Home) -> None:
    """Workers of a dead driver end by themselves, within seconds."""
    wait_until(lambda: not processes_of(home.path), what="the workers' end", timeout_seconds=60)


def worker_killed(bench: Bench, seed: int) -> Verdict:
    """A Ray worker dies by SIGKILL at a random step; the command goes on by itself, the trial from
    its checkpoint."""
    home = bench.home("worker")
    command = home.start(*RAY)
    pid, config_hash = _wait_into(home, command, bench.chance(seed))
    acknowledged = home.acknowledged()
    _send(pid, signal.SIGKILL)
    code = command.wait()
    lost = [row[0] for row in home.rows("SELECT config_hash FROM attempts WHERE state = 'lost'")]
    if not lost:
        raise Missed
    verdict = _finish(bench, home, acknowledged)
    if code != 0 or len(lost) > 1:
        verdict.wrong.append(f"exit {code}, {len(lost)} lost: {command.err[-500:]}")
    if lost == [config_hash] and not _resumed_tokens(home, config_hash):
        verdict.wrong.append(f"{config_hash} had saved, and began again")
    return verdict


def pack_killed(bench: Bench, seed: int) -> Verdict:
    """A Ray worker dies with up to three trials that it trains side by side: all are lost, and each
    goes on from its own checkpoint, alone."""
    home = bench.home("pack")
    return _kill_a_worker_with_many(bench, home, bench.chance(seed))


def trunk_killed(bench: Bench, seed: int) -> Verdict:
    """The same where trials share trunks: killed in a trunk, while it is saved, or in a decay."""
    trunks = bench.trunks
    trunks.num_misses = bench.num_misses
    home = trunks.home("trunk")
    if seed % 2 == 0:
        return _kill_a_worker_with_many(trunks, home, trunks.chance(seed))
    points = [point for point in CRASH_POINTS if "checkpoint" in point]
    visit = trunks.chance(seed).randint(1, 12)
    command = home.start(env={"ISOFLOP_CRASH_AT": f"{points[seed % len(points)]}:{visit}"})
    if command.wait() != EXIT_CODE:
        raise Missed
    return _finish(trunks, home, home.acknowledged())


def _kill_a_worker_with_many(bench: Bench, home: Home, chance: random.Random) -> Verdict:
    command = home.start(*RAY, "--workers.pack", "3")
    pid, _ = _wait_into(home, command, chance)
    acknowledged = home.acknowledged()
    _send(pid, signal.SIGKILL)
    code = command.wait()
    lost = home.rows("SELECT config_hash FROM attempts WHERE state = 'lost'")
    if not lost:
        raise Missed
    verdict = _finish(bench, home, acknowledged)
    if code != 0 or not 1 <= len(lost) <= 3:
        verdict.wrong.append(f"exit {code}, {len(lost)} lost: {command.err[-500:]}")
    return verdict


def _resumed_tokens(home: Home, config_hash: str) -> int:
    """Tokens that a checkpoint brought into the accepted attempt."""
    outcome: dict[str, Any] = json.loads(home.acknowledged()[config_hash][1])
    return int(outcome["resumed_tokens"])


def driver_killed(bench: Bench, seed: int) -> Verdict:
    """The driver dies by SIGKILL at a random moment; every fifth seed with Ray workers."""
    home, chance = bench.home("driver"), bench.chance(seed)
    with_ray = seed % 5 == 4
    command = home.start(*(RAY if with_ray else ()))
    if with_ray:
        _wait_into(home, command, chance)
    else:
        time.sleep(chance.uniform(0.0, bench.clean_seconds / (1 + bench.num_misses)))
    command.kill()
    if command.code != -signal.SIGKILL:
        raise Missed
    acknowledged = home.acknowledged()
    _wait_for_end(home)
    return _finish(bench, home, acknowledged)


def crash_point(bench: Bench, seed: int) -> Verdict:
    """The process ends at a commit point: every point in turn, at its first or a later visit."""
    point = CRASH_POINTS[seed % len(CRASH_POINTS)]
    visit = 1 if point.endswith(("sweep", "end")) else random.Random(seed).randint(1, 3)
    home = bench.home("crash")
    command = home.start(env={"ISOFLOP_CRASH_AT": f"{point}:{visit}"})
    code = command.wait()
    acknowledged = home.acknowledged()
    verdict = _finish(bench, home, acknowledged)
    if code != 137:
        verdict.wrong.append(f"'{point}:{visit}' was never reached (exit {code})")
    return verdict


def two_drivers(bench: Bench, seed: int) -> Verdict:
    """Two drivers reach for the home at once: one works, the other is refused and told who works.

    Every second round on a home that has run before.
    """
    home = bench.home("two")
    if seed % 2:
        home.start("--trials", "1").wait()
    first, second = home.start(inject="barrier:2"), home.start(inject="barrier:2")
    codes = sorted([first.wait(), second.wait()])
    refused = next((each for each in (first, second) if each.code == 2), None)
    verdict = _finish(bench, home, home.acknowledged())
    if codes != [0, 2] or refused is None or "one driver at a time" not in refused.err:
        verdict.wrong.append(f"exit codes {codes}: {first.err[-300:]} {second.err[-300:]}")
    return verdict


def frozen_worker(bench: Bench, seed: int) -> Verdict:
    """A Ray worker is stopped, given up, and wakes: its late report is stale."""
    home = bench.home("frozen")
    command = home.start(*RAY, "--workers.silence-seconds", "4")
    pid, config_hash = _wait_into(home, command, bench.chance(seed))
    _send(pid, signal.SIGSTOP)
    wait_until(
        lambda: (
            home.rows("SELECT id FROM attempts WHERE state = 'lost'") or command.poll() is not None
        ),
        what="the fencing",
    )
    _send(pid, signal.SIGCONT)
    code = command.wait()
    lost = home.rows("SELECT config_hash, reason FROM attempts WHERE state = 'lost'")
    if config_hash not in [row[0] for row in lost]:
        raise Missed
    stale = home.rows("SELECT conflict FROM stale_outcomes")
    verdict = _finish(bench, home, home.acknowledged())
    if code != 0 or not all("said nothing" in reason for _, reason in lost):
        verdict.wrong.append(f"exit {code}, lost attempts {lost}: {command.err[-500:]}")
    if stale != [(0,)] * len(lost):
        verdict.wrong.append(f"late reports {stale} of {len(lost)} lost: {command.err[-500:]}")
    return verdict


def result_twice(bench: Bench, seed: int) -> Verdict:
    """An accepted result comes again, then another one for the same identity."""
    home = bench.home("twice")
    home.finish()
    before = home.acknowledged()
    config_hash = random.Random(seed).choice(sorted(before))
    ledger = Ledger(home.path)
    with closing(ledger), ledger.held():
        (record,) = [each for each in ledger.trials("toy") if each.config_hash == config_hash]
        assert record.outcome is not None
        attempt, spent = record.attempts[-1].id, record.attempts[-1].spent_flops
        again = ledger.accept(attempt, record.outcome, spent_flops=spent)
        other = replace(record.outcome, loss_nats=1.0)
        conflict = ledger.accept(attempt, other, spent_flops=spent)
    doctor = home.start("--json", verb="doctor")
    flagged = doctor.wait() == 1 and "against the accepted result" in doctor.out
    home.finish()
    verdict = check(home, bench.clean, before, doctor=False)
    if (again, conflict, flagged) != ("repeated", "conflict", True):
        verdict.wrong.append(f"{again}, {conflict}, flagged: {flagged}")
    return verdict


def stopped_then_killed(bench: Bench, seed: int) -> Verdict:
    """SIGTERM (or the terminal's Ctrl-C), then SIGKILL after 0.2, 2 or 10 s."""
    home = bench.home("stopped")
    command = home.start(*(RAY if seed % 3 == 2 else ()))
    _wait_into(home, command, bench.chance(seed))
    if seed % 2:
        command.signal_terminal(signal.SIGINT)
    else:
        command.signal(signal.SIGTERM)
    deadline = time.monotonic() + (0.2, 2.0, 10.0)[seed % 3]
    while time.monotonic() < deadline and command.poll() is None:
        time.sleep(0.02)
    command.kill()
    saved = command.code
    if saved == 0:
        raise Missed
    acknowledged = home.acknowledged()
    _wait_for_end(home)
    states = {row[0] for row in home.rows("SELECT state FROM trials")}
    verdict = _finish(bench, home, acknowledged)
    if saved not in (130, -signal.SIGKILL):
        verdict.wrong.append(f"exit {saved} after a stop: {command.err[-300:]}")
    if states & {"failed", "diverged"} or (saved == 130 and "running" in states):
        verdict.wrong.append(f"states after a stop: {sorted(states)}")
    return verdict


def stopped_twice(bench: Bench, seed: int) -> Verdict:
    """Ctrl-C twice: stops at once, and still goes on later."""
    home = bench.home("twice-stopped")
    command = home.start(*(RAY if seed % 3 == 2 else ()))
    _wait_into(home, command, bench.chance(seed))
    command.signal_terminal(signal.SIGINT)
    time.sleep(0.01)
    command.signal_terminal(signal.SIGINT)
    began = time.monotonic()
    code = command.wait()
    if code == 0:
        raise Missed
    acknowledged = home.acknowledged()
    verdict = _finish(bench, home, acknowledged)
    if code != 130 or time.monotonic() - began > 60:
        verdict.wrong.append(f"exit {code}: {command.err[-300:]}")
    return verdict


def checkpoint_damaged(bench: Bench, seed: int) -> Verdict:
    """The newest checkpoint is truncated, or one bit of it is turned, between two commands: the
    previous one is used, and what that costs is counted."""
    home, chance = bench.home("damaged"), bench.chance(seed)
    command = home.start(env={"ISOFLOP_CRASH_AT": f"after checkpoint proof:{chance.randint(2, 9)}"})
    command.wait()
    acknowledged = home.acknowledged()
    places = sorted((home.path / "sweeps" / "toy" / "checkpoints").glob("*/step-*"))
    if len(places) < 2:
        raise Missed
    victim = chance.choice(sorted(places[-1].iterdir()))
    content = bytearray(victim.read_bytes())
    position = chance.randrange(len(content))
    is_turned = chance.random() < 0.5
    if is_turned:
        content[position] ^= 1 << chance.randrange(8)
    else:
        del content[position:]
    victim.write_bytes(content)
    verdict = _finish(bench, home, acknowledged)
    config_hash = places[-1].parent.name
    if not _resumed_tokens(home, config_hash):
        verdict.wrong.append(f"{config_hash} had saved twice, and began again")
    harmless = is_turned and victim.name == "manifest.json"  # white space, perhaps
    if not harmless and "was not whole" not in home.acknowledged()[config_hash][1]:
        verdict.wrong.append(f"{victim.name} of {config_hash} was damaged, and nothing is said")
    return verdict


def killed_while_saving(bench: Bench, seed: int) -> Verdict:
    """The process ends in the middle of writing a checkpoint."""
    points = [point for point in CRASH_POINTS if "checkpoint" in point]
    home = bench.home("saving")
    visit = bench.chance(seed).randint(2, 9)
    command = home.start(env={"ISOFLOP_CRASH_AT": f"{points[seed % len(points)]}:{visit}"})
    if command.wait() != EXIT_CODE:
        raise Missed
    return _finish(bench, home, home.acknowledged())


@contextmanager
def small_disk(folder: Path, *, megabytes: int) -> Iterator[None]:
    """A file system of that size at the folder. Raises `Unavailable` where mounts are forbidden."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise Unavailable(f"no mount: {error}") from None
    if done.returncode:
        raise Unavailable(f"mounting a small disk is not allowed here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk_full(bench: Bench, seed: int) -> Verdict:
    """The disk of ledger, checkpoints or MLflow fills up, and has room again later."""
    part = ("ledger", "checkpoints", "mlflow")[seed % 3]
    home = bench.home(f"full-{part}")
    disk = {"ledger": home.path, "checkpoints": home.path / "sweeps", "mlflow": home.path / "small"}
    size = {"ledger": 8, "checkpoints": 3, "mlflow": 3}[part]
    words: tuple[str, ...] = ()
    if part == "mlflow":
        words = ("--tracking-uri", f"sqlite:///{home.path}/small/mlflow.sqlite")
    with small_disk(disk[part], megabytes=size):
        ballast = disk[part] / "ballast"
        command = home.start(*words, inject="short-mlflow-patience:3")
        if part == "mlflow":
            wait_until(lambda: (disk[part] / "mlflow.sqlite").exists(), what="MLflow's database")
        else:
            _wait_into(home, command, bench.chance(seed))
        _fill(ballast)
        if part == "mlflow":
            said = command.wait() == 1 and "MLflow at" in command.err
        else:
            wait_until(
                lambda: "paused: " in command.err or command.poll() is not None, what="the pause"
            )
            said = "MB free" in command.err
        if not said and command.poll() == 0:
            raise Missed
        acknowledged = home.acknowledged()
        ballast.unlink()
        code = command.wait()
        finished = home.start(*words)
        finished.wait()
        if part == "mlflow":
            shutil.copy(disk[part] / "mlflow.sqlite", home.mlflow)
        verdict = check(home, bench.clean, acknowledged, doctor=part != "mlflow")
        if not said or finished.code != 0 or (code != 0 and part != "mlflow"):
            verdict.wrong.append(f"{part}: exit {code} then {finished.code}: {command.err[-600:]}")
    return verdict


def _fill(path: Path) -> None:
    """Write until there is no room."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


def write_fails(bench: Bench, seed: int) -> Verdict:
    """A write ends with an input/output error: what it carried is never acknowledged."""
    home, chance = bench.home("eio"), bench.chance(seed)
    kind = ("failing-commit", "failing-sync")[seed % 2]
    command = home.start(inject=f"{kind}:{chance.randint(3, 20)}")
    code = command.wait()
    acknowledged = home.acknowledged()
    reasons = [row[0] for row in home.rows("SELECT reason FROM attempts WHERE reason NOT NULL")]
    if kind == "failing-sync" and "Input/output" not in f"{acknowledged} {reasons}":
        raise Missed
    verdict = _finish(bench, home, acknowledged)
    if kind == "failing-commit" and (code != 1 or "same command again" not in command.err):
        verdict.wrong.append(f"exit {code} after a failed commit: {command.err[-500:]}")
    return verdict


def ledger_locked(bench: Bench, seed: int) -> Verdict:
    """Another process locks the ledger: shortly (waits), or for too long (says who).

    From the third seed on, for too long means the real thirty seconds.
    """
    home = bench.home("locked")
    command = home.start(inject="short-patience:10" if seed == 1 else None)
    _wait_into(home, command, bench.chance(seed))
    with locked(home.ledger):
        if command.poll() is not None:
            raise Missed
        if seed % 2 == 0:
            time.sleep(3.0 if seed == 0 else 20.0)
        else:
            command.wait()
    code = command.wait()
    acknowledged = home.acknowledged()
    verdict = _finish(bench, home, acknowledged)
    if seed % 2 == 0 and code != 0:
        verdict.wrong.append(f"did not wait: exit {code}: {command.err[-300:]}")
    if seed % 2 == 1 and (code != 1 or f"process {os.getpid()}" not in command.err):
        verdict.wrong.append(f"exit {code} without the holder: {command.err[-500:]}")
    return verdict


def mlflow_unwell(bench: Bench, seed: int) -> Verdict:
    """MLflow is down, slow or answers 500 during the sweep; the next command fills in."""
    mode = ("down", "slow", "500")[seed % 3]
    home = bench.home(f"mlflow-{mode}")
    with Proxy(home.mlflow, home.path / "artifacts") as proxy:
        words = ("--tracking-uri", proxy.address)
        proxy.mode = mode
        command = home.start(*words, inject="short-mlflow-patience:3")
        code = command.wait()
        trained = len(home.acknowledged())
        acknowledged = home.acknowledged()
        proxy.mode = "well"
        finished = home.start(*words)
        finished.wait()
        examined = home.start("--tracking-uri", proxy.address, verb="doctor")
        agrees = examined.wait() == 0
    verdict = check(home, bench.clean, acknowledged, doctor=False)
    if trained != len(bench.clean.results) or code not in (0, 1):
        verdict.lost.append(f"{trained} trials trained, exit {code}: {command.err[-300:]}")
    if finished.code != 0 or not agrees:
        verdict.wrong.append(f"not filled in: {finished.err[-300:]}{examined.out[-500:]}")
    return verdict


def eight_workers(bench: Bench, seed: int) -> Verdict:
    """Eight Ray workers start together on an empty home."""
    home = bench.home("eight")
    command = home.start(*RAY, "--workers.count", "8", inject="cores:8")
    code = command.wait(timeout_seconds=400)
    verdict = _finish(bench, home, home.acknowledged())
    if code != 0:
        verdict.wrong.append(f"exit {code}: {command.err[-500:]}")
    return verdict


def out_of_memory(bench: Bench, seed: int) -> Verdict:
    """Memory for some sequences only: the micro-batch is halved; at one sequence infeasible."""
    fitting = (4, 1, 0)[seed % 3]
    home = bench.home("memory")
    home.start(inject=f"out-of-memory:{fitting}").wait()
    rows = home.rows("SELECT state, reason FROM attempts")
    verdict = Verdict()
    expected = {"complete"} if fitting else {"out_of_memory"}
    if {row[0] for row in rows} != expected or len(rows) < 8:
        verdict.wrong.append(f"with room for {fitting}: {rows}")
    if not fitting and any("one sequence does not fit" not in row[1] for row in rows):
        verdict.wrong.append(f"reasons {rows}")
    return verdict


def diverged(bench: Bench, seed: int) -> Verdict:
    """A loss is NaN at some step, or the learning rate is far too high: diverged, never best."""
    home = bench.home("diverged")
    if seed % 2 == 0:
        home.start(inject=f"not-a-number:{5 + seed}").wait()
        doomed = {each for each in bench.clean.results if int(each, 16) % 2 == 0}
    else:
        home.start("--axes.learning-rate-multiplier", "100000", "--trials", "2").wait()
        doomed = {row[0] for row in home.rows("SELECT config_hash FROM trials")}
    states = dict(home.rows("SELECT config_hash, state FROM trials"))
    best = home.start("--json", "--top", "0", verb="best")
    best.wait()
    shown = {
        entry["config_hash"]
        for budget in json.loads(best.out)["budgets"]
        for entry in budget["leaderboard"]
    }
    status = home.start("--json", verb="status")
    status.wait()
    document = json.loads(status.out)
    verdict = Verdict()
    if {each for each, state in states.items() if state == "diverged"} < doomed or shown & doomed:
        verdict.wrong.append(f"{states}, shown {shown}")
    for trial in document["trials"]:
        if trial["state"] == "diverged" and "loss" not in (trial["reason"] or ""):
            verdict.wrong.append(f"no reason: {trial}")
    spent = sum(row[0] for row in home.rows("SELECT spent_flops FROM attempts"))
    if document["flops"]["spent"] != spent or spent <= document["flops"]["counted"]:
        verdict.wrong.append(f"FLOPs {document['flops']}, attempts {spent}")
    return verdict


def ground_changed(bench: Bench, seed: int) -> Verdict:
    """Text, code's record version or space change between two runs: said, and not mixed."""
    home = bench.home("ground")
    shutil.copytree(bench.toy.parent, home.folder / "own", ignore=_only_toy)
    home.toy = home.folder / "own" / "toy.toml"
    home.finish()
    before = home.acknowledged()
    kind = ("text edited", "text cut", "record version", "space")[seed % 4]
    inject, words = None, ()
    text = home.toy.with_name("text.jsonl")
    if kind == "text edited":
        text.write_text(text.read_text().replace("the", "teh", 5))
    elif kind == "text cut":
        text.write_text("".join(text.read_text().splitlines(keepends=True)[:-3]))
    elif kind == "record version":
        inject = "record-version:2"
    else:
        words = ("--axes.d-model", "16")
    planned = home.start(*words, verb="plan", inject=inject)
    planned.wait()
    command = home.start(*words, inject=inject)
    code = command.wait()
    aside = dict(home.rows("SELECT config_hash, set_aside FROM trials WHERE set_aside NOT NULL"))
    verdict = Verdict()
    expected = (
        set(before)
        if kind != "space"
        else {
            row[0]
            for row in home.rows(
                "SELECT config_hash FROM trials WHERE proposal_json LIKE '%\"d_model\":32%'"
            )
        }
    )
    if code != 0 or set(aside) != expected or not expected:
        verdict.wrong.append(f"{kind}: exit {code}, set aside {len(aside)}: {command.err[-600:]}")
    for said in (planned.err, command.err):
        if "set aside" not in said:
            verdict.wrong.append(f"{kind}: not said: {said[-600:]}")
    best = home.start("--json", "--top", "0", verb="best")
    best.wait()
    if any(config_hash in best.out for config_hash in aside):
        verdict.wrong.append(f"{kind}: an old result is ranked among the new")
    now = home.acknowledged()
    verdict.lost += [each for each in before if now.get(each) != before[each]]
    return verdict


def _only_toy(_folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name not in ("toy.toml", "text.jsonl")]


@dataclass(frozen=True)
class Fault:
    """A row of the table."""

    name: str
    run: Callable[[Bench, int], Verdict]
    num_seeds: int
    """Seeds of the full table."""
    num_short: int = 2
    """Seeds of every submission's check; fewer where the seed only chooses among fewer kinds."""

    def strike(self, bench: Bench, seed: int) -> Verdict:
        """Hurt a sweep and judge what is left; a try that did not strike is no run. Raises
        `Unavailable`."""
        bench.clean  # noqa: B018  (made once, before the first fault)
        for bench.num_misses in range(NUM_TRIES):
            verdict = Verdict(wrong=["it did not get to its end"])
            try:
                verdict = self.run(bench, seed)
            except Missed:
                verdict = Verdict()
                continue
            finally:
                bench.close_home(keep=bool(verdict.problems))
            return verdict
        return Verdict(wrong=[f"{NUM_TRIES} tries, and it never struck"])


FAULTS = (
    Fault("worker killed", worker_killed, 20, 1),
    Fault("worker with a pack killed", pack_killed, 10, 1),
    Fault("killed in a trunk", trunk_killed, 12, 2),
    Fault("driver killed", driver_killed, 20),
    Fault("crash at a commit point", crash_point, 2 * len(CRASH_POINTS)),
    Fault("two drivers", two_drivers, 50, 2),
    Fault("frozen worker wakes", frozen_worker, 3, 1),
    Fault("one result twice", result_twice, 3, 1),
    Fault("SIGTERM, then SIGKILL", stopped_then_killed, 6),
    Fault("Ctrl-C twice", stopped_twice, 3, 2),
    Fault("checkpoint damaged", checkpoint_damaged, 20),
    Fault("killed while saving", killed_while_saving, 10),
    Fault("disk full", disk_full, 6),
    Fault("a write fails", write_fails, 10, 2),
    Fault("ledger locked", ledger_locked, 4, 2),
    Fault("MLflow down, slow, 500s", mlflow_unwell, 3),
    Fault("eight workers, empty home", eight_workers, 1, 0),
    Fault("out of memory", out_of_memory, 3),
    Fault("NaN or divergence", diverged, 6, 2),
    Fault("ground changed", ground_changed, 4),
)
