"""Which runs come, and after how many is a question expected to be answered?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runners.plan import TO_RUN, Plan, PlannedTrial, plan
from search.asked.experiment import Experiment
from search.design.question import Question
from search.propose.proposer import run_design


@dataclass(frozen=True, kw_only=True)
class NextRuns:
    """What comes, and what it is expected to tell."""

    plan: Plan
    further: tuple[PlannedTrial, ...]
    """All trials to come, in order."""
    half_widths: list[dict[str, float]]
    """By name, now and after each of them, (n + 1,); empty where nothing is there for a law."""
    question: Question | None

    @property
    def enough_after(self) -> int | None:
        """Trials after which the question is expected to be answered; None where never."""
        if self.question is None:
            return None
        wanted, name = self.question.half_width, self.question.quantity
        widths = enumerate(self.half_widths)
        return next((number for number, each in widths if each[name] <= wanted), None)

    def flops_of(self, number: int) -> float:
        """Training FLOPs of the first so many trials."""
        return float(sum(each.record.proposal.train_flops for each in self.further[:number]))


def next_runs(experiment: Experiment, home: Path, question: Question | None) -> NextRuns:
    """All runs that an experiment still asks for, chosen for a question where there is one.

    Raises `RequestError` as `runners.plan.plan` does.
    """
    found = plan(experiment, home, question=question)
    design = run_design(experiment, found.ground, question)
    further = tuple(each for each in found.trials if each.fate in TO_RUN)
    there = [each.record for each in found.trials if each.fate not in TO_RUN]
    return NextRuns(
        plan=found,
        further=further,
        half_widths=design.foreseen(there, [each.record.proposal for each in further]),
        question=question,
    )
