"""What does the ledger's database look like, and what did it look like in older releases?

The file says its version (SQLite's ``user_version``). An older one is read through a copy in memory
that is brought up to date, and brought up to date itself once a driver writes to it: in one
transaction, with a copy of the file as it was kept beside it. A newer one is refused.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
    DDL,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    inspect,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import StaticPool

from search.record.ledger_copy import copy_into
from spaces.errors import RequestError

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
    Column("parent_hash", String),
    Column("cost_flops", Float),
    UniqueConstraint("sweep", "number"),
)
"""``parent_hash``: the trial whose checkpoint a trial starts from; ``cost_flops``: what it then
costs itself, less than the FLOPs behind its result. Both are null for a trial from scratch."""
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
LEASE = Table(
    "lease",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("token", String, nullable=False),
    Column("host", String, nullable=False),
    Column("machine", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started", String, nullable=False),
    Column("since", Float, nullable=False),
    Column("renewed_at", Float, nullable=False),
)
"""At most one row: the driver that writes to this home."""

FORECASTS = Table(
    "forecasts",
    METADATA,
    Column("sweep", String, ForeignKey("sweeps.name"), primary_key=True),
    Column("family", String, primary_key=True),
    Column("train_flops", Float, primary_key=True),
    Column("config_hash", String, nullable=False),
    Column("forecast_json", Text, nullable=False),
    Column("written_at", Float, nullable=False),
)
"""What was predicted before it was trained: the file itself refuses to change or delete a row."""

EVALUATIONS = Table(
    "evaluations",
    METADATA,
    Column("config_hash", String, primary_key=True),
    Column("task", String, primary_key=True),
    Column("evaluation_json", Text, nullable=False),
    Column("evaluated_at", Float, nullable=False),
)
"""What a trained model scored on a task, last; what it said to each item lies in the home."""

for _change in ("UPDATE", "DELETE"):
    _refusal = DDL(  # type: ignore[no-untyped-call]
        f"CREATE TRIGGER forecasts_keep_{_change.lower()} BEFORE {_change} ON forecasts "
        f"BEGIN SELECT RAISE(ABORT, 'a forecast is written once and never changed'); END"
    )
    event.listen(FORECASTS, "after_create", _refusal)

SCHEMA_VERSION = 4
"""Of the tables above. A change of them raises it and says in `STEPS` how an older file follows."""

STEPS: dict[int, tuple[str, ...]] = {
    2: (
        "ALTER TABLE trials ADD COLUMN parent_hash VARCHAR",
        "ALTER TABLE trials ADD COLUMN cost_flops FLOAT",
    ),
    3: (),
    4: (),
}
"""Statements that bring a file of the version before to each version; tables that are missing are
made before."""

IMMEDIATE = {"begin": "BEGIN IMMEDIATE"}
"""Execution options of a transaction that writes: it takes the lock before it reads."""


def open_engine(path: Path, *, lock_wait_seconds: float) -> Engine:
    """SQLite, flushed at every commit; transactions begin as the ``begin`` option says."""
    return _prepared(
        create_engine(f"sqlite:///{path}", connect_args={"timeout": lock_wait_seconds})
    )


def open_copy(path: Path, *, lock_wait_seconds: float) -> Engine:
    """A file of an older release as it would be now, or one that cannot be written: a copy in
    memory, the file left alone."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    engine = _prepared(create_engine("sqlite://", creator=lambda: memory, poolclass=StaticPool))
    try:
        copy_into(memory, path, lock_wait_seconds=lock_wait_seconds)
        with engine.execution_options(**IMMEDIATE).begin() as connection:
            require_known(_version_of(connection), path)
            _bring_up_to_date(connection)
    except BaseException:
        memory.close()
        raise
    return engine


def _prepared(engine: Engine) -> Engine:
    """The engine with every connection set up as the ledger needs it."""

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA wal_autocheckpoint=200")  # pages: the log stays under 1 MB

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def schema_version(engine: Engine) -> int:
    """The version that a file's tables have; 0 where it has none."""
    with engine.connect() as connection:
        return _version_of(connection)


def require_known(version: int, path: Path) -> None:
    """Raise `RequestError` where a file is of a newer release than this one."""
    if version > SCHEMA_VERSION:
        raise RequestError(
            f"a ledger is read by the release that wrote it or a newer one, but {path} has schema "
            f"{version} and this release knows {SCHEMA_VERSION}; update isoflop (nothing was "
            f"changed)"
        )


def create_tables(engine: Engine, *, path: Path, lock_wait_seconds: float) -> None:
    """Make what is missing, in WAL mode, and bring an older file up to date, a copy of it kept;
    several processes may do so at once."""
    _switch_to_wal(engine, until=time.monotonic() + lock_wait_seconds)
    version = schema_version(engine)
    require_known(version, path)
    with engine.execution_options(**IMMEDIATE).begin() as connection:
        before = _version_of(connection)
        if 0 < before < SCHEMA_VERSION:
            _keep_copy(path, path.with_name(f"{path.stem}.schema-{before}{path.suffix}"))
        _bring_up_to_date(connection)


def _version_of(connection: Connection) -> int:
    """The version that the tables have; 0 where there are none."""
    number: int = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
    unnumbered = number == 0 and inspect(connection).has_table(SWEEPS.name)
    return 1 if unnumbered else number  # the first release wrote no number


def _bring_up_to_date(connection: Connection) -> None:
    """From whatever version the tables have to today's, inside one transaction."""
    before = _version_of(connection)
    METADATA.create_all(connection)
    for version in range(before + 1, SCHEMA_VERSION + 1) if before else ():
        for statement in STEPS[version]:
            connection.exec_driver_sql(statement)
    if before < SCHEMA_VERSION:
        connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _keep_copy(path: Path, place: Path) -> None:
    """The file as it is, whole under the copy's name or not there."""
    partial = place.with_name(f".{place.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with (
        contextlib.closing(sqlite3.connect(partial)) as copy,
        contextlib.closing(sqlite3.connect(path)) as file,
    ):
        file.backup(copy)
    partial.replace(place)


def _switch_to_wal(engine: Engine, *, until: float) -> None:
    """SQLite does not wait for a lock here, so this does."""
    while True:
        connection = engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise OperationalError("PRAGMA journal_mode=WAL", None, error) from None
        finally:
            connection.close()
        time.sleep(0.05)
