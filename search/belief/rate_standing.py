"""At which rate does an arm stand at a budget, and how many nats may that still cost it?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.belief.arm_models import denoised_losses
from search.belief.rates import RATE, RateModels, base_key, log_multiplier
from search.record.trial_records import TrialRecord

Examined = Literal["here", "elsewhere", "nowhere"]


@dataclass(frozen=True, kw_only=True)
class RateStanding:
    """The rate of an arm's best configuration at one budget."""

    arm: str
    train_flops: float
    """The budget."""
    config_hash: str
    """The configuration: the arm's lowest loss there once the luck of its seed is taken out."""
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


def rate_standings(records: Sequence[TrialRecord]) -> list[RateStanding]:
    """Every arm at every budget where it has a result, by arm and budget."""
    counted = [record for record in records if record.set_aside is None]
    results = [record for record in counted if record.is_result]
    losses, models = denoised_losses(counted), RateModels()
    best: dict[tuple[str, float], TrialRecord] = {}
    for record in sorted(results, key=lambda r: (losses[r.config_hash], r.number)):
        best.setdefault((record.proposal.arm, _flops(record)), record)
    where = _examined(results)
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


def _examined(results: Sequence[TrialRecord]) -> dict[str, set[float]]:
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
