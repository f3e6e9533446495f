"""How is a file written so that nobody ever sees half of it?

Beside its place under a temporary name, flushed to the disk, then renamed: several processes may
write the same file at once, and a killed one leaves at most a ``.partial`` file that nobody reads.
A lock, which ends with its process, tells those that are being written from those that were left.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

PARTIAL_SUFFIX = ".partial"
SECONDS_TO_LOCK = 60.0
"""An empty ``.partial`` file younger than this may not have been locked yet."""
CHECKPOINTS_KEPT = 2
"""Of a running trial: the newest and the one before it."""


def partial_path(path: Path) -> Path:
    """A name beside ``path`` that no other process or thread uses."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL_SUFFIX}")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A binary file, readable and writable, that takes the place of ``path`` when all went well."""
    partial = partial_path(path)
    try:
        with partial.open("w+b") as file:
            _try_lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)  # while it is locked
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path``, whole or not at all."""
    with replacing(path) as file:
        file.write(content)


def abandoned_partials(folder: Path) -> list[Path]:
    """The ``.partial`` files of a folder whose writers are gone."""
    return [path for path in sorted(folder.glob(f".*{PARTIAL_SUFFIX}")) if _is_abandoned(path)]


def _is_abandoned(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            is_old = time.time() - status.st_mtime > SECONDS_TO_LOCK
            return (status.st_size > 0 or is_old) and _try_lock(file)
    except OSError:
        return False


def _try_lock(file: IO[bytes]) -> bool:
    """Lock a file for as long as it is open; False where another has it, or locks are not had."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Make the names in a folder (a rename) survive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
