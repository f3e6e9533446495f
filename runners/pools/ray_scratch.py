"""Where does a home's Ray keep its sockets and logs? In one short path that nobody else can touch.

A socket's path has at most 103 characters (macOS; Linux 107), of which Ray's own names take 64. So
where TMPDIR is longer than that leaves (macOS's, a Slurm job's), the system's own temporary folder
is taken. The path is the same each time, so that the next driver of a home finds what a killed one
left.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from spaces.errors import RequestError

LONGEST_SOCKET = 103
"""Characters of a socket's path that every system takes."""
RAYS_OWN = len("/session_2026-11-26_01-39-23_123456_4194304/sockets/plasma_store")
"""Characters that Ray adds to its folder."""
LONGEST = LONGEST_SOCKET - RAYS_OWN
SYSTEM_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))


def ray_scratch(home: Path) -> Path:
    """The folder of a home's Ray, whose parent is there and yours alone.

    Raises `RequestError` where no temporary folder will do.
    """
    for folder in _candidates(home):
        with contextlib.suppress(OSError):
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            if _is_private(folder.parent):
                return folder
    tried = ", ".join(str(folder.parent.parent) for folder in _candidates(home))
    raise RequestError(
        f"Ray needs a folder of your own whose path has at most {LONGEST} characters, but neither "
        f"TMPDIR nor the system's temporary folders give one (tried: {tried or 'none'}); set "
        f"TMPDIR to a short folder that you may write, or add --workers.pool inline"
    )


def clear_ray_scratch(home: Path) -> None:
    """Remove what a killed driver of the home left, wherever it had its folder."""
    for folder in _candidates(home):
        if _is_private(folder.parent):
            shutil.rmtree(folder, ignore_errors=True)


def _candidates(home: Path) -> Iterator[Path]:
    """Folders that are short enough, the one that TMPDIR asks for first."""
    name = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]
    for base in dict.fromkeys((Path(tempfile.gettempdir()), *SYSTEM_FOLDERS)):
        folder = base / f"isoflop-{os.getuid()}" / name
        if len(str(folder)) <= LONGEST:
            yield folder


def _is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, that belongs to this user and lets nobody else in."""
    try:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return False
        if stat.S_IMODE(found.st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError:
        return False
    return True
