"""What does it mean when SQLite refuses, and what can be done?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DatabaseError

from search.record.processes import lock_holders

LOCK_WAIT_SECONDS = 30.0


class LedgerUnavailable(Exception):
    """The ledger could not be read or written; the transaction left no trace."""


class DiskFull(LedgerUnavailable):
    """There is no room for the ledger's next write."""


class RowMissing(LedgerUnavailable):
    """What was to be changed is not there; the transaction left no trace."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the ledger holds {what}, so nothing was written; `isoflop doctor` says whether the "
            f"ledger is whole"
        )


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Errors of SQLite as what happened, to which file, and what to do."""
    try:
        yield
    except DatabaseError as error:
        cause = str(error.orig)
        if "locked" in cause or "busy" in cause:
            holders = ", ".join(lock_holders(path)) or "another process"
            raise LedgerUnavailable(
                f"{path} was locked for {LOCK_WAIT_SECONDS:g} s by {holders}; end that, then give "
                f"the same command again"
            ) from error
        if "full" in cause:
            free = shutil.disk_usage(path.parent).free
            raise DiskFull(
                f"{path} needs up to 1 MB for its next write, and {path.parent} has "
                f"{free / 1e6:.2f} MB free; make room, and the sweep goes on"
            ) from error
        raise LedgerUnavailable(
            f"{path} failed: {cause}; nothing of this step was written. Check the disk, then give "
            f"the same command again (`isoflop doctor` says whether the ledger is whole)"
        ) from error
