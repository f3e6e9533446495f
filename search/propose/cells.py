"""What does a point of the axes mean? Cells, their axes, and a point's configuration.

A *cell* is one arm at one budget; it has its own study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from search.asked.experiment import Experiment
from search.asked.recipe import learning_rate, recipe
from search.limits.feasibility import broken_limits
from search.record.trial import Precision, Proposal, Purpose, TrainingRecipe, TrialConfig
from spaces.architecture import CommonFields
from spaces.arms.contract import Arm, find_arm
from spaces.axes import LEARNING_RATE_MULTIPLIER, Axis, AxisValue
from spaces.budget import Budget, axes_of, solve
from spaces.errors import InfeasibleError


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a proposal rests on besides the experiment: the text as prepared, and the precision."""

    text_fingerprint: str
    """Identity of corpus, split and tokenizer."""
    vocab_size: int
    """Symbols of the tokenizer."""
    num_validation_sequences: int
    """Validation windows of the experiment's context length that exist."""
    precision: Precision
    """Arithmetic of the workers' device, where the experiment leaves it open."""
    num_train_tokens: int | None = None
    """Tokens of the training text; None where it is not limited."""
    most_side_by_side: int = 1
    """Trials that a worker trains at once where they are small enough."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm at one budget."""

    arm: str
    budget: Budget

    @property
    def train_flops(self) -> float:
        """What a trial costs."""
        assert self.budget.train_flops is not None
        return self.budget.train_flops


def cell_of(proposal: Proposal) -> Cell:
    """The cell that a proposal belongs to."""
    return Cell(arm=proposal.arm, budget=proposal.budget)


def cell_axes(experiment: Experiment, arm: str) -> dict[str, tuple[AxisValue, ...]]:
    """The axes that an arm has, with the experiment's values; axes it lacks are absent."""
    axes = [
        axis
        for axis in find_arm(arm).axes[experiment.budget.solve]
        if not axis.optional or experiment.axes.says(axis.name)
    ]
    values = {axis.name: axis.admitted(_asked(experiment, arm, axis)) for axis in axes}
    return {
        axis.name: values[axis.name]
        for axis in axes
        if axis.only_with is None or axis.only_with[1] in values[axis.only_with[0]]
    }


def _asked(experiment: Experiment, arm: str, axis: Axis) -> tuple[AxisValue, ...]:
    """The values of an axis: as asked; else as free as arms of other families are."""
    if axis.freed and not experiment.axes.says(axis.name):
        own = find_arm(arm).family
        others = (find_arm(other) for other in experiment.arms)
        if any(_has_axis(other, axis.freed_by) for other in others if other.family != own):
            return axis.freed
    return experiment.axes.values_of(axis)


def _has_axis(arm: Arm, name: str | None) -> bool:
    """Whether an arm always has an axis."""
    return any(axis.name == name and axis.only_with is None for axis in arm.all_axes())


def resolve(
    experiment: Experiment,
    ground: Ground,
    cell: Cell,
    axes: Mapping[str, AxisValue],
    *,
    purpose: Purpose,
    init_seed: int | None = None,
    data_seed: int | None = None,
) -> Proposal:
    """Axis values to a configuration on the budget's surface, whatever the limits say.

    Raises `InfeasibleError` where no size or number of tokens meets the budget.
    """
    mode = experiment.budget.solve
    solution = solve(
        cell.budget,
        arm=cell.arm,
        mode=mode,
        axes={name: axes[name] for name in axes_of(cell.arm, mode)},
        common=_common_fields(experiment, ground, axes),
        ffn_multiple=experiment.architecture.ffn_multiple,
    )
    training = recipe(
        experiment.training,
        arm=cell.arm,
        architecture=solution.architecture,
        train_flops=float(solution.train_flops),
        tokens=solution.tokens,
        multiplier=float(axes[LEARNING_RATE_MULTIPLIER.name]),
        precision=ground.precision,
    )
    training = replace(training, **_trained_as(cell.arm, axes))
    config = TrialConfig(
        architecture=solution.architecture,
        tokens=solution.tokens,
        training=training,
        text_fingerprint=ground.text_fingerprint,
        eval_sequences=experiment.training.eval_sequences,
        eval_points=experiment.training.eval_points,
        init_seed=experiment.seeds.init if init_seed is None else init_seed,
        data_seed=experiment.seeds.data if data_seed is None else data_seed,
    )
    return Proposal(
        config=config,
        arm=cell.arm,
        budget=cell.budget,
        axes=dict(axes),
        purpose=purpose,
        nominal_alpha=solution.nominal_alpha,
        attained_alpha=solution.attained_alpha,
    )


def _trained_as(arm: str, axes: Mapping[str, AxisValue]) -> dict[str, Any]:
    """Fields of the recipe that a point of the axes sets by itself."""
    optional = {axis.name for axis in find_arm(arm).all_axes() if axis.optional}
    names = {each.name for each in fields(TrainingRecipe)} & optional & axes.keys()
    return {name: axes[name] for name in sorted(names)}


def at_rate(experiment: Experiment, proposal: Proposal, multiplier: float) -> Proposal:
    """The same shape at another multiple of the rule's learning rate."""
    config = proposal.config
    rate = learning_rate(
        experiment.training,
        arm=proposal.arm,
        architecture=config.architecture,
        multiplier=multiplier,
    )
    training = replace(config.training, learning_rate=rate)
    return replace(
        proposal,
        config=replace(config, training=training),
        axes=dict(proposal.axes) | {LEARNING_RATE_MULTIPLIER.name: multiplier},
    )


def require_within_limits(experiment: Experiment, proposal: Proposal) -> None:
    """Raise `InfeasibleError` with every limit of the experiment that a proposal breaks."""
    min_steps = experiment.training.min_steps
    broken = broken_limits(experiment.limits, proposal.config, min_steps=min_steps)
    if broken is not None:
        raise InfeasibleError(broken)


def changed_fields(before: TrialConfig, after: TrialConfig) -> list[str]:
    """Names of the fields in which two configurations differ."""
    names = [
        name
        for name in (
            "tokens",
            "text_fingerprint",
            "eval_sequences",
            "eval_points",
            "init_seed",
            "data_seed",
        )
        if getattr(before, name) != getattr(after, name)
    ]
    for part in ("architecture", "training"):
        old, new = getattr(before, part), getattr(after, part)
        names += [f"{part}.{key}" for key in vars(old) if vars(old)[key] != vars(new)[key]]
    if before.record_version != after.record_version:
        names.append("record_version (what a record means changed with the code)")
    return names


def _common_fields(
    experiment: Experiment, ground: Ground, axes: Mapping[str, AxisValue]
) -> CommonFields:
    """What the architecture has besides arm and sizes: as an axis says, else as the experiment."""
    fixed = vars(experiment.architecture)
    asked = {
        each.name: axes.get(each.name, fixed.get(each.name, each.default))
        for each in fields(CommonFields)
        if each.name != "vocab_size"
    }
    return CommonFields(vocab_size=ground.vocab_size, **asked)
