"""How do trials run in this process? One at a time, and no other is needed."""

from __future__ import annotations

from collections.abc import Generator

from runners.pools.contract import (
    Assignment,
    Report,
    StopFlag,
    StopReason,
    WorkerLost,
    WorkerOptions,
    train_assignment,
)
from search.record.trial import Outcome


class InlinePool:
    """One worker: this process."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._stop = StopFlag()
        self._running: Generator[Report] | None = None
        self._attempt_id: int | None = None

    @property
    def num_workers(self) -> int:
        """Always one."""
        return 1

    def num_free(self) -> int:
        """One between attempts."""
        return 0 if self._running is not None else 1

    def assign(self, assignment: Assignment) -> None:
        """Take an attempt; it trains while reports are asked for."""
        assert self._running is None, "an inline pool runs one attempt at a time"
        self._stop = StopFlag()
        self._attempt_id = assignment.attempt_id
        self._running = train_assignment(assignment, self._options, self._stop)

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        """Train until the next report."""
        if self._running is None:
            return []
        report = next(self._running)
        if isinstance(report.content, Outcome | WorkerLost):
            self._running.close()
            self._running = self._attempt_id = None
        return [report]

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag the attempt, if it is the one that runs."""
        if attempt_id == self._attempt_id:
            self._stop.reason = reason

    def abandon(self, attempt_id: int) -> None:
        """Never asked: this worker speaks whenever it is listened to."""

    def close(self) -> None:
        """Nothing to let go of."""
        self._running = None
