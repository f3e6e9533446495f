"""How is a benchmark kept on one core? By starting again with the thread counts pinned."""

from __future__ import annotations

import os
import sys

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""They are read when numpy's libraries load, so they must be set before the process starts."""


def start_again_on_one_thread(module: str, argv: list[str]) -> None:
    """Replace this process by ``python -m module`` on one thread, unless it already is that."""
    if all(os.environ.get(variable) == "1" for variable in THREAD_VARIABLES):
        return
    environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
    os.execve(sys.executable, [sys.executable, "-m", module, *argv], environment)
