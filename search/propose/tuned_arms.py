"""Was an arm compared at its own learning rate? What the tuning trials of a sweep say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.belief.rates import NOISE_NATS, RATE, believed_noises
from search.belief.seed_noise import Key, configuration_key, is_better
from search.propose.tuning import STEP_SCALE, Choice, choose_start, choose_value
from search.record.ledger import TrialRecord
from search.record.trial_records import loss_of
from spaces.axes import AxisValue

Tuning = Literal["tuned", "transferred", "neither"]
Side = Literal["lower", "higher"]


@dataclass(frozen=True, kw_only=True)
class ArmTuning:
    """How an arm came to its learning rate, and to the start of its step scales."""

    arm: str
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
    start_checked: bool
    """Whether another start was tried on its best shape at the largest budget."""
    better_start_at_largest: float | None
    """A start that did better there, by more than a tie."""
    better_at_largest: float | None
    """A neighbouring multiple that did better at the largest budget, by more than a tie."""
    checked_at_flops: float | None
    """The largest budget, where neighbours were tried; None where none was."""
    checked_sides: tuple[Side, ...]
    """On which sides of the arm's rate they were, whichever arm of its family asked for them."""


def arm_tunings(records: Sequence[TrialRecord]) -> dict[str, ArmTuning]:
    """Each arm whose tuning stage has results."""
    found: dict[str, ArmTuning] = {}
    noises = believed_noises(records)
    counted = [record for record in records if record.set_aside is None]
    tuning = [record for record in counted if record.proposal.purpose == "tuning"]
    for arm in sorted({record.proposal.arm for record in tuning}):
        mine = [record for record in tuning if record.proposal.arm == arm]
        smallest = min(map(_flops, mine))
        stage = [record for record in mine if _flops(record) == smallest]
        first = min(stage, key=lambda record: record.number)
        rates = _at_any_rate(first, counted)
        choice = choose_value(_losses(rates, RATE), logarithmic=True)
        if choice is None:
            continue
        start = _start(first, stage, choice.value, noise_nats=noises.get(smallest, NOISE_NATS))
        check = _check(arm, counted, above=smallest)
        other_start = _check_of_start(arm, counted, above=smallest)
        found[arm] = ArmTuning(
            arm=arm,
            tuned_at_flops=smallest,
            learning_rate_multiplier=choice.value,
            at_edge=choice.at_edge,
            step_scale_init=start.value if start else None,
            step_scale_at_edge=start is not None and start.at_edge,
            start_checked=other_start is not None,
            better_start_at_largest=other_start.better if other_start else None,
            better_at_largest=check.better,
            checked_at_flops=check.train_flops,
            checked_sides=check.sides,
        )
    return found


def _start(
    first: TrialRecord, stage: Sequence[TrialRecord], rate: float, *, noise_nats: float
) -> Choice | None:
    """The start of the step scales that the stage chose; None where it tried none."""
    shape = _without(first, RATE, STEP_SCALE)
    tried = [
        record
        for record in stage
        if record.proposal.axes[RATE] == rate and _without(record, RATE, STEP_SCALE) == shape
    ]
    own = first.proposal.axes.get(STEP_SCALE)
    if own is None or len({record.proposal.axes[STEP_SCALE] for record in tried}) < 2:
        return None
    return choose_start(_losses(tried, STEP_SCALE), own=float(own), noise_nats=noise_nats)


@dataclass(frozen=True, kw_only=True)
class _StartCheck:
    """What other starts did at the largest budget."""

    better: float | None


def _check_of_start(
    arm: str, records: Sequence[TrialRecord], *, above: float
) -> _StartCheck | None:
    """The check of the start of the arm's best shape at the largest budget that has a result at
    another; None where there is none."""
    largest = max(map(_flops, records))
    there = [record for record in records if record.is_result and _flops(record) == largest]
    mine = sorted((r for r in there if r.proposal.arm == arm), key=loss_of)
    shapes: dict[frozenset[tuple[str, AxisValue]], list[TrialRecord]] = {}
    for record in mine:
        shapes.setdefault(_shape(record), []).append(record)
    for leader in mine if largest > above else ():
        own = leader.proposal.axes.get(STEP_SCALE)
        alike = shapes[_shape(leader)]
        others = [record for record in alike if record.proposal.axes.get(STEP_SCALE) != own]
        if others:
            better = [r for r in others if is_better(r.proposal, leader.proposal, there)]
            best = min(better, key=loss_of, default=None)
            start = None if best is None else float(best.proposal.axes[STEP_SCALE])
            return _StartCheck(better=start)
    return None


def _shape(record: TrialRecord) -> frozenset[tuple[str, AxisValue]]:
    return frozenset(_without(record, STEP_SCALE).items())


def _without(record: TrialRecord, *names: str) -> dict[str, AxisValue]:
    """A trial's axes but some."""
    return {k: value for k, value in record.proposal.axes.items() if k not in names}


def tuning_of(record: TrialRecord, tunings: dict[str, ArmTuning]) -> Tuning:
    """Whether a trial's arm was tuned at this budget, elsewhere, or not at all."""
    tuning = tunings.get(record.proposal.arm)
    if tuning is None:
        return "neither"
    return "tuned" if _flops(record) == tuning.tuned_at_flops else "transferred"


@dataclass(frozen=True, kw_only=True)
class _Check:
    """What the neighbouring rates of an arm's best shape did at the largest budget."""

    better: float | None = None
    train_flops: float | None = None
    sides: tuple[Side, ...] = ()


def _check(arm: str, records: Sequence[TrialRecord], *, above: float) -> _Check:
    """The check of the arm's best shape at the largest budget that has a result at another rate."""
    results = [record for record in records if record.is_result]
    largest = max(map(_flops, records))
    there = [record for record in results if _flops(record) == largest]
    searched = [r for r in there if r.proposal.purpose in ("baseline", "search")]
    mine = sorted((r for r in searched if r.proposal.arm == arm), key=loss_of)
    alike: dict[Key, list[TrialRecord]] = {}
    for record in there:
        alike.setdefault(configuration_key(record.proposal, any_rate=True), []).append(record)
    for leader in mine if largest > above else ():
        same = alike[configuration_key(leader.proposal, any_rate=True)]
        others = [r for r in same if _rate(r) != _rate(leader)]
        if not others:
            continue
        lower = any(_rate(other) < _rate(leader) for other in others)
        higher = any(_rate(other) > _rate(leader) for other in others)
        better = [r for r in others if is_better(r.proposal, leader.proposal, there)]
        best = min(better, key=loss_of, default=None)
        sides: list[Side] = ["lower"] if lower else []
        sides += ["higher"] if higher else []
        rate = None if best is None else float(best.proposal.axes[RATE])
        return _Check(better=rate, train_flops=largest, sides=tuple(sides))
    return _Check()


def _at_any_rate(record: TrialRecord, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Records of the same configuration at any learning rate, whichever arm asked for them."""
    key = configuration_key(record.proposal, any_rate=True)
    return [each for each in records if configuration_key(each.proposal, any_rate=True) == key]


def _rate(record: TrialRecord) -> float:
    return record.proposal.config.training.learning_rate


def _losses(records: Sequence[TrialRecord], axis: str) -> dict[float, float | None]:
    """Loss by the value of an axis; None where a trial has no result."""
    return {
        float(r.proposal.axes[axis]): loss_of(r) if r.is_result else None
        for r in records
        if axis in r.proposal.axes
    }


def _flops(record: TrialRecord) -> float:
    flops = record.proposal.budget.train_flops
    assert flops is not None
    return flops
