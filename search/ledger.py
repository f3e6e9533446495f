"""What happened? One small SQLite database per home, written by one driver.

Sweeps ask for trials, trials are tried in numbered attempts, and a trial's identity has at most one
accepted outcome in a home. The id of an attempt is its fencing token: an outcome that arrives for
an attempt that is no longer running is kept as stale and never counted. The Optuna studies and
MLflow are projections of these tables and can be built again from them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    insert,
    select,
    update,
)

from search.trial import CurvePoint, Outcome, Proposal, TrialState, canonical_json
from spaces.errors import RequestError

FILE_NAME = "ledger.sqlite"
LOCK_WAIT_SECONDS = 30.0

METADATA = MetaData()

SWEEPS = Table(
    "sweeps",
    METADATA,
    Column("name", String, primary_key=True),
    Column("experiment_json", Text, nullable=False),
    Column("text_fingerprint", String, nullable=False),
    Column("code_version", String, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("tracking_uri", String),
    Column("mlflow_experiment_id", String),
    Column("mlflow_run_id", String),
)
TRIALS = Table(
    "trials",
    METADATA,
    Column("sweep", String, ForeignKey("sweeps.name"), primary_key=True),
    Column("config_hash", String, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("proposal_json", Text, nullable=False),
    Column("state", String, nullable=False),
    Column("set_aside", String),
    Column("created_at", Float, nullable=False),
    Column("mlflow_run_id", String),
    UniqueConstraint("sweep", "number"),
)
ATTEMPTS = Table(
    "attempts",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("sweep", String, nullable=False),
    Column("config_hash", String, nullable=False),
    Column("number", Integer, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("node", String),
    Column("pid", Integer),
    Column("step", Integer, nullable=False, default=0),
    Column("spent_flops", Float, nullable=False, default=0.0),
    Column("curve_json", Text, nullable=False, default="[]"),
    UniqueConstraint("config_hash", "number"),
    sqlite_autoincrement=True,
)
OUTCOMES = Table(
    "outcomes",
    METADATA,
    Column("config_hash", String, primary_key=True),
    Column("attempt_id", Integer, ForeignKey("attempts.id"), nullable=False),
    Column("outcome_json", Text, nullable=False),
    Column("accepted_at", Float, nullable=False),
)
STALE_OUTCOMES = Table(
    "stale_outcomes",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("attempt_id", Integer, nullable=False),
    Column("outcome_json", Text, nullable=False),
    Column("received_at", Float, nullable=False),
    Column("conflict", Boolean, nullable=False),
)

AttemptState = Literal[
    "running", "complete", "preempted", "lost", "diverged", "out_of_memory", "failed", "pruned"
]
Acceptance = Literal["accepted", "repeated", "stale", "conflict"]

FINAL_STATES: frozenset[TrialState] = frozenset(
    {"complete", "reused", "diverged", "out_of_memory", "failed", "pruned"}
)
"""States of a trial that is not run again."""


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a trial."""

    id: int
    """Fencing token."""
    number: int
    """1 for the first."""
    state: AttemptState
    """How it stands or ended."""
    reason: str | None
    """Why, where it did not complete."""
    started_at: float
    """Unix seconds."""
    ended_at: float | None
    """Unix seconds."""
    node: str | None
    """Host of the worker."""
    pid: int | None
    """Process of the worker."""
    step: int
    """Optimizer steps of the trial done so far."""
    spent_flops: float
    """Training FLOPs that this attempt itself spent, in the sweep's convention."""
    curve: tuple[CurvePoint, ...]
    """The curve so far."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of a sweep with all that is known of it."""

    number: int
    """Order of proposal in its sweep, from 0."""
    proposal: Proposal
    """What was asked for, and why."""
    state: TrialState
    """Where it stands."""
    set_aside: str | None
    """Why the trial does not belong to the experiment as it is written now; None if it does."""
    attempts: tuple[Attempt, ...]
    """Attempts of this identity in this home, first to last."""
    outcome: Outcome | None
    """The accepted outcome."""
    accepted_at: float | None
    """Unix seconds."""
    mlflow_run_id: str | None
    """Its run in MLflow, once projected."""

    @property
    def config_hash(self) -> str:
        """Identity of the trial."""
        return self.proposal.config_hash

    @property
    def is_result(self) -> bool:
        """Whether it counts: complete or reused, and part of the experiment as it is now."""
        return self.state in ("complete", "reused") and self.set_aside is None

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """The accepted curve, or that of the newest attempt."""
        if self.outcome is not None:
            return self.outcome.curve
        return self.attempts[-1].curve if self.attempts else ()


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A sweep as the ledger knows it."""

    name: str
    experiment_json: str
    text_fingerprint: str
    code_version: str
    created_at: float
    updated_at: float
    tracking_uri: str | None
    mlflow_experiment_id: str | None
    mlflow_run_id: str | None


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


class Ledger:
    """The database of one home. Every method is one transaction."""

    def __init__(self, home: Path, *, create: bool = False) -> None:
        """Open the ledger of a home; `RequestError` where there is none and none is created."""
        path = home / FILE_NAME
        if not path.exists() and not create:
            raise RequestError(
                f"{home} holds no ledger; run `isoflop sweep` with this --home first"
            )
        if create:
            home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._engine = _open_engine(path)
        if create:
            METADATA.create_all(self._engine)

    def close(self) -> None:
        """Release the file."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._engine.begin() as connection:
            yield connection

    # Sweeps

    def record_sweep(
        self, name: str, *, experiment_json: str, text_fingerprint: str, code_version: str
    ) -> SweepRecord | None:
        """Write what the sweep is now; returns what it was before, or None for a new one."""
        before = self.find_sweep(name)
        now = time.time()
        values = {
            "experiment_json": experiment_json,
            "text_fingerprint": text_fingerprint,
            "code_version": code_version,
            "updated_at": now,
        }
        with self._writing() as connection:
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
            with self._reading() as connection:
                names = list(connection.execute(select(SWEEPS.c.name)).scalars())
            known = ", ".join(sorted(names)) or "none yet"
            raise RequestError(
                f"{self.home} holds no sweep {name!r} (it holds: {known}); "
                f"run `isoflop sweep {name}` first"
            )
        return found

    def record_projection(self, name: str, *, tracking_uri: str, experiment: str, run: str) -> None:
        """Where the sweep lies in MLflow."""
        with self._writing() as connection:
            connection.execute(
                update(SWEEPS)
                .where(SWEEPS.c.name == name)
                .values(
                    tracking_uri=tracking_uri, mlflow_experiment_id=experiment, mlflow_run_id=run
                )
            )

    def record_run(self, sweep: str, config_hash: str, run_id: str) -> None:
        """Where a trial lies in MLflow."""
        with self._writing() as connection:
            connection.execute(_trial_update(sweep, config_hash).values(mlflow_run_id=run_id))

    # Trials

    def add_trial(self, sweep: str, proposal: Proposal) -> TrialState:
        """Queue a trial, or mark it reused where this home has its outcome; returns the state."""
        with self._writing() as connection:
            known = _accepted_outcome(connection, proposal.config_hash)
            state: TrialState = "queued"
            if known is not None:
                status = known.status
                state = "reused" if status == "complete" else _final_state(status)
            number = connection.execute(
                select(func.coalesce(func.max(TRIALS.c.number), -1) + 1).where(
                    TRIALS.c.sweep == sweep
                )
            ).scalar_one()
            connection.execute(
                insert(TRIALS).values(
                    sweep=sweep,
                    config_hash=proposal.config_hash,
                    number=number,
                    proposal_json=canonical_json(proposal),
                    state=state,
                    created_at=time.time(),
                )
            )
        return state

    def has_result(self, config_hash: str) -> bool:
        """Whether this home has an accepted outcome of the identity, whatever its status."""
        with self._reading() as connection:
            return _accepted_outcome(connection, config_hash) is not None

    def set_aside(self, sweep: str, reasons: dict[str, str | None]) -> None:
        """For each configuration hash, why the trial is no part of the experiment now, or None."""
        with self._writing() as connection:
            for config_hash, reason in reasons.items():
                connection.execute(_trial_update(sweep, config_hash).values(set_aside=reason))

    def trials(self, sweep: str) -> list[TrialRecord]:
        """Every trial of a sweep in order of proposal."""
        with self._reading() as connection:
            rows = connection.execute(
                select(TRIALS, OUTCOMES.c.outcome_json, OUTCOMES.c.accepted_at)
                .outerjoin(OUTCOMES, OUTCOMES.c.config_hash == TRIALS.c.config_hash)
                .where(TRIALS.c.sweep == sweep)
                .order_by(TRIALS.c.number)
            ).mappings()
            records = list(rows)
            attempts: dict[str, list[Attempt]] = {row["config_hash"]: [] for row in records}
            tried = select(ATTEMPTS).order_by(ATTEMPTS.c.config_hash, ATTEMPTS.c.number)
            for row in connection.execute(tried).mappings():
                if row["config_hash"] in attempts:
                    attempts[row["config_hash"]].append(_read_attempt(row))
        return [_read_trial(row, tuple(attempts[row["config_hash"]])) for row in records]

    # Attempts and outcomes

    def start_attempt(self, sweep: str, config_hash: str) -> Attempt:
        """Open the next attempt at a trial and mark the trial running."""
        with self._writing() as connection:
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
            connection.execute(_trial_update(sweep, config_hash).values(state="running"))
        return _read_attempt(row)

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
        with self._writing() as connection:
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

        An outcome of an attempt that is no longer running is kept aside: ``repeated`` when it
        equals the accepted one, ``conflict`` when it contradicts it, ``stale`` otherwise.
        """
        text = canonical_json(outcome)
        with self._writing() as connection:
            row = (
                connection.execute(select(ATTEMPTS).where(ATTEMPTS.c.id == attempt_id))
                .mappings()
                .one()
            )
            if row["state"] != "running":
                return _keep_stale(connection, row, text)
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
            if outcome.status in ("preempted", "lost"):
                _set_state(connection, row["sweep"], row["config_hash"], "preempted")
                return "accepted"
            connection.execute(
                insert(OUTCOMES).values(
                    config_hash=row["config_hash"],
                    attempt_id=attempt_id,
                    outcome_json=text,
                    accepted_at=time.time(),
                )
            )
            _set_state(connection, row["sweep"], row["config_hash"], _final_state(outcome.status))
        return "accepted"

    def fence(self, attempt_id: int, *, reason: str) -> None:
        """Give up on a running attempt: it is lost, its trial waits for the next attempt."""
        with self._writing() as connection:
            row = (
                connection.execute(
                    update(ATTEMPTS)
                    .where(ATTEMPTS.c.id == attempt_id, ATTEMPTS.c.state == "running")
                    .values(state="lost", reason=reason, ended_at=time.time())
                    .returning(ATTEMPTS)
                )
                .mappings()
                .first()
            )
            if row is not None:
                _set_state(connection, row["sweep"], row["config_hash"], "preempted")

    def fence_all(self, *, reason: str) -> int:
        """Fence every running attempt of the home (those of a driver that is gone); how many."""
        with self._reading() as connection:
            running = list(
                connection.execute(
                    select(ATTEMPTS.c.id).where(ATTEMPTS.c.state == "running")
                ).scalars()
            )
        for attempt_id in running:
            self.fence(attempt_id, reason=reason)
        return len(running)


def _open_engine(path: Path) -> Engine:
    """SQLite in WAL mode; transactions begin as the connection's ``begin`` option says."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": LOCK_WAIT_SECONDS})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def _trial_update(sweep: str, config_hash: str) -> Any:
    return update(TRIALS).where(TRIALS.c.sweep == sweep, TRIALS.c.config_hash == config_hash)


