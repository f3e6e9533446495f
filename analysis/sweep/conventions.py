"""Does the ranking of arms survive another way to count FLOPs?

Trials of a budget cost the same in the sweep's own convention, not in the two others. There each
arm's best configuration is moved along the arm's own line through its best configurations at
neighbouring budgets (loss over ln C) to the FLOPs that the budget's first arm took, counted so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

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
    moved = {arm: _moved(leaders, arm, target, convention, reference) for arm in there}
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


def _moved(
    leaders: Mapping[tuple[str, float], _Leader],
    arm: str,
    target: float,
    convention: str,
    reference: float | None,
) -> float | None:
    """The arm's loss at the reference FLOPs; None where nothing tells."""
    own = leaders[arm, target]
    flops = own.flops.get(convention)
    if reference is None or flops is None:
        return None
    way = math.log(reference / flops)
    if abs(way) <= SAME_COST_LOG:
        return own.loss
    slope = _slope(leaders, arm, target, convention, upward=way > 0)
    return None if slope is None else own.loss + slope * way


def _slope(
    leaders: Mapping[tuple[str, float], _Leader],
    arm: str,
    target: float,
    convention: str,
    *,
    upward: bool,
) -> float | None:
    """Nats per unit of ln C between the arm's best at this budget and at the next on that side, or
    on the other where there is none; None with one budget."""
    budgets = sorted(flops for name, flops in leaders if name == arm)
    place = budgets.index(target)
    above = budgets[place + 1 : place + 2]
    below = budgets[max(0, place - 1) : place]
    neighbours = (above or below) if upward else (below or above)
    if not neighbours:
        return None
    own, other = leaders[arm, target], leaders[arm, neighbours[0]]
    if convention not in other.flops:
        return None
    apart = math.log(other.flops[convention] / own.flops[convention])
    return (other.loss - own.loss) / apart if apart else None
