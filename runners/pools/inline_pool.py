"""How do trials run in this process? In turns, and no other process is needed."""

from __future__ import annotations

from collections.abc import Iterator

from runners.pools.contract import (
    Assignment,
    Report,
    WorkerLost,
    WorkerOptions,
    require_cores,
    require_one_device,
)
from runners.pools.open_attempts import OpenAttempts
from runners.pools.pack import Pack
from runners.trial.training import StopReason
from search.record.trial import Outcome


class InlinePool:
    """One worker: this process."""

    def __init__(self, options: WorkerOptions) -> None:
        """Raises `RequestError` where this machine lacks the cores."""
        require_cores(1, options.num_threads)
        self._pack = Pack(options)
        self._open = OpenAttempts.of(options)
        self._running: Iterator[Report] = iter(())

    @property
    def num_workers(self) -> int:
        """Always one."""
        return 1

    @property
    def outage(self) -> str | None:
        """Never: its worker is this process."""
        return None

    def has_place(self, assignment: Assignment | None = None) -> bool:
        """Whether this process takes one more."""
        return self._open.has_place(assignment)

    def assign(self, assignment: Assignment) -> None:
        """Take an assignment; it trains while reports are asked for."""
        require_one_device(assignment)
        if not self._open:
            self._running = self._pack.reports()
        self._open.add(assignment)
        self._pack.add(assignment)

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        """Train until the next report."""
        if not self._open:
            return []
        report = next(self._running)
        if isinstance(report.content, Outcome | WorkerLost):
            self._open.end(report.attempt_id)
        return [report]

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag the attempt."""
        self._pack.stop(attempt_id, reason)

    def abandon(self, attempt_id: int) -> None:
        """Never asked: this worker speaks whenever it is listened to."""

    def close(self) -> None:
        """Nothing to let go of."""
        self._running = iter(())
