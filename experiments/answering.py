"""``isoflop sweep --until``: train until a law answers, not until a design expects it to.

The proposer ends a round where it expects the interval to be narrow enough; then the sweep is
fitted as ``isoflop fit`` does. Where the fit is less sure, the next round asks for more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl

from analysis.points.sweep_frame import sweep_frame
from analysis.sweep.answer import Answer, answer
from analysis.sweep.sweep_fit import fit_sweep
from runners.driver import SweepSummary
from search.asked.experiment import Experiment
from search.design.question import Question
from search.propose.cells import Ground
from search.propose.proposer import SweepProposer
from spaces.errors import RequestError

MakeProposer = Callable[[Experiment, Ground], SweepProposer]

MOST_ROUNDS = 12
LEAST_STEP, LARGEST_STEP = 0.5, 0.95
"""By which a round tightens what the proposer aims at, at least and at most."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """A round of training, and what the law says after it."""

    round: int
    summary: SweepSummary
    answer: Answer | None
    """None where it was stopped before any trial had a result."""


def answers(
    question: Question,
    *,
    train: Callable[[MakeProposer], SweepSummary],
    results: Callable[[], pl.DataFrame | None],
) -> Iterator[Round]:
    """Rounds until the question is answered, a cap is reached, or nothing more can be trained.

    ``train`` runs an experiment with a proposer to its end; ``results`` is the sweep's frame, None
    where no trial has a result. Raises `RequestError` where no trial
    has a loss, or the experiment's law has no such quantity.
    """
    aim = question
    for number in range(1, MOST_ROUNDS + 1):
        summary = train(_proposer_for(aim))
        frame = results()
        found = None if frame is None else answer(question, fit_sweep(frame))
        yield Round(round=number, summary=summary, answer=found)
        is_expected = summary.stopped_by is not None and str(aim) in summary.stopped_by
        if found is None or found.is_enough or not is_expected:
            return
        step = min(LARGEST_STEP, max(LEAST_STEP, question.half_width / found.half_width))
        aim = replace(aim, half_width=aim.half_width * step)


def results_in(home: Path, sweep: str) -> Callable[[], pl.DataFrame | None]:
    """The reader of a sweep's frame in a home; it gives None where no trial has a result."""
    return partial(_frame, sweep, home)


def _frame(sweep: str, home: Path) -> pl.DataFrame | None:
    try:
        return sweep_frame(sweep, home)
    except RequestError:
        return None


def _proposer_for(question: Question) -> MakeProposer:
    def make(experiment: Experiment, ground: Ground) -> SweepProposer:
        return SweepProposer(experiment, ground, question=question)

    return make
