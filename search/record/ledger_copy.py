"""How is a ledger read that is not to be written, or cannot be? Through a copy in memory.

SQLite reads a log beside the file only where it may write there. So of a home that is read only
(a mounted archive, somebody else's folder) the file is copied together with its log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from spaces.errors import RequestError


def is_read_only(path: Path) -> bool:
    """Whether a ledger, or the folder in which SQLite works beside it, may not be written."""
    return not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK))


def require_writable(path: Path) -> None:
    """Raise `RequestError` where a ledger, be it there or not, cannot be written."""
    if not os.access(path.parent, os.W_OK | os.X_OK):
        wrong = path.parent
    elif path.exists() and not os.access(path, os.W_OK):
        wrong = path
    else:
        return
    raise RequestError(
        f"who runs or rebuilds a sweep writes to its home, but {wrong} cannot be written by you; "
        f"make it writable, or use another --home (`isoflop status`, best, fit and doctor only "
        f"read)"
    )


def copy_into(memory: sqlite3.Connection, path: Path, *, lock_wait_seconds: float) -> None:
    """Fill a database with what a ledger holds now. Raises sqlalchemy's DatabaseError."""
    try:
        with _readable(path, lock_wait_seconds) as file:
            file.backup(memory)
    except sqlite3.DatabaseError as error:
        raise DatabaseError("backup", None, error) from None


@contextlib.contextmanager
def _readable(path: Path, lock_wait_seconds: float) -> Iterator[sqlite3.Connection]:
    """A connection that reads the file and its log."""
    if not is_read_only(path):
        with contextlib.closing(sqlite3.connect(path, timeout=lock_wait_seconds)) as file:
            yield file
        return
    with tempfile.TemporaryDirectory(prefix="isoflop-") as folder:
        for each in (path, path.with_name(f"{path.name}-wal")):
            if each.exists():
                shutil.copyfile(each, Path(folder) / each.name)
        with contextlib.closing(sqlite3.connect(Path(folder) / path.name)) as file:
            yield file
