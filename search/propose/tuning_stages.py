"""Where does an arm stand in its tuning? From records: what to try next, or what was chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search.asked.settings import TuningSettings
from search.belief.rates import NOISE_NATS, RATE, believed_noises
from search.propose.rate_trials import leader, neighbours
from search.propose.tuning import STEP_SCALE, choose_start, choose_value
from search.record.ledger import TrialRecord
from search.record.trial import Proposal
from search.record.trial_records import is_pending, loss_of
from spaces.axes import AxisValue


@dataclass(frozen=True, kw_only=True)
class TunedArm:
    """What tuning chose for an arm; the defaults where it was not tuned."""

    learning_rate_multiplier: float = 1.0
    """Multiple of the rule's learning rate."""
    rate_at_edge: bool = False
    """Whether that is an end of the tried list."""
    step_scale_init: float | None = None
    """Start of the step scales; None: as the axis has it."""
    tuned: bool = False
    """Whether a stage chose this."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One look at an arm's tuning: a trial to run, a choice, or neither (results are awaited)."""

    proposal: Proposal | None = None
    tuned: TunedArm | None = None


def tune(
    settings: TuningSettings,
    at: Callable[[dict[str, AxisValue]], Proposal | None],
    records: Sequence[TrialRecord],
    *,
    step_scale_init: float | None,
    foresee: bool = False,
) -> Stage:
    """The next look at an arm's tuning; ``at`` resolves values at the arm's baseline shape, whose
    ``step_scale_init`` (None: it has none) competes with those that are tried.

    ``foresee`` does not wait for results: it goes on as if the value nearest to the default won.
    """
    by_hash = {record.config_hash: record for record in records}
    rates = settings.learning_rate_multipliers
    assumed = min(rates, key=lambda rate: abs(math.log(rate))) if foresee else None
    losses = _list(rates, lambda v: at({RATE: v}), by_hash, assumed=assumed)
    if isinstance(losses, Stage):
        return losses
    rate = choose_value(losses, logarithmic=True)
    if rate is None:
        return Stage(tuned=TunedArm())
    chosen = TunedArm(learning_rate_multiplier=rate.value, rate_at_edge=rate.at_edge, tuned=True)
    if step_scale_init is None or not settings.step_scale_inits:
        return Stage(tuned=chosen)
    point: dict[str, AxisValue] = {RATE: rate.value}
    starts = sorted({*settings.step_scale_inits, step_scale_init})
    assumed = step_scale_init if foresee else None
    tried = _list(starts, lambda v: at(point | {STEP_SCALE: v}), by_hash, assumed=assumed)
    if isinstance(tried, Stage):
        return tried
    noise = _noise_of(at(point), records)
    start = choose_start(tried, own=step_scale_init, noise_nats=noise)
    if start is None:
        return Stage(tuned=chosen)
    return Stage(
        tuned=TunedArm(
            learning_rate_multiplier=rate.value,
            rate_at_edge=rate.at_edge,
            step_scale_init=start.value,
            tuned=True,
        )
    )


def _list(
    values: Sequence[float],
    at: Callable[[float], Proposal | None],
    by_hash: Mapping[str, TrialRecord],
    *,
    assumed: float | None,
) -> dict[float, float | None] | Stage:
    """The loss of each value of a list (None: it diverged or fits nowhere), or the stage that leads
    to it; while results are awaited ``assumed`` alone, as if it had won."""
    losses: dict[float, float | None] = {}
    waits = False
    for value in values:
        proposal = at(value)
        if proposal is None:
            losses[value] = None
            continue
        record = by_hash.get(proposal.config_hash)
        if record is None:
            return Stage(proposal=proposal)
        waits |= is_pending(record)
        losses[value] = loss_of(record) if record.is_result else None
    if waits:
        return Stage() if assumed is None else {assumed: 0.0}
    return losses


def _noise_of(proposal: Proposal | None, records: Sequence[TrialRecord]) -> float:
    """Seed noise (nats) that is believed at a proposal's budget."""
    flops = None if proposal is None else proposal.budget.train_flops
    return believed_noises(records).get(flops or 0.0, NOISE_NATS)


def edge_checks(
    at: Callable[[TrialRecord, dict[str, AxisValue]], Proposal | None],
    arms: Sequence[str],
    records: Sequence[TrialRecord],
    *,
    largest: float,
    starts: Sequence[float] = (),
) -> list[Proposal]:
    """Trials of the rates, and of the ``starts`` of step scales, beside those of each arm's leader
    at the largest budget that are still to come.

    ``at`` resolves an arm's leader with other values. What is known already, whoever asked for it,
    is no longer to come.
    """
    known = {record.config_hash for record in records}
    checks: dict[str, Proposal] = {}
    for arm in arms:
        leading = leader(_searched(arm, records, largest))
        if leading is None:
            continue
        rates: list[dict[str, AxisValue]] = [{RATE: m} for m in neighbours(leading.proposal)]
        for point in rates + _beside(leading.proposal, starts):
            proposal = at(leading, point)
            if proposal is not None and proposal.config_hash not in known:
                checks[proposal.config_hash] = proposal
    return list(checks.values())


def _beside(proposal: Proposal, starts: Sequence[float]) -> list[dict[str, AxisValue]]:
    """The tried starts next to a proposal's own."""
    own = proposal.axes.get(STEP_SCALE)
    if own is None or not starts:
        return []
    below = [start for start in starts if start < float(own)]
    above = [start for start in starts if start > float(own)]
    return [{STEP_SCALE: start} for start in (*sorted(below)[-1:], *sorted(above)[:1])]


def _searched(arm: str, records: Sequence[TrialRecord], budget: float) -> list[TrialRecord]:
    """An arm's trials at a budget that were searched for, not asked for to check a rate."""
    return [
        record
        for record in records
        if record.proposal.arm == arm
        and record.proposal.budget.train_flops == budget
        and record.proposal.purpose in ("baseline", "search")
    ]
