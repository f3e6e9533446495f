"""What is a worker on, and does it take one more? What a pool knows of each of its workers."""

from __future__ import annotations

from runners.pools.contract import Assignment, WorkerOptions
from search.limits.packs import FEWEST_STEPS, may_join


class OpenAttempts:
    """A worker's attempts that have not ended."""

    def __init__(self, *, most: int, fewest_steps: int = 0) -> None:
        """``most``: trials that the worker trains side by side, of ``fewest_steps`` or more."""
        self._most = most
        self._fewest_steps = fewest_steps
        self._open: dict[int, Assignment] = {}

    @classmethod
    def of(cls, options: WorkerOptions) -> OpenAttempts:
        """Those of a new worker: on a CPU, where nothing is captured, lengths do not matter."""
        fewest = FEWEST_STEPS if options.device == "cuda" else 0
        return cls(most=options.pack, fewest_steps=fewest)

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, attempt_id: int) -> bool:
        return attempt_id in self._open

    @property
    def ids(self) -> list[int]:
        """Of all of them, oldest first."""
        return list(self._open)

    def has_place(self, assignment: Assignment | None = None) -> bool:
        """Whether the worker takes that attempt; left out: one like the newest it is on."""
        if not self._open:
            return True
        others = list(self._open.values())
        next_one = assignment or others[-1]
        if next_one.is_alone or any(each.is_alone for each in others):
            return False
        if next_one.config.num_steps < self._fewest_steps:
            return False
        return may_join(next_one.config, [each.config for each in others], most=self._most)

    def add(self, assignment: Assignment) -> None:
        """One more."""
        self._open[assignment.attempt_id] = assignment

    def end(self, attempt_id: int) -> None:
        """One less."""
        del self._open[attempt_id]
