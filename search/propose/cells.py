"""What does a point of the axes mean? Cells, their axes, and a point's configuration.

A *cell* is one arm at one budget; it has its own study.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from search.asked.experiment import Experiment
from search.asked.recipe import recipe
from search.limits.feasibility import broken_limits
from search.propose.samplers import AxisValue
from search.record.trial import Precision, Proposal, Purpose, SearchArm, TrialConfig
from spaces.architecture import UNIT_STEP_SCALE_INIT, Arm, CommonFields
from spaces.axes import Axes, Axis, axes_of
from spaces.budget import Budget, solve
from spaces.errors import InfeasibleError

SHAPE_AXES: tuple[Axis, ...] = get_args(Axis)
"""The axes that the solver turns into a shape; the others are choices of training."""


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


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm at one budget."""

    arm: SearchArm
    budget: Budget

    @property
    def train_flops(self) -> float:
        """What a trial costs."""
        assert self.budget.train_flops is not None
        return self.budget.train_flops


def cell_of(proposal: Proposal) -> Cell:
    """The cell that a proposal belongs to."""
    return Cell(arm=proposal.arm, budget=proposal.budget)


def model_arm(arm: SearchArm) -> Arm:
    """The architecture's arm; the unrolled family is of the standard arm."""
    return "standard" if arm == "unrolled" else arm


def cell_axes(experiment: Experiment, arm: SearchArm) -> dict[str, tuple[AxisValue, ...]]:
    """The axes that an arm has, with the experiment's values; axes it lacks are absent."""
    names: list[str] = list(axes_of(model_arm(arm), experiment.budget.solve))
    if arm == "unrolled":
        names.insert(0, "num_loops")
    names.append("learning_rate_multiplier")
    if arm in ("dual", "loop", "wide"):
        names.append("step_scale_init")
    if arm == "dual":
        names.append("gate_mode")
    axes: dict[str, tuple[AxisValue, ...]] = {
        name: tuple(getattr(experiment.axes, name)) for name in names
    }
    if arm == "unrolled":
        axes["num_loops"] = tuple(k for k in experiment.axes.num_loops if k > 1) or (1,)
    return axes


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
    shape = {name: axes[name] for name in SHAPE_AXES if name in axes}
    if cell.arm == "unrolled":
        shape["num_layers"] = int(shape["num_layers"]) * int(shape.pop("num_loops"))
    solution = solve(
        cell.budget,
        arm=model_arm(cell.arm),
        mode=experiment.budget.solve,
        axes=Axes(**shape),  # type: ignore[arg-type]
        common=_common_fields(experiment, ground, axes),
        ffn_multiple=experiment.architecture.ffn_multiple,
    )
    training = recipe(
        experiment.training,
        arm=cell.arm,
        architecture=solution.architecture,
        train_flops=float(solution.train_flops),
        tokens=solution.tokens,
        multiplier=float(axes["learning_rate_multiplier"]),
        precision=ground.precision,
    )
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
    """What the architecture has besides arm and sizes."""
    fixed = experiment.architecture
    return CommonFields(
        head_dim=fixed.head_dim,
        context_length=fixed.context_length,
        vocab_size=ground.vocab_size,
        gate_mode=axes.get("gate_mode", "independent"),  # type: ignore[arg-type]
        loop_output=fixed.loop_output,
        wide_attention=fixed.wide_attention,
        qk_norm=fixed.qk_norm,
        rope_base=fixed.rope_base,
        norm_epsilon=fixed.norm_epsilon,
        step_scale_init=float(axes.get("step_scale_init", UNIT_STEP_SCALE_INIT)),
        gate_bias_init=fixed.gate_bias_init,
    )
