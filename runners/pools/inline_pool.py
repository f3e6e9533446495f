"""How do trials run in this process? One assignment at a time, and no other process is needed."""

from __future__ import annotations

from collections.abc import Generator

from runners.pools.contract import (
    Assignment,
    Report,
    StopFlags,
    StopReason,
    WorkerLost,
    WorkerOptions,
    require_cores,
    require_one_device,
    train_assignment,
)
from search.record.trial import Outcome


class InlinePool:
    """One worker: this process."""

    def __init__(self, options: WorkerOptions) -> None:
        """Raises `RequestError` where this machine lacks the cores."""
        require_cores(1, options.num_threads)
        self._options = options
        self._stop = StopFlags()
        self._running: Generator[Report] | None = None
        self._open: set[int] = set()

    @property
    def num_workers(self) -> int:
        """Always one."""
        return 1

    def num_free(self) -> int:
        """One between assignments."""
        return 0 if self._running is not None else 1

    def assign(self, assignment: Assignment) -> None:
        """Take an assignment; it trains while reports are asked for."""
        assert self._running is None, "an inline pool runs one assignment at a time"
        require_one_device(assignment)
        self._stop = StopFlags()
        self._open = {attempt.attempt_id for attempt in assignment.attempts}
        self._running = train_assignment(assignment, self._options, self._stop)

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        """Train until the next report."""
        if self._running is None:
            return []
        report = next(self._running)
        if isinstance(report.content, Outcome | WorkerLost):
            self._open.discard(report.attempt_id)
            if not self._open:
                self._running.close()
                self._running = None
        return [report]

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag the attempt, if it is of the assignment that runs."""
        if attempt_id in self._open:
            self._stop.set(attempt_id, reason)

    def abandon(self, attempt_id: int) -> None:
        """Never asked: this worker speaks whenever it is listened to."""

    def close(self) -> None:
        """Nothing to let go of."""
        self._running = None
