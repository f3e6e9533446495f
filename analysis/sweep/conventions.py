"""Does the ranking of arms survive another way to count FLOPs?

Trials of a budget cost the same in the sweep's own convention, not in the two others. There each
arm's best configuration is moved to the FLOPs that the budget's first arm took, counted so, by the
slope of loss over ln C between best configurations of neighbouring budgets: the median over arms,
since one arm's own slope is the difference of two results, luck and all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from search.belief.rate_standing import RateStanding
from search.belief.seed_noise import by_configuration
from search.record.trial_records import TrialRecord, loss_of
from spaces.flops import CONVENTIONS, train_flops_per_sequence

SAME_COST_LOG = 0.005
"""Costs within half a percent are one: nothing is moved."""


@dataclass(frozen=True, kw_only=True)
class ConventionStanding:
    """One arm at one budget, its FLOPs counted in one convention."""

    arm: str
    target_train_flops: float
    """The budget, in the sweep's own convention."""
    convention: str
    train_flops: float | None
    """What the arm's best configuration took, counted so; None where that is not known."""
    loss_nats: float | None
    """Mean over seeds, moved to the FLOPs of the budget's first arm; None where nothing says how
    the arm's loss moves."""
    rank: int | None
    """Among the arms of the budget in this convention; None without a loss."""


@dataclass(frozen=True, kw_only=True)
class _Leader:
    """What stands for an arm at a budget."""

    loss: float
    flops: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class _Slope:
    """Nats per unit of ln C about a budget; None where no arm has a neighbouring one."""

    upward: float | None
    downward: float | None


def convention_standings(
    records: Sequence[TrialRecord], standings: Sequence[RateStanding]
) -> tuple[ConventionStanding, ...]:
    """Every arm at every budget in the three conventions, best first in each.

    ``standings`` name the arms' best configurations (`rate_standings` of the records).
    """
    leaders = _leaders(records, standings)
    found: list[ConventionStanding] = []
    for target in sorted({target for _, target in leaders}):
        for convention in CONVENTIONS:
            found += _ranked(leaders, target, convention)
    return tuple(found)


def first_arms(standings: Sequence[ConventionStanding]) -> dict[float, dict[str, str]]:
    """The first arm of each budget by convention; where its cost is known."""
    found: dict[float, dict[str, str]] = {}
    for each in standings:
        if each.rank == 1:
            found.setdefault(each.target_train_flops, {})[each.convention] = each.arm
    return found


def train_flops_by_convention(record: TrialRecord) -> dict[str, float]:
    """Training FLOPs of a trial in every convention; as recorded, of an arm not known here."""
    config = record.proposal.config
    if config.architecture.is_known:
        per_sequence = train_flops_per_sequence(config.architecture)
        return {n: float(f) for n, f in per_sequence.times(config.num_sequences).as_dict().items()}
    measured = record.outcome.train_flops if record.outcome else {}
    return {name: float(flops) for name, flops in measured.items()}


def _leaders(
    records: Sequence[TrialRecord], standings: Sequence[RateStanding]
) -> dict[tuple[str, float], _Leader]:
    named = {each.config_hash: each for each in standings}
    found = {}
    for runs in by_configuration([r for r in records if r.set_aside is None]).values():
        for run in runs:
            standing = named.get(run.config_hash)
            if standing is not None:
                found[standing.arm, standing.train_flops] = _Leader(
                    loss=fmean(map(loss_of, runs)), flops=train_flops_by_convention(run)
                )
    return found


def _ranked(
    leaders: Mapping[tuple[str, float], _Leader], target: float, convention: str
) -> list[ConventionStanding]:
    there = {arm: leader for (arm, flops), leader in leaders.items() if flops == target}
    first = min(there, key=lambda arm: (there[arm].loss, arm))
    reference = there[first].flops.get(convention)
    slope = _slope(leaders, target, convention)
    moved = {arm: _moved(own, convention, reference, slope) for arm, own in there.items()}
    order = sorted((loss, arm) for arm, loss in moved.items() if loss is not None)
    ranks = {arm: place for place, (_, arm) in enumerate(order, start=1)}
    listed = sorted(there, key=lambda arm: (ranks.get(arm, math.inf), arm))
    return [
        ConventionStanding(
            arm=arm,
            target_train_flops=target,
            convention=convention,
            train_flops=there[arm].flops.get(convention),
            loss_nats=moved[arm],
            rank=ranks.get(arm),
        )
        for arm in listed
    ]


def _moved(own: _Leader, convention: str, reference: float | None, slope: _Slope) -> float | None:
    """The loss at the reference FLOPs; None where nothing tells."""
    flops = own.flops.get(convention)
    if reference is None or flops is None:
        return None
    way = math.log(reference / flops)
    if abs(way) <= SAME_COST_LOG:
        return own.loss
    steepness = slope.upward if way > 0 else slope.downward
    return None if steepness is None else own.loss + steepness * way


def _slope(leaders: Mapping[tuple[str, float], _Leader], target: float, convention: str) -> _Slope:
    """How loss falls about a budget, by the arms that have its neighbour too."""
    budgets = sorted({flops for _, flops in leaders})
    place = budgets.index(target)
    above = _median_slope(leaders, budgets[place : place + 2], convention)
    below = _median_slope(leaders, budgets[max(0, place - 1) : place + 1], convention)
    return _Slope(
        upward=below if above is None else above, downward=above if below is None else below
    )


def _median_slope(
    leaders: Mapping[tuple[str, float], _Leader], ends: Sequence[float], convention: str
) -> float | None:
    """Nats per unit of ln C from one budget to the next: the median over arms."""
    if len(ends) < 2:
        return None
    slopes = []
    for arm in {name for name, _ in leaders}:
        pair = [leaders[arm, flops] for flops in ends if (arm, flops) in leaders]
        costs = [each.flops[convention] for each in pair if convention in each.flops]
        if len(costs) == 2 and costs[0] != costs[1]:
            slopes.append((pair[1].loss - pair[0].loss) / math.log(costs[1] / costs[0]))
    return median(slopes) if slopes else None
