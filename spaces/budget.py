"""Which shape and how many tokens spend a FLOP budget? One dimension is always solved for.

A budget is a number of training FLOPs in a stated convention. The caller names the free axes; the
solver derives the remaining dimension from the closed form of `spaces.flops`, so that every
architecture that is ever proposed lies on the budget's surface.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import Literal, get_args

from spaces.architecture import Architecture, Arm, CommonFields
from spaces.axes import ARM_AXES, Axes, Axis, SolveMode, axes_of, check_axes
from spaces.errors import InfeasibleError, RequestError
from spaces.flops import (
    TRAIN_FLOPS_PER_FORWARD_FLOP,
    Convention,
    FlopsByConvention,
    deep_share,
    forward_flops_per_token,
    layer_flops_of,
    layer_flops_per_token,
)

__all__ = ["ARM_AXES", "Axes", "Axis", "Budget", "Solution", "SolveMode", "axes_of", "solve"]

FFN_FLOPS_TOLERANCE = 0.005
"""Largest relative distance of the FLOPs per token from their target in the FFN modes."""

TRAIN_FLOPS_TOLERANCE = 0.001
"""Largest relative distance of the delivered training FLOPs from the budget, in every mode."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a trial may cost. Raises `RequestError` for values that are no cost."""

    train_flops: float | None = None
    """C: training FLOPs of a trial; absent where a target per token and ``tokens`` imply it."""
    convention: Convention = "full"
    """How the FLOPs of this budget are counted."""
    forward_flops_per_token: float | None = None
    """Forward FLOPs per token of the whole model, head included."""
    layer_flops_per_token: float | None = None
    """Forward FLOPs per layer and token (as arXiv 2605.30202 states its budgets)."""
    tokens: int | None = None
    """Nominal training tokens."""

    def __post_init__(self) -> None:
        if self.convention not in get_args(Convention):
            allowed = ", ".join(get_args(Convention))
            raise RequestError(f"convention must be one of {allowed}, got {self.convention!r}")
        for name in ("train_flops", "forward_flops_per_token", "layer_flops_per_token", "tokens"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise RequestError(f"a budget's {name} must be positive and finite, got {value}")


@dataclass(frozen=True, kw_only=True)
class Solution:
    """A point on the budget's surface, and how near to it."""

    architecture: Architecture
    """The resolved architecture."""
    tokens: int
    """Training tokens: a whole number of sequences."""
    train_flops: int
    """Delivered training FLOPs, in the budget's convention."""
    train_flops_error: float
    """Delivered over asked training FLOPs, minus one."""
    forward_flops_per_token: FlopsByConvention
    """Attained forward FLOPs per token."""
    target_flops_per_token: float | None
    """Asked forward FLOPs per token of the whole model; None where tokens are solved."""
    nominal_alpha: float | None
    """The share that was asked for; None where alpha is no axis."""
    attained_alpha: float
    """Deep path's share of a layer's path FLOPs, in the budget's convention."""


def solve(
    budget: Budget,
    *,
    arm: Arm,
    mode: SolveMode,
    axes: Axes,
    common: CommonFields,
    ffn_multiple: int = 8,
) -> Solution:
    """The architecture and tokens that spend the budget at one point of the free axes.

    FFN sizes and widths are the largest whose FLOPs per token do not exceed the target; tokens are
    then the budget over the attained FLOPs, to the nearest whole sequence.

    Raises `RequestError` where budget or axes say too little or too much for the mode, and
    `InfeasibleError` where no size comes within 0.5 % of the target per token (FFN modes) or no
    number of sequences within 0.1 % of the budget.
    """
    check_axes(arm, mode, axes)
    _check_budget(budget, mode)
    if ffn_multiple < 1:
        raise RequestError(f"ffn_multiple must be at least 1, got {ffn_multiple}")
    point = _Point(budget, arm, axes, common, ffn_multiple)
    if mode == "tokens":
        assert axes.d_model is not None
        architecture = point.by_multipliers(axes.d_model)
    elif mode == "d_model":
        architecture = _solve_width(point)
    else:
        architecture = _solve_ffn(point, mode)
    target = None if mode == "tokens" else point.model_target(architecture)
    return _spend(budget, architecture, target=target, nominal_alpha=axes.alpha)


@dataclass(frozen=True)
class _Point:
    """One point of the free axes and everything around it."""

    budget: Budget
    arm: Arm
    axes: Axes
    common: CommonFields
    ffn_multiple: int

    def by_multipliers(self, d_model: int) -> Architecture:
        """The architecture of one width: FFN sizes follow the multipliers.

        A path whose size is still to be solved stands at the smallest one.
        """
        deep_ffn = self._ffn_size(self.axes.deep_multiplier, d_model)
        wide_ffn = self._ffn_size(self.axes.wide_multiplier, d_model)
        return Architecture(
            arm=self.arm,
            num_layers=self.axes.num_layers,
            num_loops=1 if self.axes.num_loops is None else self.axes.num_loops,
            d_model=d_model,
            deep_ffn=deep_ffn if self.arm != "wide" else None,
            wide_ffn=wide_ffn if self.arm in ("dual", "wide") else None,
            **vars(self.common),
        )

    def cost(self, architecture: Architecture) -> int:
        """FLOPs per token in the unit of the budget's target: of a layer or of the model."""
        if self.budget.layer_flops_per_token is not None:
            return layer_flops_per_token(architecture)[self.budget.convention]
        return forward_flops_per_token(architecture)[self.budget.convention]

    def target(self) -> float:
        """FLOPs per token to hit, in the same unit."""
        for target in (self.budget.layer_flops_per_token, self.budget.forward_flops_per_token):
            if target is not None:
                return target
        assert self.budget.train_flops is not None
        assert self.budget.tokens is not None
        return self.budget.train_flops / (TRAIN_FLOPS_PER_FORWARD_FLOP * self.budget.tokens)

    def model_target(self, architecture: Architecture) -> float:
        """Forward FLOPs per token that were asked of the whole model."""
        if self.budget.layer_flops_per_token is None:
            return self.target()
        head = 2 * architecture.d_model * architecture.vocab_size
        return architecture.num_layers * self.target() + head

    def unit(self) -> str:
        """The name of that unit."""
        part = "layer and token" if self.budget.layer_flops_per_token is not None else "token"
        return f"{self.budget.convention} forward FLOPs per {part}"

    def _ffn_size(self, multiplier: float | None, d_model: int) -> int:
        if multiplier is None:
            return self.ffn_multiple
        nearest = math.floor(multiplier * d_model / self.ffn_multiple + 0.5)
        return max(1, nearest) * self.ffn_multiple


def _solve_ffn(point: _Point, mode: SolveMode) -> Architecture:
    """The architecture whose derived FFN is the largest that the target allows."""
    assert point.axes.d_model is not None
    start = point.by_multipliers(point.axes.d_model)
    if start.arm == "dual" and mode == "both_ffn":
        start = replace(start, deep_ffn=_deep_ffn_of_alpha(point, start))
    solved: Literal["deep_ffn", "wide_ffn"] = "wide_ffn" if start.wide_ffn else "deep_ffn"
    if start.arm == "dual" and mode == "deep_ffn":
        solved = "deep_ffn"
    architecture = _largest_ffn(point, start, solved)
    attained, target = point.cost(architecture), point.target()
    if target - attained > FFN_FLOPS_TOLERANCE * target:
        raise InfeasibleError(
            f"{point.unit()} must land within {FFN_FLOPS_TOLERANCE:.1%} of {target:.6g}, but no "
            f"{solved} that is a multiple of {point.ffn_multiple} does: "
            f"{getattr(architecture, solved)} gives {attained:.6g} and the next one exceeds the "
            f"target; use a smaller ffn_multiple, a smaller K, or a smaller model"
        )
    return architecture


def _largest_ffn(
    point: _Point, start: Architecture, solved: Literal["deep_ffn", "wide_ffn"]
) -> Architecture:
    """``start`` with the largest ``solved`` that does not exceed the target.

    FLOPs are linear in the size and whole numbers, so integer division gives it exactly.
    """

    def sized(num_multiples: int) -> Architecture:
        size = num_multiples * point.ffn_multiple
        if solved == "deep_ffn":
            return replace(start, deep_ffn=size)
        return replace(start, wide_ffn=size)

    smallest, target = point.cost(sized(1)), point.target()
    if smallest > target:
        raise InfeasibleError(
            f"the smallest {solved} ({point.ffn_multiple}) must not exceed the target, but at "
            f"num_layers {start.num_layers}, d_model {start.d_model} and num_loops "
            f"{start.num_loops} it gives {smallest:.6g} {point.unit()} for {target:.6g}; use "
            f"fewer layers or loops, a smaller width, or a larger budget"
        )
    step = point.cost(sized(2)) - smallest
    return sized(1 + (math.floor(target) - smallest) // step)


def _deep_ffn_of_alpha(point: _Point, start: Architecture) -> int:
    """The largest deep FFN whose path does not exceed alpha's share of the target."""
    alpha, convention = point.axes.alpha, point.budget.convention
    assert alpha is not None
    layer = layer_flops_of(start, convention)
    target = point.target()
    if point.budget.layer_flops_per_token is None:
        target = (target - 2 * start.d_model * start.vocab_size) / start.num_layers
    share = alpha * (target - layer.mixing)
    step = 6 * start.num_loops * start.d_model * point.ffn_multiple
    num_multiples = 1 + (math.floor(share) - layer.deep) // step
    if num_multiples < 1:
        raise InfeasibleError(
            f"the deep path must fit its share alpha {alpha:g} of a layer, {share:.6g} "
            f"{convention} FLOPs per token, but with the smallest FFN ({point.ffn_multiple}) and "
            f"num_loops {start.num_loops} it costs {layer.deep:.6g}; use a larger alpha, fewer "
            f"loops, a smaller width, or a larger budget"
        )
    return int(num_multiples) * point.ffn_multiple


def _solve_width(point: _Point) -> Architecture:
    """The architecture of the largest width that does not exceed the target."""
    head_dim, target = point.common.head_dim, point.target()

    def cost(num_heads: int) -> int:
        return point.cost(point.by_multipliers(num_heads * head_dim))

    if cost(1) > target:
        raise InfeasibleError(
            f"one head of {head_dim} channels must not exceed the target, but it gives "
            f"{cost(1):.6g} {point.unit()} for {target:.6g}; use a smaller head_dim, fewer layers "
            f"or loops, smaller multipliers, or a larger budget"
        )
    too_many = 2
    while cost(too_many) <= target:
        too_many *= 2
    num_heads = bisect_right(range(too_many), target, lo=too_many // 2, key=cost) - 1
    return point.by_multipliers(num_heads * head_dim)


def _spend(
    budget: Budget, architecture: Architecture, *, target: float | None, nominal_alpha: float | None
) -> Solution:
    """Tokens that spend the budget on one architecture, to the nearest whole sequence."""
    forward = forward_flops_per_token(architecture)
    asked = budget.train_flops
    if asked is None:
        assert target is not None
        assert budget.tokens is not None
        asked = TRAIN_FLOPS_PER_FORWARD_FLOP * target * budget.tokens
    sequence = (
        TRAIN_FLOPS_PER_FORWARD_FLOP * forward[budget.convention] * architecture.context_length
    )
    num_sequences = max(1, round(asked / sequence))
    error = num_sequences * sequence / asked - 1
    if abs(error) > TRAIN_FLOPS_TOLERANCE:
        raise InfeasibleError(
            f"whole sequences must deliver the budget within {TRAIN_FLOPS_TOLERANCE:.1%}, but one "
            f"sequence of {architecture.context_length} tokens costs {sequence:.4g} of "
            f"{asked:.4g} {budget.convention} training FLOPs, so that {num_sequences} miss it by "
            f"{error:+.2%}; use a larger budget, a smaller model, or a shorter context"
        )
    return Solution(
        architecture=architecture,
        tokens=num_sequences * architecture.context_length,
        train_flops=num_sequences * sequence,
        train_flops_error=error,
        forward_flops_per_token=forward,
        target_flops_per_token=target,
        nominal_alpha=nominal_alpha,
        attained_alpha=deep_share(architecture, budget.convention),
    )


def _check_budget(budget: Budget, mode: SolveMode) -> None:
    """Raise `RequestError` where a budget says too little or too much for a mode."""
    targets = [
        name
        for name in ("forward_flops_per_token", "layer_flops_per_token")
        if getattr(budget, name) is not None
    ]
    given = [name for name in ("train_flops", "tokens") if getattr(budget, name) is not None]
    given += targets
    if mode == "tokens":
        if given != ["train_flops"]:
            raise RequestError(
                f"where tokens are solved a budget is train_flops alone, got "
                f"{', '.join(given) or 'nothing'}"
            )
    elif len(targets) == 2 or len(given) != 2:
        raise RequestError(
            f"where {mode} is solved a budget is two of train_flops, tokens, and one target "
            f"(forward_flops_per_token or layer_flops_per_token), got "
            f"{', '.join(given) or 'nothing'}"
        )
