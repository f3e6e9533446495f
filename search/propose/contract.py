"""What does a driver know of a search? Which trials are next, which are given up, which belong.

A proposer is a pure function of its experiment and of the records so far: the driver asks, writes
down, and asks again. `search.propose.proposer.SweepProposer` is the one that ships.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from search.design.question import Question
from search.propose.cells import Cell
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord


@dataclass(frozen=True)
class Proposed:
    """Trials to run next, in order; several where they may train together."""

    proposals: tuple[Proposal, ...]


@dataclass(frozen=True)
class Waiting:
    """Nothing until some of the trials that run or wait have ended: their results decide."""


@dataclass(frozen=True)
class Done:
    """Nothing more, now or later."""

    why: str | None = None
    """Why, where that is before all trials that were asked for."""


@dataclass(frozen=True)
class Capped:
    """Nothing more within the experiment's caps."""

    why: str
    """The cap, the values, and what the next trial would cost."""


Next: TypeAlias = Proposed | Waiting | Done | Capped


def first_of(answer: Next) -> Proposal | None:
    """The first trial of an answer; None where there is none now."""
    return answer.proposals[0] if isinstance(answer, Proposed) else None


class Proposer(Protocol):
    """Decides what a sweep trains."""

    def next(
        self, records: Sequence[TrialRecord], *, at_most: int = 1, foresee: bool = False
    ) -> Next:
        """What comes after these records, at most so many trials at once.

        ``foresee`` does not wait: it proposes as if what is open turned out as the defaults.
        """

    def depends_on_results(self, proposal: Proposal, records: Sequence[TrialRecord]) -> bool:
        """Whether results still to come would change what is proposed after these records."""

    def why_set_aside(self, record: TrialRecord) -> str | None:
        """Why a recorded trial is no part of the experiment as it is now; None if it is."""

    def why_prune(self, running: TrialRecord, records: Sequence[TrialRecord]) -> str | None:
        """Why a running trial should end now; None where it should go on."""

    def may_prune(self, proposal: Proposal) -> bool:
        """Whether a trial may be ended early, so that another's early end will do for it."""

    def why_not_start(self, proposal: Proposal, records: Sequence[TrialRecord]) -> str | None:
        """The cap that keeps a trial that waits from starting, given what runs; None if none."""

    def why_stop(self, records: Sequence[TrialRecord], *, now: float) -> str | None:
        """The cap that is reached by what is spent at a time (Unix seconds); None if none."""


class RunDesign(Protocol):
    """Chooses runs for what they tell of a question."""

    @property
    def question(self) -> Question | None:
        """What is asked; None where every shape of the law is."""

    def needs(self, cell: Cell) -> bool:
        """Whether a run of this arm at this budget can tell of the question."""

    def half_width(self, records: Sequence[TrialRecord], *, foresee: bool = False) -> float:
        """Of the question's 95 % interval, expected after these results; infinite before any, and
        without a question.

        ``foresee``: after what runs or waits as well.
        """

    def foreseen(
        self, records: Sequence[TrialRecord], further: Sequence[Proposal]
    ) -> list[dict[str, float]]:
        """Expected half-widths, by name, now and after each of further trials, (n + 1,); empty
        where none tells anything."""

    def choose(
        self, records: Sequence[TrialRecord], offered: Sequence[Proposal]
    ) -> Proposal | None:
        """The candidate that tells most for its cost; None where none tells anything."""
