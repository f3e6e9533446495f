"""Where can a process die so that it hurts? Named points around everything that is committed.

``ISOFLOP_CRASH_AT=NAME`` (or ``NAME:N`` for the N-th time) ends the process there at once, as
SIGKILL would; the fault suite visits every one. Without the variable a point costs a look-up.
"""

from __future__ import annotations

import os
from collections import Counter

VARIABLE = "ISOFLOP_CRASH_AT"
EXIT_CODE = 137

CRASH_POINTS = (
    "before ledger sweep",
    "after ledger sweep",
    "before ledger trial",
    "after ledger trial",
    "before ledger attempt",
    "after ledger attempt",
    "before ledger progress",
    "after ledger progress",
    "before ledger outcome",
    "after ledger outcome",
    "before ledger projection",
    "after ledger projection",
    "before checkpoint files",
    "between checkpoint files",
    "before checkpoint rename",
    "after checkpoint rename",
    "after checkpoint proof",
    "before mlflow run",
    "after mlflow run",
    "before mlflow batch",
    "after mlflow batch",
    "before mlflow end",
    "after mlflow end",
)

_visits: Counter[str] = Counter()


def reach(point: str) -> None:
    """Die here if the environment says so."""
    assert point in CRASH_POINTS, point
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    name, _, count = wanted.partition(":")
    if name == point:
        _visits[name] += 1
        if _visits[name] == int(count or 1):
            os._exit(EXIT_CODE)
