"""What does the ledger's database look like?"""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

from sqlalchemy import (
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
)
from sqlalchemy.exc import OperationalError

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

IMMEDIATE = {"begin": "BEGIN IMMEDIATE"}
"""Execution options of a transaction that writes: it takes the lock before it reads."""


def require_plain(home: Path) -> None:
    """Raise `RequestError` where a home's path is none that the address of a database can hold."""
    if strange := set("?%") & set(str(home.resolve())):
        raise RequestError(
            f"{home.resolve()} holds {' and '.join(sorted(strange))}, which the address of a "
            f"database cannot; use another --home"
        )


def open_engine(path: Path, *, lock_wait_seconds: float) -> Engine:
    """SQLite, flushed at every commit; transactions begin as the ``begin`` option says."""
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": lock_wait_seconds})

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


def create_tables(engine: Engine, *, lock_wait_seconds: float) -> None:
    """Make what is missing, in WAL mode; several processes may do so at once."""
    _switch_to_wal(engine, until=time.monotonic() + lock_wait_seconds)
    with engine.execution_options(**IMMEDIATE).begin() as connection:
        METADATA.create_all(connection)


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
