"""How far is it? A line now and then for whoever waits."""

from __future__ import annotations

import time
from collections.abc import Callable

SECONDS_BETWEEN_LINES = 2.0
"""Often enough to be seen at work, too seldom to fill a log."""


class ProgressLine:
    """Says how far a computation is, once it takes long."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._began = self._said = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """One line at most every `SECONDS_BETWEEN_LINES`, and none of short computations."""
        now = time.monotonic()
        if now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._say(f"fit: {done} of {total} {what}, {now - self._began:.0f} s")
