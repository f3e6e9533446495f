"""At which rate does an arm stand at a budget, and how many nats may that still cost it?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from search.belief.arm_models import denoised_losses
from search.belief.rates import (
    RATE,
    BestRate,
    RateModels,
    base_key,
    believed_noises,
    log_multiplier,
)
from search.belief.seed_noise import Key, by_configuration, configuration_key
from search.record.trial_records import TrialRecord

Examined = Literal["here", "elsewhere", "nowhere"]


@dataclass(frozen=True, kw_only=True)
class RateStanding:
    """The rate of an arm's best configuration at one budget."""

    arm: str
    train_flops: float
    """The budget."""
    config_hash: str
    """The configuration, on its first seeds: the arm's best there, see `established`."""
    multiplier: float
    """Its rate, over the rule's."""
    best_multiplier: float
    """The rate believed best for it, over the rule's."""
    interval: tuple[float, float]
    """Between which the best lies with 95 % probability."""
    may_cost_nats: float | None
    """What its rate loses to the best one at most, with 95 % probability; None where the family was
    trained at several rates nowhere, so that only the prior would speak."""
    spread_nats: float
    """Standard deviation of what its rate loses to the best one; 0 where that is not examined."""
    examined: Examined
    """Where several rates were tried on one configuration: at this budget, at others, or not."""


def rate_standings(
    records: Sequence[TrialRecord], denoised: Mapping[str, float] | None = None
) -> list[RateStanding]:
    """Every arm at every budget where it has a result, by arm and budget.

    ``denoised``: the records' `denoised_losses`, where they are at hand.
    """
    counted = [record for record in records if record.set_aside is None]
    results = [record for record in counted if record.is_result]
    models, best = RateModels(), established(counted, denoised)
    where = examined_budgets(results)
    standings = []
    for (arm, flops), record in sorted(best.items()):
        belief = models.of(arm, counted).at(record.proposal)
        budgets = where.get(record.proposal.family, set())
        standings.append(
            RateStanding(
                arm=arm,
                train_flops=flops,
                config_hash=record.config_hash,
                multiplier=float(record.proposal.axes[RATE]),
                best_multiplier=belief.best_multiplier,
                interval=belief.interval(),
                may_cost_nats=belief.may_cost(log_multiplier(record.proposal)) if budgets else None,
                spread_nats=belief.cost_spread(log_multiplier(record.proposal)) if budgets else 0.0,
                examined="here" if flops in budgets else "elsewhere" if budgets else "nowhere",
            )
        )
    return standings


def established(
    records: Sequence[TrialRecord], denoised: Mapping[str, float] | None = None
) -> dict[tuple[str, float], TrialRecord]:
    """The best configuration of each arm at each budget, by its first run.

    Lowest is what is left of the loss once luck is taken out, plus the standard error of its seeds:
    of two that are as low, the one that was repeated is better known.
    """
    losses = denoised_losses(records) if denoised is None else denoised
    noises = believed_noises(records)
    ranked = []
    arms: dict[str, list[TrialRecord]] = {}
    for record in records:
        arms.setdefault(record.proposal.arm, []).append(record)
    for group in (group for mine in arms.values() for group in by_configuration(mine).values()):
        first = min(group, key=lambda record: record.number)
        mean = fmean(losses[record.config_hash] for record in group)
        error = noises[_flops(first)] / math.sqrt(len(group))
        ranked.append((mean + error, first.number, first))
    best: dict[tuple[str, float], TrialRecord] = {}
    for *_, first in sorted(ranked, key=lambda each: each[:2]):
        best.setdefault((first.proposal.arm, _flops(first)), first)
    return best


def expected_rate_costs(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Configuration hash of each result to the nats that its rate is expected to lose to the best
    one of its shape; results of families whose rates were not examined are absent."""
    counted = [record for record in records if record.set_aside is None]
    results, models = [record for record in counted if record.is_result], RateModels()
    families = examined_budgets(results)
    examined = [record for record in results if record.proposal.family in families]
    of_arms = {arm: models.of(arm, counted) for arm in {each.proposal.arm for each in examined}}
    beliefs: dict[Key, BestRate] = {}  # one for all seeds and rates of a configuration
    costs = {}
    for record in examined:
        key = configuration_key(record.proposal, any_rate=True)
        if key not in beliefs:
            beliefs[key] = of_arms[record.proposal.arm].at(record.proposal)
        belief, u = beliefs[key], log_multiplier(record.proposal)
        costs[record.config_hash] = belief.expected_cost(u) - belief.expected_cost(belief.optimum)
    return costs


def examined_budgets(results: Sequence[TrialRecord]) -> dict[str, set[float]]:
    """By family, the budgets at which a configuration has results at several rates."""
    rates: dict[tuple[str, float, object], set[float]] = {}
    for record in results:
        proposal = record.proposal
        key = (proposal.family, _flops(record), base_key(proposal))
        rates.setdefault(key, set()).add(proposal.config.training.learning_rate)
    found: dict[str, set[float]] = {}
    for (family, flops, _), tried in rates.items():
        if len(tried) > 1:
            found.setdefault(family, set()).add(flops)
    return found


def _flops(record: TrialRecord) -> float:
    flops = record.proposal.budget.train_flops
    assert flops is not None
    return flops
