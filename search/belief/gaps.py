"""Is one arm better than another, or are they a tie?

An arm stands at a budget by its leader: the configuration of the lowest loss once the luck of its
seed is taken out. The gap between two leaders, paired by data order where both ran on it, is known
to within the seed noise and within what the worse one's rate may still cost. A gap no wider than
that is a tie. That leaders are the best of all that was tried is in no interval: a search twice as
long may find better ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from search.belief.rate_standing import RateStanding, rate_standings
from search.belief.seed_noise import (
    Losses,
    Noise,
    by_configuration,
    configuration_key,
    pair_noise,
)
from search.record.trial_records import TrialRecord, loss_of

LEVEL = 0.05
"""Chance to call a difference between two arms that are the same."""


NORMAL_QUANTILE = 1.96


@dataclass(frozen=True, kw_only=True)
class ArmGap:
    """How two arms compare at one budget."""

    train_flops: float
    """The budget."""
    better: str
    """The arm of the lower loss."""
    worse: str
    """The other."""
    gap_nats: float
    """How much lower, in nats per token; not negative."""
    half_width_nats: float | None
    """Of the gap's 95 % interval: seed noise, and the worse arm's rate; None without replicates."""
    rate_nats: float | None
    """What the worse arm's rate may still cost it (95 %); None where that was not examined."""
    verdict: Literal["better", "tie", "unknown"]
    """unknown: without replicates nothing says what is luck."""


@dataclass(frozen=True, kw_only=True)
class _Leader:
    """What stands for an arm at a budget."""

    losses: Losses
    """By data seed, nats."""
    standing: RateStanding


def arm_gaps(
    records: Sequence[TrialRecord], known: Sequence[RateStanding] | None = None
) -> list[ArmGap]:
    """Every arm beside the best one of its budget, by budget and then by gap.

    ``known``: the `rate_standings` of the records, where they are at hand.
    """
    counted = [record for record in records if record.set_aside is None and record.is_result]
    found = rate_standings(records) if known is None else known
    standings = {(each.arm, each.train_flops): each for each in found}
    noise = pair_noise(counted)
    gaps: list[ArmGap] = []
    for flops in sorted({flops for _, flops in standings}):
        there = [r for r in counted if r.proposal.budget.train_flops == flops]
        leaders = {
            arm: _leader(there, standing)
            for (arm, budget), standing in standings.items()
            if budget == flops
        }
        best = min(leaders, key=lambda arm: (_mean(leaders[arm].losses), arm))
        others = [
            _gap(best, arm, leaders, noise=noise, flops=flops) for arm in leaders if arm != best
        ]
        gaps += sorted(others, key=lambda gap: gap.gap_nats)
    return gaps


def _leader(there: Sequence[TrialRecord], standing: RateStanding) -> _Leader:
    leading = next(record for record in there if record.config_hash == standing.config_hash)
    runs = by_configuration(there)[configuration_key(leading.proposal)]
    return _Leader(
        losses={r.proposal.config.data_seed: loss_of(r) for r in runs}, standing=standing
    )


def _gap(
    one: str, two: str, leaders: Mapping[str, _Leader], *, noise: Noise, flops: float
) -> ArmGap:
    """The gap between two arms, signed by which is better on the seeds that both ran."""
    difference, runs = _difference(leaders[one].losses, leaders[two].losses)
    better, worse = (one, two) if difference >= 0 else (two, one)
    gap = abs(difference)
    rate = leaders[worse].standing.may_cost_nats
    half_width = _half_width(noise, runs, leaders[worse])
    tied = half_width is not None and gap <= max(half_width, rate or 0.0)
    return ArmGap(
        train_flops=flops,
        better=better,
        worse=worse,
        gap_nats=gap,
        half_width_nats=half_width,
        rate_nats=rate,
        verdict="unknown" if half_width is None else "tie" if tied else "better",
    )


def _difference(one: Losses, two: Losses) -> tuple[float, float]:
    """Loss of ``two`` less that of ``one``, and its variance in units of one run's."""
    common = sorted(set(one) & set(two))
    if common:
        return float(np.mean([two[seed] - one[seed] for seed in common])), 2 / len(common)
    return _mean(two) - _mean(one), 1 / len(one) + 1 / len(two)


def _half_width(noise: Noise, runs: float, worse: _Leader) -> float | None:
    """Of the 95 % interval of a gap: a better rate of the worse arm would narrow it, one of the
    better arm would not."""
    from scipy.stats import t

    deviation, degrees = noise
    if deviation is None:
        return None
    luck = float(t.ppf(1 - LEVEL / 2, degrees)) * deviation * math.sqrt(runs)
    return math.hypot(luck, NORMAL_QUANTILE * worse.standing.spread_nats)


def _mean(losses: Losses) -> float:
    return float(np.mean(list(losses.values())))
