"""Is that process still there? A process is its machine, its number and when it started.

Numbers are given out again; together with the start they are not. What cannot be proved (another
machine, another container) is not claimed.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process, named so that it can be told from every other."""

    host: str
    """Name of the machine, for people."""
    machine: str
    """Host, boot and process namespace: where ``pid`` means something."""
    pid: int
    """Its number there."""
    started: str
    """When it started, as the system tells it."""

    @property
    def is_gone(self) -> bool:
        """Whether it provably runs no more; False where that cannot be known from here."""
        try:
            return self.machine == _machine() and _start_of(self.pid) != self.started
        except OSError:
            return False


def this_process() -> Process:
    """The process that asks."""
    pid = os.getpid()
    return Process(
        host=socket.gethostname(), machine=_machine(), pid=pid, started=_start_of(pid) or ""
    )


def lock_holders(path: Path) -> list[str]:
    """Other processes that hold a lock on a file or its SQLite companions, for an error message.

    Read from Linux's table of locks; empty elsewhere.
    """
    inodes = {each.stat().st_ino for each in path.parent.glob(path.name + "*")}
    found: dict[int, str] = {}
    try:
        lines = (_PROC / "locks").read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        words = line.split()
        if len(words) >= 6 and words[1] == "POSIX" and words[5].count(":") == 2:
            pid, inode = int(words[4]), int(words[5].rsplit(":", 1)[1])
            if inode in inodes and pid not in (os.getpid(), -1, 0):
                found[pid] = f"process {pid} ({_command_of(pid)})"
    return list(found.values())


def _machine() -> str:
    words = [socket.gethostname()]
    try:
        words.append((_PROC / "sys/kernel/random/boot_id").read_text().strip())
        words.append(str((_PROC / "self/ns/pid").readlink()))
    except OSError:
        pass
    return " ".join(words)


def _start_of(pid: int) -> str | None:
    """When a process of this machine started; None where there is none, or only its remains.

    Raises `OSError` where the system does not tell.
    """
    if sys.platform != "linux":
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True
        )
        return done.stdout.strip() or None
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if _is_there(pid):
            raise
        return None
    state, started = fields[0], fields[19]  # fields 3 and 22 of proc(5)
    return None if state in "ZX" else started


def _is_there(pid: int) -> bool:
    """Whether a process has that number, even one that /proc hides (another user's)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _command_of(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return "unknown"
    return b" ".join(words).decode(errors="replace").strip()[:120] or "unknown"
