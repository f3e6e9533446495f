"""What would training have said? A loss surface in closed form, read from a file.

The surface is a sum of power laws in parameters and tokens and of squares in log shape and log
learning rate, with a wall of memory and a learning rate above which a trial diverges. It is
vectorised, so that the best feasible point of the whole grid is known exactly.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from search.asked.experiment import describe_errors
from spaces.errors import RequestError
from spaces.flops import Convention, forward_flops_grid
from spaces.parameters import ParameterGrid, parameter_grid
from spaces.price import BACKWARD_PER_FORWARD

DEFAULT_TRUTH = Path(__file__).with_name("search_truth.toml")
FFN_MULTIPLE = 8

Floats = NDArray[np.float64]


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LossTruth(_Group):
    """The surface itself; the truth file states the formula."""

    irreducible: float
    params_scale: float
    params_exponent: float
    loop_exponent: float
    wide_weight: float
    tokens_scale: float
    tokens_exponent: float
    aspect_weight: float
    aspect_ratio: float
    ffn_weight: float
    ffn_optimum: float
    lr_weight: float
    noise_fraction: float


class RateTruth(_Group):
    """The best learning rate of a shape, where a trial diverges, and the range searched."""

    scale: float
    width_exponent: float
    depth_exponent: float
    loop_exponent: float | None = None
    """The best rate ~ K ** this, and ``depth_exponent`` is of the layers alone; left out: loops
    count as layers, as in the built-in rule."""
    tokens_exponent: float = 0.0
    """The best rate ~ (training tokens / 1e9) ** this; the built-in rule knows no tokens."""
    divergence_factor: float
    minimum: float
    maximum: float
    factor: dict[str, float]


class MemoryTruth(_Group):
    """Bytes of a trial and the wall."""

    bytes_per_parameter: float
    bytes_per_activation: float
    wall_bytes: float


class SpaceTruth(_Group):
    """Each axis as first, last, step."""

    num_loops: tuple[int, int, int]
    wide_multiplier: tuple[int, int, int]
    deep_multiplier: tuple[int, int, int]
    num_layers: tuple[int, int, int]
    d_model: tuple[int, int, int]

    def values(self, name: str) -> tuple[int, ...]:
        """The values of one axis."""
        first, last, step = getattr(self, name)
        return tuple(range(first, last + 1, step))


class ModelTruth(_Group):
    """What the closed forms need besides the axes, and the batch rule."""

    head_dim: int
    context_length: int
    vocab_size: int
    convention: Convention
    batch_tokens: int
    batch_reference_flops: float
    batch_exponent: float
    min_steps: int


class Truth(_Group):
    """One truth file."""

    train_flops: tuple[float, ...]
    loss: LossTruth
    learning_rate: RateTruth
    memory: MemoryTruth
    space: SpaceTruth
    model: ModelTruth


def load_truth(path: Path) -> Truth:
    """Read a truth file. Raises `RequestError` with every error."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
        return Truth.model_validate(fields)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RequestError(f"cannot read the truth {path}: {error}") from None
    except ValidationError as error:
        raise RequestError(describe_errors(error, where=str(path))) from None


@dataclass(frozen=True, kw_only=True)
class Points:
    """Configurations of one arm at one budget; arrays of one shape (or numbers)."""

    num_loops: Any
    wide_multiplier: Any
    deep_multiplier: Any
    num_layers: Any
    d_model: Any
    learning_rate: Any
    """None: the best rate of each shape within the range."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the truth says of points."""

    loss: Floats
    """Loss without noise, nats per token."""
    noise: Floats
    """Standard deviation of the noise, nats per token."""
    tokens: NDArray[np.int64]
    """Training tokens that the budget pays."""
    memory_bytes: Floats
    """Bytes needed."""
    rate_excess: Floats
    """Learning rate over the one at which the trial diverges."""


Failure = Literal["out_of_memory", "diverged"]


def failure_of(truth: Truth, answer: Answer) -> Failure | None:
    """How one point fails; None where it trains."""
    if answer.memory_bytes > truth.memory.wall_bytes:
        return "out_of_memory"
    return "diverged" if answer.rate_excess > 1 else None


