"""Which rate next, and where? Rates are tried where the best one is uncertain and that may cost.

An arm's leader at a budget is the shape that would be recommended there. What its rate is expected
to cost says whether another rate is worth a run, whatever the budget; which one is the rate after
whose run the least is left. A leader that was trained at a rate no longer believed good is trained
at the one that is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from search.belief.rates import RateModel, log_multiplier, multiplier_of
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord, is_pending, loss_of

WORTH = 0.5
"""Seed noises that a rate must be expected to cost before another is tried."""

FIRST_RATE_TRIALS, RATE_SHARE = 2, 1 / 3
"""Rate trials of an arm and budget at most: so many, and a third of its other trials."""

STEPS = tuple(math.log(2) * step / 2 for step in (-4, -3, -2, -1, 1, 2, 3, 4))
"""Rates that are weighed, from the believed best one: half octaves, in ln."""


def leader(mine: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best result of one arm and budget; what waits or runs stands in where there is none."""
    own = [record for record in mine if record.proposal.purpose != "replicate"]
    results = sorted((r for r in own if r.is_result), key=lambda r: (loss_of(r), r.number))
    return next(iter(results or filter(is_pending, own)), None)


def next_rate_trial(
    model: RateModel, mine: Sequence[TrialRecord], at: Callable[[Proposal, float], Proposal | None]
) -> Proposal | None:
    """The rate to try next on the leader of one arm and budget (``mine`` are its trials); None
    where none is worth a run.

    ``at`` resolves a shape at a multiple of the rule's rate; None where it is known or none fits.
    """
    tried = sum(record.proposal.purpose == "tuning" for record in mine)
    leading = leader(mine)
    if leading is None or tried >= FIRST_RATE_TRIALS + RATE_SHARE * (len(mine) - tried):
        return None
    proposal = leading.proposal
    best = model.at(proposal)
    cost, worth = best.expected_cost(best.chosen), WORTH * best.noise_nats
    if best.expected_cost(log_multiplier(proposal)) - cost > worth:
        again = at(proposal, best.multiplier)
        if again is not None:
            return again
    if cost <= worth:
        return None
    around = best.on_grid(best.optimum)
    weighed = [u for step in STEPS if abs((u := best.on_grid(around + step)) - around) > 1e-9]
    for u in sorted(set(weighed), key=lambda u: (model.cost_after(proposal, u), abs(u))):
        if model.cost_after(proposal, u) > 0.9 * cost:
            return None
        found = at(proposal, multiplier_of(u))
        if found is not None:
            return found
    return None


def neighbours(proposal: Proposal) -> tuple[float, float]:
    """The multiples of the rule's rate an octave below and above a proposal's own."""
    u = log_multiplier(proposal)
    return multiplier_of(u - math.log(2)), multiplier_of(u + math.log(2))
