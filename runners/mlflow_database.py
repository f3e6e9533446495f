"""How is MLflow's SQLite database made, checked and kept quick?"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from mlflow import MlflowClient

from runners.files import PARTIAL_SUFFIX, partial_path

# It prints the traceback of every error, which whoever asked MLflow catches and tells
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of a SQLite tracking database; None for a server."""
    if not tracking_uri.startswith("sqlite:///"):
        return None
    return Path(tracking_uri.removeprefix("sqlite:///"))


def create_database(path: Path) -> None:
    """Make MLflow's database, if there is none, whole or not at all.

    One that was left half-made by a killed process can never be opened again: MLflow finds tables
    that it wants to create.
    """
    if path.exists():
        return
    for leftover in path.parent.glob(f".{path.name}.*{PARTIAL_SUFFIX}*"):
        leftover.unlink(missing_ok=True)
    partial = partial_path(path)
    MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)
    partial.replace(path)


def is_whole(path: Path) -> bool:
    """Whether a local tracking database, if there is one, can be read.

    Asked of SQLite itself: MLflow would keep the broken file open.
    """
    if not path.exists():
        return True
    with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as connection:
        try:
            return connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
        except sqlite3.DatabaseError:
            return False


def analyse_database(path: Path) -> None:
    """Let SQLite count its rows: sorting 20,000 runs by a metric then takes no seconds."""
    connection = sqlite3.connect(path, timeout=10.0)
    with contextlib.closing(connection), contextlib.suppress(sqlite3.OperationalError):
        connection.execute("ANALYZE")
