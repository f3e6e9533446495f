"""Was an arm compared at its own learning rate? What the tuning trials of a sweep say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.belief.seed_noise import configuration_key, is_better
from search.propose.tuning import RATE, STEP_SCALE, choose_value
from search.record.ledger import TrialRecord
from search.record.trial import SearchArm
from search.record.trial_records import loss_of

Tuning = Literal["tuned", "transferred", "neither"]


@dataclass(frozen=True, kw_only=True)
class ArmTuning:
    """How an arm came to its learning rate, and to the start of its step scales."""

    arm: SearchArm
    tuned_at_flops: float
    """The budget of the tuning stage."""
    learning_rate_multiplier: float
    """The chosen multiple of the rule's rate."""
    at_edge: bool
    """Whether that is an end of the tried list, so that a better one may lie beyond."""
    step_scale_init: float | None
    """The chosen start of the step scales; None where none was tried beside the axis's own."""
    step_scale_at_edge: bool
    """Whether that is an end of the starts that were tried."""
    better_at_largest: float | None
    """A neighbouring multiple that did better at the largest budget, by more than a tie."""
    checked_at_flops: float | None
    """The largest budget, where the neighbours were tried; None where they were not."""


def arm_tunings(records: Sequence[TrialRecord]) -> dict[SearchArm, ArmTuning]:
    """Each arm whose tuning stage has results."""
    found: dict[SearchArm, ArmTuning] = {}
    tuning = [r for r in records if r.proposal.purpose == "tuning" and r.set_aside is None]
    for arm in sorted({record.proposal.arm for record in tuning}):
        mine = [record for record in tuning if record.proposal.arm == arm]
        smallest = min(_flops(record) for record in mine)
        stage = [record for record in mine if _flops(record) == smallest]
        first = min(stage, key=lambda record: record.number)
        rates = [r for r in stage if _but_rate(r) == _but_rate(first)]
        choice = choose_value(_losses(rates, RATE), logarithmic=True)
        if choice is None:
            continue
        starts = [r for r in stage if r.proposal.axes[RATE] == choice.value]
        start = choose_value(_losses(starts, STEP_SCALE), logarithmic=False)
        start = start if len(stage) > len(rates) else None
        checks = [record for record in mine if _flops(record) > smallest and record.is_result]
        found[arm] = ArmTuning(
            arm=arm,
            tuned_at_flops=smallest,
            learning_rate_multiplier=choice.value,
            at_edge=choice.at_edge,
            step_scale_init=start.value if start else None,
            step_scale_at_edge=start is not None and start.at_edge,
            better_at_largest=_better(checks, records),
            checked_at_flops=_flops(checks[0]) if checks else None,
        )
    return found


def tuning_of(record: TrialRecord, tunings: dict[SearchArm, ArmTuning]) -> Tuning:
    """Whether a trial's arm was tuned at this budget, elsewhere, or not at all."""
    tuning = tunings.get(record.proposal.arm)
    if tuning is None:
        return "neither"
    return "tuned" if _flops(record) == tuning.tuned_at_flops else "transferred"


def _better(checks: list[TrialRecord], records: Sequence[TrialRecord]) -> float | None:
    """The multiple of a check that beats the same shape at the tuned rate by more than a tie."""
    for check in sorted(checks, key=loss_of):
        there = [r for r in records if r.is_result and _flops(r) == _flops(check)]
        searched = [r for r in there if r.proposal.purpose in ("baseline", "search")]
        same = [r for r in searched if _but_rate(r) == _but_rate(check)]
        leader = min(same, key=loss_of, default=None)
        if leader is not None and is_better(check.proposal, leader.proposal, there):
            return float(check.proposal.axes[RATE])
    return None


def _losses(records: Sequence[TrialRecord], axis: str) -> dict[float, float | None]:
    """Loss by the value of an axis; None where a trial has no result."""
    return {
        float(r.proposal.axes[axis]): loss_of(r) if r.is_result else None
        for r in records
        if axis in r.proposal.axes
    }


def _but_rate(record: TrialRecord) -> object:
    arm, flops, axes = configuration_key(record.proposal)
    return (arm, flops, tuple(axis for axis in axes if axis[0] != RATE))


def _flops(record: TrialRecord) -> float:
    flops = record.proposal.budget.train_flops
    assert flops is not None
    return flops