def ask(truth: Truth, arm: str, train_flops: float, points: Points) -> Answer:
    """Loss, noise, memory and distance to divergence of points of one arm at one budget."""
    parameters, forward = _cost(truth, arm, points)
    context = truth.model.context_length
    sequence = (1 + BACKWARD_PER_FORWARD) * forward * context
    sequences = np.maximum(1, np.rint(train_flops / sequence)).astype(np.int64)
    tokens = sequences * context
    depth = np.asarray(points.num_layers) * (points.num_loops if arm in ("dual", "loop") else 1)
    rate = truth.learning_rate
    best = best_rate(truth, arm, points, tokens=tokens)
    used = points.learning_rate
    used = np.clip(best, rate.minimum, rate.maximum) if used is None else np.asarray(used)
    loss = _loss(truth, arm, points, parameters=parameters, tokens=tokens, depth=depth)
    loss = loss + truth.loss.lr_weight * np.log10(used / best) ** 2
    memory = truth.memory
    batch = context * np.maximum(
        1, np.minimum(_batch_sequences(truth, train_flops), sequences // truth.model.min_steps)
    )
    activations = np.asarray(points.d_model) * depth * batch
    return Answer(
        loss=loss,
        noise=truth.loss.noise_fraction * (loss - truth.loss.irreducible),
        tokens=tokens,
        memory_bytes=memory.bytes_per_parameter * parameters.total
        + memory.bytes_per_activation * activations,
        rate_excess=used / best / rate.divergence_factor,
    )


def best_rate(truth: Truth, arm: str, points: Points, *, tokens: Any) -> Floats:
    """The peak learning rate of the lowest loss, of each shape."""
    rate = truth.learning_rate
    loops = points.num_loops if arm in ("dual", "loop") else 1
    by_width = (np.asarray(points.d_model) / 256) ** rate.width_exponent
    by_depth = (np.asarray(points.num_layers) * loops / 8) ** rate.depth_exponent
    if rate.loop_exponent is not None:
        by_depth = by_depth * np.asarray(loops, dtype=np.float64) ** (
            rate.loop_exponent - rate.depth_exponent
        )
    by_tokens = (np.asarray(tokens, dtype=np.float64) / 1e9) ** rate.tokens_exponent
    return np.asarray(rate.scale * rate.factor[arm] * by_width * by_depth * by_tokens)


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """The best feasible point of the grid."""

    loss: float
    """Its loss without noise."""
    noise: float
    """Standard deviation of a trial there: the unit of regret."""
    point: dict[str, int]
    """Its axes."""


def optimum(truth: Truth, arm: str, train_flops: float) -> Optimum:
    """The best feasible point over the whole grid, each shape at its best learning rate."""
    names = ("num_loops", "wide_multiplier", "deep_multiplier", "num_layers", "d_model")
    axes = [truth.space.values(name) if _has(arm, name) else (1,) for name in names]
    grids = dict(zip(names, np.meshgrid(*axes, indexing="ij"), strict=True))
    answer = ask(truth, arm, train_flops, Points(learning_rate=None, **grids))
    fits = (answer.memory_bytes <= truth.memory.wall_bytes) & (answer.rate_excess <= 1)
    fits &= answer.tokens // truth.model.context_length >= truth.model.min_steps
    if not fits.any():
        raise RequestError(f"no point of the grid is feasible at {train_flops:.3g} FLOPs")
    index = np.unravel_index(np.argmin(np.where(fits, answer.loss, np.inf)), answer.loss.shape)
    return Optimum(
        loss=float(answer.loss[index]),
        noise=float(answer.noise[index]),
        point={name: int(grid[index]) for name, grid in grids.items()},
    )


def _has(arm: str, name: str) -> bool:
    lacks = {
        "dual": (),
        "loop": ("wide_multiplier",),
        "wide": ("num_loops", "deep_multiplier"),
        "standard": ("num_loops", "wide_multiplier"),
    }[arm]
    return name not in lacks


def _cost(truth: Truth, arm: str, points: Points) -> tuple[ParameterGrid, NDArray[np.int64]]:
    """Parameters by part, and forward FLOPs per token."""
    width = np.asarray(points.d_model)
    shape: dict[str, Any] = {
        "arm": arm,
        "num_layers": points.num_layers,
        "num_loops": points.num_loops if arm in ("dual", "loop") else 1,
        "d_model": width,
        "deep_ffn": 0 if arm == "wide" else _ffn(points.deep_multiplier, width),
        "wide_ffn": _ffn(points.wide_multiplier, width) if arm in ("dual", "wide") else 0,
        "vocab_size": truth.model.vocab_size,
    }
    forward = forward_flops_grid(
        **shape,
        context_length=truth.model.context_length,
        convention=truth.model.convention,
    )
    return parameter_grid(**shape), forward


def _ffn(multiplier: Any, width: Any) -> NDArray[np.int64]:
    nearest = np.floor(np.asarray(multiplier) * width / FFN_MULTIPLE + 0.5).astype(np.int64)
    return np.asarray(np.maximum(1, nearest) * FFN_MULTIPLE)


def _loss(
    truth: Truth,
    arm: str,
    points: Points,
    *,
    parameters: ParameterGrid,
    tokens: Any,
    depth: Any,
) -> Floats:
    """Everything but the learning rate's term."""
    law = truth.loss
    loops = np.asarray(points.num_loops if arm in ("dual", "loop") else 1, dtype=np.float64)
    effective = parameters.shared + loops**law.loop_exponent * parameters.deep
    effective = effective + law.wide_weight * parameters.wide
    multipliers = (points.wide_multiplier if _has(arm, "wide_multiplier") else 0) + np.asarray(
        points.deep_multiplier if _has(arm, "deep_multiplier") else 0
    )
    loss = law.irreducible + law.params_scale * effective**-law.params_exponent
    loss = loss + law.tokens_scale * np.asarray(tokens, dtype=np.float64) ** -law.tokens_exponent
    loss = loss + law.aspect_weight * np.log(depth * law.aspect_ratio / points.d_model) ** 2
    return np.asarray(loss + law.ffn_weight * np.log(multipliers / law.ffn_optimum) ** 2)


def _batch_sequences(truth: Truth, train_flops: float) -> int:
    model = truth.model
    scale: float = (train_flops / model.batch_reference_flops) ** model.batch_exponent
    return max(1, round(model.batch_tokens * scale / model.context_length))
