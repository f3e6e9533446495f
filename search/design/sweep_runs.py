"""What do a sweep's records say of its law? Trials as runs of a law, and the belief after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.belief.rate_standing import expected_rate_costs
from search.design.information import Design, Noise
from search.design.law_model import (
    PARAMETERS,
    LawModel,
    LawRuns,
    fitted_model,
    prior_model,
    relative_scatter,
)
from search.limits.law_rows import why_no_law_uses
from search.record.numbers import configuration_numbers
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord, is_pending, loss_of

PARTS = (("parameters_shared", "parameters_head"), ("parameters_deep",), ("parameters_wide",))
"""What a trial's row calls the parts that the law across arms tells apart."""

FEWEST_RESULTS = 4
"""Beyond the parameters, from which on residuals tell the noise."""


def law_runs(
    proposals: Sequence[Proposal], *, across_arms: bool, costs: Sequence[float] | None = None
) -> LawRuns:
    """Trials as a law reads them; across arms their parts count by themselves, the head as used
    once and the input embedding not at all; else their sum.

    ``costs``: of each, (n,); left out: training FLOPs.
    """
    rows = [configuration_numbers(proposal) for proposal in proposals]
    parts = [np.array([sum(float(row[name]) for name in names) for row in rows]) for names in PARTS]
    loops = np.array([float(row.get("num_loops") or 1) for row in rows])
    if not across_arms:
        nothing = np.zeros(len(rows))
        parts = [np.array([float(row["parameters"]) for row in rows]), nothing, nothing]
        loops = np.ones(len(rows))
    flops = [float(proposal.train_flops) for proposal in proposals]
    return LawRuns(
        params_once=parts[0],
        params_deep=parts[1],
        params_wide=parts[2],
        num_loops=loops,
        tokens=np.array([float(proposal.config.tokens) for proposal in proposals]),
        costs=np.array(flops if costs is None else costs),
        orders=tuple(
            (float(each.budget.train_flops or 0), each.config.data_seed) for each in proposals
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Belief:
    """What is believed of a sweep's law."""

    model: LawModel
    noise: Noise
    results: LawRuns
    """Results that the law uses."""
    pending: LawRuns
    """Trials that run or wait, and that it will use."""

    def after_results(self) -> Design:
        """What is known now."""
        return Design(model=self.model, runs=self.results, noise=self.noise)

    def after_all(self) -> Design:
        """What will be known once all that runs or waits has ended."""
        runs = self.results.joined(self.pending) if len(self.pending) else self.results
        return Design(model=self.model, runs=runs, noise=self.noise)


def belief(
    records: Sequence[TrialRecord], *, across_arms: bool, num_train_tokens: int | None
) -> Belief | None:
    """The law that results are most likely to follow; None without any trial that a law uses.

    Losses are those expected at the best rates, as a fit of the sweep has them.
    """
    used = [
        record
        for record in records
        if why_no_law_uses(record.proposal.config, num_train_tokens=num_train_tokens) is None
    ]
    done = [record for record in used if record.is_result]
    pending = [record for record in used if is_pending(record)]
    if not done and not pending:
        return None
    costs = expected_rate_costs(records)
    losses = np.array([loss_of(each) - (costs.get(each.config_hash) or 0.0) for each in done])
    runs = law_runs([each.proposal for each in done], across_arms=across_arms)
    waiting = law_runs([each.proposal for each in pending], across_arms=across_arms)
    noise = Noise()
    if len(done) < 2:
        model = prior_model(runs.joined(waiting))
    else:
        model = fitted_model(runs, losses, noise=noise.own)
        if len(done) >= len(PARAMETERS) + FEWEST_RESULTS:
            noise = Noise(own=relative_scatter(model, runs, losses))
            model = fitted_model(runs, losses, noise=noise.own, start=model)
    return Belief(model=model, noise=noise, results=runs, pending=waiting)


def prior_design(runs: Sequence[LawRuns]) -> Design:
    """Nothing known, under the prior centred on runs to come."""
    whole = runs[0]
    for run in runs[1:]:
        whole = whole.joined(run)
    return Design(model=prior_model(whole), runs=whole.taken([]))
