"""Which run of two arms at a budget tells most of their gap for what it costs?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search.asked.experiment import Experiment
from search.belief.rate_standing import expected_rate_costs
from search.design.gap_runs import SAME_BUDGET, GapBelief, GapRuns, believed, half_width, next_run
from search.design.question import GapQuestion
from search.limits.law_rows import why_no_law_uses
from search.propose.candidates import added_flops
from search.propose.cells import Cell, Ground
from search.propose.coverage import log_size
from search.record.trial import Proposal, family_of
from search.record.trial_records import TrialRecord, is_pending, loss_of
from spaces.errors import RequestError


class GapDesign:
    """Chooses the runs of two arms at one budget."""

    def __init__(self, experiment: Experiment, ground: Ground, question: GapQuestion) -> None:
        """Raises `RequestError` where the experiment lacks an arm or the budget."""
        self.experiment = experiment
        self.question = question
        self._ground = ground
        self._families = (family_of(question.one), family_of(question.other))
        there = [arm for arm in (question.one, question.other) if arm in experiment.arms]
        if len(there) < 2 or self._families[0] == self._families[1]:
            raise RequestError(
                f"{question.quantity} is that of two arms of two families, but {experiment.name} "
                f"has the arms {', '.join(experiment.arms)}; ask about two of these, or add one"
            )
        if not any(self._is_there(float(flops)) for flops in experiment.budget.train_flops):
            budgets = ", ".join(f"{flops:g}" for flops in experiment.budget.train_flops)
            raise RequestError(
                f"{question.quantity} is that at a budget, and {experiment.name} has {budgets}; "
                f"ask about one of these, or add it to budget.train_flops"
            )

    def _is_there(self, flops: float) -> bool:
        return math.isclose(flops, self.question.at_flops, rel_tol=SAME_BUDGET)

    def needs(self, cell: Cell) -> bool:
        """Either arm's at the budget."""
        return self._is_there(cell.train_flops) and family_of(cell.arm) in self._families

    def half_width(self, records: Sequence[TrialRecord], *, foresee: bool = False) -> float:
        """As the contract says."""
        done, pending = self._parted(records)
        if not done and not foresee:
            return math.inf
        runs = self._runs([each.proposal for each in (done + pending if foresee else done)])
        return half_width(runs, self._belief(records, done))

    def foreseen(
        self, records: Sequence[TrialRecord], further: Sequence[Proposal]
    ) -> list[dict[str, float]]:
        """As the contract says; where there is no result yet, a prior stands in for the curves."""
        done, _ = self._parted(records)
        belief = self._belief(records, done)
        proposals = [each.proposal for each in done]
        widths = [half_width(self._runs(proposals), belief)]
        for each in further:
            if self._is_used(each):
                proposals.append(each)
            widths.append(half_width(self._runs(proposals), belief))
        return [{self.question.quantity: width} for width in widths]

    def choose(
        self, records: Sequence[TrialRecord], offered: Sequence[Proposal]
    ) -> Proposal | None:
        """The candidate that narrows the gap's interval most for its cost."""
        done, pending = self._parted(records)
        there = [each.proposal for each in done + pending]
        offered = self._at_common_depths([each for each in offered if self._is_used(each)], there)
        if not offered:
            return None
        costs = added_flops(
            offered,
            records,
            trunk=self.experiment.budget.trunk,
            most_side_by_side=self._ground.most_side_by_side,
        )
        belief = self._belief(records, done)
        return offered[next_run(self._runs(there), self._runs(offered), costs, belief)]

    def _is_used(self, proposal: Proposal) -> bool:
        tokens = self._ground.num_train_tokens
        return (
            self._is_there(float(proposal.budget.train_flops or 0))
            and proposal.family in self._families
            and why_no_law_uses(proposal.config, num_train_tokens=tokens) is None
        )

    def _parted(
        self, records: Sequence[TrialRecord]
    ) -> tuple[list[TrialRecord], list[TrialRecord]]:
        """Results of both arms, and what runs or waits, at depths that both have."""
        used = [each for each in records if self._is_used(each.proposal)]
        used = [each for each in used if each.is_result or is_pending(each)]
        kept = self._at_common_depths([each.proposal for each in used], [])
        hashes = {each.config_hash for each in kept}
        used = [each for each in used if each.config_hash in hashes]
        return [each for each in used if each.is_result], [
            each for each in used if not each.is_result
        ]

    def _at_common_depths(
        self, proposals: Sequence[Proposal], there: Sequence[Proposal]
    ) -> list[Proposal]:
        """Those at depths that both arms have among all of these: only they are compared."""
        one, other = (
            {_depth(each) for each in (*proposals, *there) if each.family == family}
            for family in self._families
        )
        common = one & other
        return [each for each in proposals if not common or _depth(each) in common]

    def _belief(self, records: Sequence[TrialRecord], done: Sequence[TrialRecord]) -> GapBelief:
        """From losses as expected at the best rates, as a fit of the sweep has them."""
        if not done:
            return GapBelief()
        costs = expected_rate_costs(records)
        losses = np.array([loss_of(each) - (costs.get(each.config_hash) or 0.0) for each in done])
        return believed(self._runs([each.proposal for each in done]), losses)

    def _runs(self, proposals: Sequence[Proposal]) -> GapRuns:
        return GapRuns(
            places=np.array([log_size(each) for each in proposals], dtype=np.float64),
            of_other=np.array([each.family == self._families[1] for each in proposals], dtype=bool),
            orders=np.array([each.config.data_seed for each in proposals], dtype=np.int64),
        )


def _depth(proposal: Proposal) -> int:
    return proposal.config.architecture.num_layers
