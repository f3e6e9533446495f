"""What happened? One small SQLite database per home, written by one driver.

Sweeps ask for trials, trials are tried in numbered attempts, and a trial's identity has at most one
accepted outcome in a home. The id of an attempt is its fencing token: an outcome that arrives for
an attempt that is no longer running is kept as stale and never counted. Only the driver that holds
the home's lease writes. The Optuna studies and MLflow are projections of these tables and can be
built again from them.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from sqlalchemy import ColumnElement, Connection, func, insert, select, true, update

from search.record.crash_points import reach
from search.record.evaluations import Evaluation
from search.record.forecasts import Forecast
from search.record.homes import make_home, read_from, require_plain, stored_in
from search.record.lease import (
    RENEWAL_SECONDS,
    Holder,
    LeaseLost,
    check_lease,
    find_holder,
    release_lease,
    renew_lease,
    take_lease,
)
from search.record.ledger_copy import is_read_only, require_writable
from search.record.ledger_errors import LOCK_WAIT_SECONDS, LedgerUnavailable, RowMissing, explaining
from search.record.ledger_rows import (
    INTERRUPTIONS,
    Acceptance,
    Face,
    Fenced,
    accepted_outcome,
    fence_attempts,
    keep_evaluation,
    keep_forecast,
    keep_stale,
    queue_trial,
    read_attempt,
    read_faces,
    read_forecasts,
    read_stale_outcomes,
    read_trials,
    reopen_trials,
    settle_trials,
    update_trial,
)
from search.record.ledger_schema import (
    ATTEMPTS,
    IMMEDIATE,
    OUTCOMES,
    SCHEMA_VERSION,
    SWEEPS,
    TRIALS,
    create_tables,
    open_copy,
    open_engine,
    require_known,
    schema_version,
)
from search.record.redaction import redact
from search.record.trial import CurvePoint, Outcome, Proposal, TrialState
from search.record.trial_records import Attempt, StaleOutcome, SweepRecord, Throughput, TrialRecord
from spaces.errors import RequestError
from spaces.identity import canonical_json

__all__ = ["Attempt", "Ledger", "StaleOutcome", "SweepRecord", "Throughput", "TrialRecord"]

FILE_NAME = "ledger.sqlite"

CHANGING = ("trial", "attempt", "progress", "outcome")
"""What a transaction writes that changes a trial."""


MOST_NAMED = 500
"""Configurations that one statement names; SQLite takes some more."""


def _among(config_hashes: Sequence[str]) -> Iterator[ColumnElement[bool]]:
    """Conditions that together hold for the trials of these configurations."""
    for start in range(0, len(config_hashes), MOST_NAMED):
        yield TRIALS.c.config_hash.in_(config_hashes[start : start + MOST_NAMED])


class Ledger:
    """The database of one home. Every method is one transaction."""

    def __init__(self, home: Path, *, create: bool = False) -> None:
        """Open the ledger of a home; `RequestError` where there is none and none is created."""
        require_plain(home)
        self.path = home / FILE_NAME
        if not self.path.exists() and not create:
            raise RequestError(
                f"{home} holds no ledger; run `isoflop sweep` with this --home first"
            )
        if create:
            make_home(home)
            require_writable(self.path)
            self.path.touch(mode=0o600)  # nobody else's to read; SQLite's own files take it over
        self.home = home
        self._token: str | None = None
        self._earlier_life: float | None = None
        self._is_copy = False
        self.num_changes = 0
        """Transactions of this object that may have changed a trial."""
        self._engine = open_engine(self.path, lock_wait_seconds=LOCK_WAIT_SECONDS)
        try:
            with explaining(self.path):
                self._bring_up_to_date() if create else self._read_as_today()
        except BaseException:
            self.close()
            raise

    def _bring_up_to_date(self) -> None:
        """Make the file's tables today's, before it is written to."""
        create_tables(self._engine, path=self.path, lock_wait_seconds=LOCK_WAIT_SECONDS)

    def _read_as_today(self) -> None:
        """Read a file of an older release, until a driver holds it, or one that cannot be written
        through a copy in memory."""
        if not is_read_only(self.path):
            version = schema_version(self._engine)
            require_known(version, self.path)
            if version == SCHEMA_VERSION:
                return
        self._engine.dispose()
        self._engine = open_copy(self.path, lock_wait_seconds=LOCK_WAIT_SECONDS)
        self._is_copy = True

    def _require_file(self) -> None:
        """Leave the copy in memory for the file itself, brought up to date."""
        if self._is_copy:
            require_writable(self.path)
            self._engine.dispose()
            self._engine = open_engine(self.path, lock_wait_seconds=LOCK_WAIT_SECONDS)
            self._bring_up_to_date()
            self._is_copy = False

    def close(self) -> None:
        """Release the file."""
        self._engine.dispose()

    @contextmanager
    def _writing(self, what: str | None = None) -> Iterator[Connection]:
        """One transaction that writes; ``what`` names its crash points."""
        with explaining(self.path):
            self._require_file()
        with (
            explaining(self.path),
            self._engine.execution_options(**IMMEDIATE).begin() as connection,
        ):
            check_lease(connection, self._token)
            yield connection
            if what is not None:
                reach(f"before ledger {what}")
        self.num_changes += what in CHANGING
        if what is not None:
            reach(f"after ledger {what}")

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with explaining(self.path), self._engine.begin() as connection:
            yield connection

    def broken_pages(self) -> list[str]:
        """What SQLite finds wrong with the file; empty when it is whole."""
        with self._reading() as connection:
            lines = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
        return [] if lines == ["ok"] else [str(line) for line in lines]

    # The lease

    @contextmanager
    def held(self, *, take_over: bool = False) -> Iterator[None]:
        """Hold the home meanwhile, as its one driver. Raises `RequestError` naming another one."""
        with explaining(self.path):
            self._require_file()
        with (
            explaining(self.path),
            self._engine.execution_options(**IMMEDIATE).begin() as connection,
        ):
            before = find_holder(connection)
            self._token = take_lease(connection, take_over=take_over)
        self._earlier_life = None if before is None else before.renewed_at
        over = threading.Event()
        renewal = threading.Thread(target=self._renew, args=(over,), name="lease", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            over.set()
            renewal.join()
            with contextlib.suppress(LedgerUnavailable, LeaseLost), self._writing() as connection:
                release_lease(connection, self._token)
            self._token = None

    def holder(self) -> Holder | None:
        """The driver that is written down as holding the home, alive or not."""
        with self._reading() as connection:
            return find_holder(connection)

    def _renew(self, over: threading.Event) -> None:
        """Show life until the lease is let go or lost; a failed try is made up by the next."""
        assert self._token is not None
        while not over.wait(RENEWAL_SECONDS):
            with contextlib.suppress(LedgerUnavailable, LeaseLost), self._writing() as connection:
                renew_lease(connection, self._token)

    # Sweeps

    def record_sweep(
        self, name: str, *, experiment_json: str, text_fingerprint: str, code_version: str
    ) -> SweepRecord | None:
        """Write what the sweep is now; returns what it was before, or None for a new one."""
        before = self.find_sweep(name)
        now = time.time()
        values = {
            "experiment_json": redact(experiment_json),
            "text_fingerprint": text_fingerprint,
            "code_version": code_version,
            "updated_at": now,
        }
        with self._writing("sweep") as connection:
            if before is None:
                connection.execute(insert(SWEEPS).values(name=name, created_at=now, **values))
            else:
                connection.execute(update(SWEEPS).where(SWEEPS.c.name == name).values(**values))
        return before

    def find_sweep(self, name: str) -> SweepRecord | None:
        """The sweep of that name, or None."""
        with self._reading() as connection:
            row = connection.execute(select(SWEEPS).where(SWEEPS.c.name == name)).mappings().first()
        return None if row is None else SweepRecord(**row)

    def sweep(self, name: str) -> SweepRecord:
        """The sweep of that name. Raises `RequestError` naming those that exist."""
        found = self.find_sweep(name)
        if found is None:
            known = ", ".join(self.sweep_names()) or "none yet"
            raise RequestError(
                f"{self.home} holds no sweep {name!r} (it holds: {known}); "
                f"run `isoflop sweep {name}` first"
            )
        return found

    def sweep_names(self) -> list[str]:
        """Names of the home's sweeps, sorted."""
        with self._reading() as connection:
            return list(connection.execute(select(SWEEPS.c.name).order_by(SWEEPS.c.name)).scalars())

    def state_counts(self) -> dict[str, dict[TrialState, int]]:
        """Trials of each sweep, by state."""
        of_sweeps = select(TRIALS.c.sweep, TRIALS.c.state, func.count())
        counted = of_sweeps.group_by(TRIALS.c.sweep, TRIALS.c.state)
        found: dict[str, dict[TrialState, int]] = {}
        with self._reading() as connection:
            for sweep, state, count in connection.execute(counted):
                found.setdefault(sweep, {})[state] = count
        return found

    def record_projection(
        self, name: str, *, tracking_uri: str | None, experiment: str, run: str
    ) -> None:
        """Where the sweep lies in MLflow; ``tracking_uri`` None is the home's own database."""
        with self._writing("projection") as connection:
            found = connection.execute(
                update(SWEEPS)
                .where(SWEEPS.c.name == name)
                .values(
                    tracking_uri=None if tracking_uri is None else redact(tracking_uri),
                    mlflow_experiment_id=experiment,
                    mlflow_run_id=run,
                )
            )
            if found.rowcount != 1:
                raise RowMissing(f"no sweep {name!r}")

    def record_run(self, sweep: str, config_hash: str, run_id: str) -> None:
        """Where a trial lies in MLflow."""
        with self._writing("projection") as connection:
            update_trial(connection, sweep, config_hash, mlflow_run_id=run_id)

    # Trials

    def add_trial(self, sweep: str, proposal: Proposal, *, takes_pruned: bool = True) -> TrialState:
        """Queue a trial, or mark it reused where this home has its outcome; returns the state.

        One that the sweep had set aside belongs to it again, as it stands. Without
        ``takes_pruned`` a trial that another sweep pruned is queued to be trained whole.
        """
        with self._writing("trial") as connection:
            return queue_trial(connection, sweep, proposal, takes_pruned=takes_pruned)

    def accepted(self, config_hash: str) -> Outcome | None:
        """The accepted outcome of an identity in this home, whatever its status; None without."""
        with self._reading() as connection:
            found = accepted_outcome(connection, config_hash)
        return None if found is None else read_from(self.home, found)

    def throughputs(self) -> list[Throughput]:
        """Of every result of this home, whatever its sweep: how fast it trained, and on what."""
        names = ("device", "tokens_per_second", "parameters.total", "forward_flops_per_token.full")
        outcome = OUTCOMES.c.outcome_json
        columns = [func.json_extract(outcome, f"$.{name}") for name in names]
        with self._reading() as connection:
            rows = connection.execute(select(*columns)).all()
        return [Throughput(*row) for row in rows if all(value is not None for value in row)]

    def reopen(self, sweep: str, state: Literal["failed", "pruned"]) -> int:
        """Let a sweep's failed or pruned trials, in whatever sweep they are, wait for another
        attempt; how many there are.

        Why they ended and what that cost stays with their attempts.
        """
        which = (TRIALS.c.sweep == sweep, TRIALS.c.state == state, TRIALS.c.set_aside.is_(None))
        with self._writing("outcome") as connection:
            found = connection.execute(select(TRIALS.c.config_hash).where(*which)).scalars().all()
            reopen_trials(connection, found)
        return len(found)

    def set_aside(self, sweep: str, reasons: dict[str, str | None]) -> None:
        """For each configuration hash, why the trial is no part of the experiment now, or None."""
        with self._writing() as connection:
            for config_hash, reason in reasons.items():
                update_trial(connection, sweep, config_hash, set_aside=reason)
        self.num_changes += 1

    def trials(self, sweep: str, only: Sequence[str] | None = None) -> list[TrialRecord]:
        """Every trial of a sweep in order of proposal, or ``only`` those of some configurations."""
        mine = TRIALS.c.sweep == sweep
        parts = [mine] if only is None else [mine & part for part in _among(only)]
        with self._reading() as connection:
            found = [self._here(each) for part in parts for each in read_trials(connection, part)]
        return found if only is None else sorted(found, key=lambda record: record.number)

    def faces(self, sweep: str) -> dict[str, Face]:
        """How each trial of a sweep stands, for who wants to know which have changed."""
        with self._reading() as connection:
            return read_faces(connection, sweep)

    def trial(self, sweep: str, config_hash: str) -> TrialRecord:
        """One trial of a sweep. Raises `RowMissing`."""
        with self._reading() as connection:
            which = (TRIALS.c.sweep == sweep) & (TRIALS.c.config_hash == config_hash)
            for record in read_trials(connection, which):
                return self._here(record)
        raise RowMissing(f"no trial {config_hash} of sweep {sweep!r}")

    def _here(self, record: TrialRecord) -> TrialRecord:
        """A record with the paths of the home as it lies now."""
        if record.outcome is None or record.outcome.weights_path is None:
            return record
        return replace(record, outcome=read_from(self.home, record.outcome))

    def stale_outcomes(self) -> list[StaleOutcome]:
        """Outcomes of the home that came too late, oldest first."""
        with self._reading() as connection:
            return read_stale_outcomes(connection)

    # Forecasts

    def keep_forecast(self, sweep: str, forecast: Forecast) -> bool:
        """Write a forecast down, for good; False where the sweep has one of that family and budget:
        that one stands."""
        with self._writing() as connection:
            return keep_forecast(connection, sweep, forecast)

    def forecasts(self, sweep: str) -> list[Forecast]:
        """A sweep's forecasts, by budget and family."""
        with self._reading() as connection:
            return read_forecasts(connection, sweep)

    # Evaluations

    def keep_evaluation(self, evaluation: Evaluation) -> None:
        """Write down what a run scored on a task, in place of what it scored before."""
        with self._writing() as connection:
            keep_evaluation(connection, evaluation)
        self.num_changes += 1

    # Attempts and outcomes

    def start_attempt(self, sweep: str, config_hash: str) -> Attempt:
        """Open the next attempt at a trial and mark the trial running."""
        with self._writing("attempt") as connection:
            number = connection.execute(
                select(func.coalesce(func.max(ATTEMPTS.c.number), 0) + 1).where(
                    ATTEMPTS.c.config_hash == config_hash
                )
            ).scalar_one()
            row = (
                connection.execute(
                    insert(ATTEMPTS)
                    .values(
                        sweep=sweep,
                        config_hash=config_hash,
                        number=number,
                        state="running",
                        started_at=time.time(),
                    )
                    .returning(ATTEMPTS)
                )
                .mappings()
                .one()
            )
            update_trial(connection, sweep, config_hash, state="running")
        return read_attempt(row)

    def record_progress(
        self,
        attempt_id: int,
        *,
        step: int,
        spent_flops: float,
        curve: Sequence[CurvePoint],
        node: str,
        pid: int,
    ) -> bool:
        """Where a running attempt stands; False (and nothing written) if it is fenced."""
        with self._writing("progress") as connection:
            result = connection.execute(
                update(ATTEMPTS)
                .where(ATTEMPTS.c.id == attempt_id, ATTEMPTS.c.state == "running")
                .values(
                    step=step,
                    spent_flops=spent_flops,
                    curve_json=json.dumps([asdict(point) for point in curve]),
                    node=node,
                    pid=pid,
                )
            )
        return bool(result.rowcount)

    def accept(self, attempt_id: int, outcome: Outcome, *, spent_flops: float) -> Acceptance:
        """Close an attempt with its outcome; an identity's result is accepted once.

        Where the same trial waits in another sweep of the home, it has its result there, too.
        An outcome of an attempt that is no longer running is kept aside: ``repeated`` when it
        equals the accepted one, ``conflict`` when it contradicts it, ``stale`` otherwise.
        """
        text = canonical_json(stored_in(self.home, outcome))
        with self._writing("outcome") as connection:
            row = (
                connection.execute(select(ATTEMPTS).where(ATTEMPTS.c.id == attempt_id))
                .mappings()
                .one()
            )
            if row["state"] != "running":
                return keep_stale(connection, row, text)
            connection.execute(
                update(ATTEMPTS)
                .where(ATTEMPTS.c.id == attempt_id)
                .values(
                    state=outcome.status,
                    reason=outcome.reason,
                    ended_at=time.time(),
                    step=outcome.steps,
                    spent_flops=spent_flops,
                    curve_json=json.dumps([asdict(point) for point in outcome.curve]),
                )
            )
            if outcome.status in INTERRUPTIONS:
                update_trial(connection, row["sweep"], row["config_hash"], state="preempted")
                return "accepted"
            connection.execute(
                insert(OUTCOMES).values(
                    config_hash=row["config_hash"],
                    attempt_id=attempt_id,
                    outcome_json=text,
                    accepted_at=time.time(),
                )
            )
            settle_trials(connection, row["sweep"], row["config_hash"], outcome.status)
        return "accepted"

    def fence(self, attempt_id: int, *, reason: str, state: Fenced) -> None:
        """Give up on a running attempt: its trial waits for the next attempt.

        ``lost`` counts against the trial (its worker died or fell silent), ``preempted`` does not.
        """
        with self._writing("outcome") as connection:
            fence_attempts(connection, ATTEMPTS.c.id == attempt_id, reason=reason, state=state)

    def fence_all(self, *, reason: str) -> int:
        """Fence every running attempt of the home; how many. Those of a driver that died before
        this one came ended with its last sign of life."""
        ended_at, self._earlier_life = self._earlier_life, None
        with self._writing("outcome") as connection:
            return fence_attempts(
                connection, true(), reason=reason, state="preempted", ended_at=ended_at
            )
