"""Which run of a sweep tells most of its law for what it costs?

Candidates are shapes of every arm and budget from a quarter to four times the expected best size,
with every value of the other axes in turn, and repeats of what was tried in further data orders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search.asked.experiment import Experiment
from search.design.information import next_run, slope_of, slope_of_exponent
from search.design.law_model import FloatArray, LawModel
from search.design.question import ACROSS_ARMS, LawQuestion
from search.design.sweep_runs import Belief, belief, law_runs, prior_design
from search.limits.law_rows import why_no_law_uses
from search.propose.candidates import added_flops
from search.propose.cells import Cell, Ground
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord
from spaces.arms.contract import find_arm
from spaces.errors import RequestError

OF_ARMS = ("alpha", "beta")
"""What a law of one family tells; one across arms also tells `ACROSS_ARMS`."""


class LawDesign:
    """Chooses the runs of one experiment for one question, or for all shapes of its law."""

    def __init__(
        self, experiment: Experiment, ground: Ground, question: LawQuestion | None = None
    ) -> None:
        """Raises `RequestError` where the experiment's law has no such quantity."""
        self.experiment = experiment
        self.question = question
        self.across_arms = len({find_arm(arm).family for arm in experiment.arms}) > 1
        self._ground = ground
        if question is not None and question.name in ACROSS_ARMS and not self.across_arms:
            raise RequestError(
                f"{question.name} is told by a law across arms, but {experiment.name} has one "
                f"family: {', '.join(experiment.arms)}; ask about alpha, beta, a or loss@FLOPs, or "
                f"add an arm"
            )

    def needs(self, _cell: Cell) -> bool:
        """Every cell of the experiment tells of its law."""
        return True

    def belief(self, records: Sequence[TrialRecord]) -> Belief | None:
        """What the experiment's law is believed to be after these records."""
        return belief(
            records,
            across_arms=self.across_arms,
            num_train_tokens=self._ground.num_train_tokens,
        )

    def half_width(self, records: Sequence[TrialRecord], *, foresee: bool = False) -> float:
        """As the contract says."""
        found = self.belief(records)
        if self.question is None or found is None or not (foresee or len(found.results)):
            return math.inf
        design = found.after_all() if foresee else found.after_results()
        return design.half_width(self.question.slope(found.model))

    def foreseen(
        self, records: Sequence[TrialRecord], further: Sequence[Proposal]
    ) -> list[dict[str, float]]:
        """Expected half-widths, by name, now and after each of further trials, (n + 1,).

        Of the question; without one of every shape of the law and of a. Empty where no trial is
        one that a law uses. Where there is no result yet, a prior stands in for the law.
        """
        used = [
            law_runs([each], across_arms=self.across_arms) if self._is_used(each) else None
            for each in further
        ]
        found = self.belief(records)
        some = [run for run in used if run is not None]
        if found is None and not some:
            return []
        design = found.after_results() if found is not None else prior_design(some)
        slopes = self._named_slopes(design.model)
        widths = [{name: design.half_width(slope) for name, slope in slopes.items()}]
        for run in used:
            if run is not None:
                design = replace(design, runs=design.runs.joined(run))
            widths.append({name: design.half_width(slope) for name, slope in slopes.items()})
        return widths

    def _is_used(self, proposal: Proposal) -> bool:
        tokens = self._ground.num_train_tokens
        return why_no_law_uses(proposal.config, num_train_tokens=tokens) is None

    def _named_slopes(self, model: LawModel) -> dict[str, FloatArray]:
        if self.question is not None:
            return {self.question.quantity: self.question.slope(model)}
        names = OF_ARMS + (ACROSS_ARMS if self.across_arms else ())
        return {name: slope_of(name) for name in names} | {"a": slope_of_exponent(model)}

    def choose(
        self, records: Sequence[TrialRecord], offered: Sequence[Proposal]
    ) -> Proposal | None:
        """The candidate that tells most for its cost; None where a law uses none."""
        offered = [each for each in offered if self._is_used(each)]
        if not offered:
            return None
        costs = added_flops(
            offered,
            records,
            trunk=self.experiment.budget.trunk,
            most_side_by_side=self._ground.most_side_by_side,
        )
        candidates = law_runs(offered, across_arms=self.across_arms, costs=costs)
        found = self.belief(records)
        design = found.after_all() if found is not None else prior_design([candidates])
        slopes = self._slopes(design.model)
        return offered[next_run(design, candidates, slopes, number=len(design.runs))]

    def _slopes(self, model: LawModel) -> FloatArray:
        """What is wanted, (Q, P): the question, else every shape relative to its value."""
        if self.question is not None:
            return self.question.slope(model)[None] / abs(self.question.value(model))
        names = OF_ARMS + (ACROSS_ARMS if self.across_arms else ())
        return np.stack([slope_of(name) / model.values[name] for name in names])