def _set_state(connection: Connection, sweep: str, config_hash: str, state: TrialState) -> None:
    connection.execute(_trial_update(sweep, config_hash).values(state=state))


def _final_state(status: str) -> TrialState:
    state: TrialState = _adapter(TrialState).validate_python(status)
    return state


def _accepted_outcome(connection: Connection, config_hash: str) -> Outcome | None:
    text = connection.execute(
        select(OUTCOMES.c.outcome_json).where(OUTCOMES.c.config_hash == config_hash)
    ).scalar_one_or_none()
    outcome: Outcome | None = None if text is None else _adapter(Outcome).validate_json(text)
    return outcome


def _keep_stale(connection: Connection, attempt: RowMapping, text: str) -> Acceptance:
    accepted = connection.execute(
        select(OUTCOMES.c.outcome_json).where(OUTCOMES.c.config_hash == attempt["config_hash"])
    ).scalar_one_or_none()
    if accepted == text:
        return "repeated"
    conflict = accepted is not None and _result(accepted) != _result(text)
    connection.execute(
        insert(STALE_OUTCOMES).values(
            attempt_id=attempt["id"],
            outcome_json=text,
            received_at=time.time(),
            conflict=conflict,
        )
    )
    return "conflict" if conflict else "stale"


def _result(outcome_json: str) -> tuple[Any, ...]:
    """What two outcomes of one identity must agree on."""
    outcome = json.loads(outcome_json)
    return tuple(outcome[key] for key in ("status", "loss_nats", "steps", "tokens"))


def _read_attempt(row: RowMapping) -> Attempt:
    return Attempt(
        id=row["id"],
        number=row["number"],
        state=row["state"],
        reason=row["reason"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        node=row["node"],
        pid=row["pid"],
        step=row["step"],
        spent_flops=row["spent_flops"],
        curve=tuple(_adapter(list[CurvePoint]).validate_json(row["curve_json"])),
    )


def _read_trial(row: RowMapping, attempts: tuple[Attempt, ...]) -> TrialRecord:
    text = row["outcome_json"]
    return TrialRecord(
        number=row["number"],
        proposal=_adapter(Proposal).validate_json(row["proposal_json"]),
        state=row["state"],
        set_aside=row["set_aside"],
        attempts=attempts,
        outcome=None if text is None else _adapter(Outcome).validate_json(text),
        accepted_at=row["accepted_at"],
        mlflow_run_id=row["mlflow_run_id"],
    )
