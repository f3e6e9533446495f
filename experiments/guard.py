"""How does a server leave nothing behind, however its parent ends?

Run as a program, leader of a process group of its own: it starts the command that it is given and
ends the whole group once the command ends, or once its own standard input closes, which the system
does for a parent that was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

PATIENCE_SECONDS = 5.0
"""Between the request to end and the end."""


def main() -> None:
    """Guard the command of the argument list; does not return."""
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_with_parent, args=(command,), daemon=True).start()
    code = command.wait()
    _ask_group()
    os._exit(code if code >= 0 else 128 - code)


def _end_with_parent(command: subprocess.Popen[bytes]) -> None:
    """Wait for the end of standard input, on which nothing is ever said."""
    while os.read(0, 1024):
        pass
    _ask_group()
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(PATIENCE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _ask_group() -> None:
    """Let all of the group but this process end in order."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
