"""How is MLflow's SQLite database made, checked and kept quick?"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment

from runners.machine.files import PARTIAL_SUFFIX, partial_path
from runners.mlflow.saved_view import local_tracking_uri

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


def keep_artifacts(home: Path, experiment: Experiment) -> None:
    """In a home that was copied or moved, artifacts are its own again, not the original's."""
    here, there = local_artifacts(home), experiment.artifact_location
    if there == here:
        return
    database = sqlite_path(local_tracking_uri(home))
    assert database is not None
    with contextlib.closing(sqlite3.connect(database, timeout=10.0)) as connection, connection:
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            (here, len(there) + 1, experiment.experiment_id, len(there), there),
        )
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (here, experiment.experiment_id),
        )


def local_artifacts(home: Path) -> str:
    """Where a home keeps its artifacts; MLflow's own default is the working directory."""
    return (home.resolve() / "artifacts").as_uri()


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
