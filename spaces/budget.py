"""Which shape and how many tokens spend a FLOP budget? One dimension is always solved for.

A budget is a number of training FLOPs in a stated convention. The caller names the free axes; the
solver searches over the arm's price for the remaining dimension, so that every architecture that is
ever proposed lies on the budget's surface. It has no formula of its own: a price only has to grow
with a size.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from spaces.architecture import Architecture, CommonFields
from spaces.arms.contract import Arm, find_arm
from spaces.axes import D_MODEL, Axes, Point, SolveMode
from spaces.errors import InfeasibleError, RequestError
from spaces.flops import (
    Convention,
    FlopsByConvention,
    deep_share,
    forward_flops_per_token,
    layer_flops_per_token,
    part_flops_per_token,
    train_flops_per_sequence,
    train_flops_per_token,
)

__all__ = ["Axes", "Budget", "Solution", "SolveMode", "axes_of", "solve"]

FFN_FLOPS_TOLERANCE = 0.005
"""Largest relative distance of the FLOPs per token from their target in the FFN modes."""

TRAIN_FLOPS_TOLERANCE = 0.001
"""Largest relative distance of the delivered training FLOPs from the budget, in every mode."""

ALPHA = "alpha"
"""The axis that splits a layer's FLOPs between two paths."""


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
    arm: str,
    mode: SolveMode,
    axes: Axes | Point,
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
    point = axes.point() if isinstance(axes, Axes) else dict(axes)
    check_point(arm, mode, point)
    _check_budget(budget, mode)
    if ffn_multiple < 1:
        raise RequestError(f"ffn_multiple must be at least 1, got {ffn_multiple}")
    question = _Question(budget, find_arm(arm), point, common, ffn_multiple)
    if mode == "tokens":
        architecture = question.shape(int(point[D_MODEL.name]))
    elif mode == "d_model":
        architecture = _solve_width(question)
    else:
        architecture = _solve_ffn(question, mode)
    target = None if mode == "tokens" else question.model_target(architecture)
    alpha = point.get(ALPHA)
    nominal_alpha = None if alpha is None else float(alpha)
    return _spend(budget, architecture, target=target, nominal_alpha=nominal_alpha)


def axes_of(arm: str, mode: SolveMode) -> tuple[str, ...]:
    """The shape axes of an arm in a mode: what a search may propose to the solver, no more and no
    less."""
    return tuple(axis.name for axis in find_arm(arm).axes[mode] if axis.role == "shape")


def check_point(arm: str, mode: SolveMode, point: Point) -> None:
    """Raise `RequestError` where an axis is missing, superfluous or out of its range."""
    modes = get_args(SolveMode)
    if mode not in modes:
        raise RequestError(f"mode must be one of {', '.join(modes)}, got {mode!r}")
    if mode not in find_arm(arm).axes:
        raise RequestError(
            f"the {arm} arm cannot solve {mode}; its modes are {', '.join(find_arm(arm).axes)}"
        )
    expected = {axis.name: axis for axis in find_arm(arm).axes[mode] if axis.role == "shape"}
    for name in expected.keys() - point.keys():
        raise RequestError(f"the {arm} arm needs {name} where {mode} is solved")
    for name, value in point.items():
        if name not in expected:
            raise RequestError(
                f"the {arm} arm has no {name} where {mode} is solved, got {value}; "
                f"its axes are {', '.join(expected)}"
            )
        axis = expected[name]
        if axis.scale == "log" and not (math.isfinite(float(value)) and float(value) > 0):
            raise RequestError(f"{name} must be positive and finite, got {value}")
        if axis.below is not None and float(value) >= axis.below:
            raise RequestError(f"{name} must lie between 0 and {axis.below:g}, got {value}")


@dataclass(frozen=True)
class _Question:
    """One point of the free axes and everything around it."""

    budget: Budget
    arm: Arm
    point: Point
    common: CommonFields
    ffn_multiple: int

    def shape(self, d_model: int) -> Architecture:
        """The architecture of one width; a size that is still to be solved is the smallest."""
        return self.arm.shape(
            self.point, self.common, d_model=d_model, ffn_multiple=self.ffn_multiple
        )

    def cost(self, architecture: Architecture) -> float:
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
        shape = self.shape(int(self.point.get(D_MODEL.name, self.common.head_dim)))
        return self.budget.train_flops / (self._per_forward(shape) * self.budget.tokens)

    def _per_forward(self, architecture: Architecture) -> float:
        """Training FLOPs over forward FLOPs."""
        convention = self.budget.convention
        forward = forward_flops_per_token(architecture)[convention]
        return train_flops_per_token(architecture)[convention] / forward

    def model_target(self, architecture: Architecture) -> float:
        """Forward FLOPs per token that were asked of the whole model."""
        if self.budget.layer_flops_per_token is None:
            return self.target()
        return architecture.num_layers * self.target() + self._head(architecture)

    def layer_target(self, architecture: Architecture) -> float:
        """Forward FLOPs per token that were asked of one layer."""
        if self.budget.layer_flops_per_token is not None:
            return self.target()
        return (self.target() - self._head(architecture)) / architecture.num_layers

    def _head(self, architecture: Architecture) -> float:
        return part_flops_per_token(architecture, "head", self.budget.convention)

    def unit(self) -> str:
        """The name of that unit."""
        part = "layer and token" if self.budget.layer_flops_per_token is not None else "token"
        return f"{self.budget.convention} forward FLOPs per {part}"


def _solve_ffn(question: _Question, mode: SolveMode) -> Architecture:
    """The architecture whose derived FFN is the largest that the target allows."""
    start = question.shape(int(question.point[D_MODEL.name]))
    solved = question.arm.derived[mode]
    if ALPHA in question.point:
        start = _with_deep_share(question, start)
    architecture = _largest_ffn(question, start, solved)
    attained, target = question.cost(architecture), question.target()
    if target - attained > FFN_FLOPS_TOLERANCE * target:
        raise InfeasibleError(
            f"{question.unit()} must land within {FFN_FLOPS_TOLERANCE:.1%} of {target:.6g}, but no "
            f"{solved} that is a multiple of {question.ffn_multiple} does: "
            f"{architecture.size(solved)} gives {attained:.6g} and the next one exceeds the "
            f"target; use a smaller ffn_multiple, a smaller K, or a smaller model"
        )
    return architecture


def _largest_ffn(question: _Question, start: Architecture, solved: str) -> Architecture:
    """``start`` with the largest ``solved`` that does not exceed the target."""

    def sized(num_multiples: int) -> Architecture:
        return start.with_size(solved, num_multiples * question.ffn_multiple)

    def cost(num_multiples: int) -> float:
        return question.cost(sized(num_multiples))

    if cost(1) > question.target():
        a = start
        loops = f" and num_loops {a.num_loops}" if a.own is None else ""
        raise InfeasibleError(
            f"the smallest {solved} ({question.ffn_multiple}) must not exceed the target, but at "
            f"num_layers {a.num_layers}, d_model {a.d_model}{loops} it gives "
            f"{cost(1):.6g} {question.unit()} for {question.target():.6g}; use "
            f"fewer layers or loops, a smaller width, or a larger budget"
        )
    return sized(largest(cost, question.target()))


def _with_deep_share(question: _Question, start: Architecture) -> Architecture:
    """``start`` with the largest deep FFN whose path does not exceed alpha's share of a layer."""
    convention, alpha = question.budget.convention, float(question.point[ALPHA])
    layers, multiple = start.num_layers, question.ffn_multiple
    mixing = part_flops_per_token(start, "shared", convention) / layers
    share = alpha * (question.layer_target(start) - mixing)

    def sized(num_multiples: int) -> Architecture:
        return start.with_size("deep_ffn", num_multiples * multiple)

    def cost(num_multiples: int) -> float:
        return part_flops_per_token(sized(num_multiples), "deep", convention) / layers

    if cost(1) > share:
        raise InfeasibleError(
            f"the deep path must fit its share alpha {alpha:g} of a layer, {share:.6g} "
            f"{convention} FLOPs per token, but with the smallest FFN ({multiple}) and "
            f"num_loops {start.num_loops} it costs {cost(1):.6g}; use a larger alpha, fewer "
            f"loops, a smaller width, or a larger budget"
        )
    return sized(largest(cost, share))


def _solve_width(question: _Question) -> Architecture:
    """The architecture of the largest width that does not exceed the target."""
    head_dim, target = question.common.head_dim, question.target()

    def cost(num_heads: int) -> float:
        return question.cost(question.shape(num_heads * head_dim))

    if cost(1) > target:
        raise InfeasibleError(
            f"one head of {head_dim} channels must not exceed the target, but it gives "
            f"{cost(1):.6g} {question.unit()} for {target:.6g}; use a smaller head_dim, fewer "
            f"layers or loops, smaller multipliers, or a larger budget"
        )
    return question.shape(largest(cost, target) * head_dim)


def largest(cost: Callable[[int], float], target: float) -> int:
    """The largest number from 1 on whose cost, which grows with it, does not exceed the target."""
    too_many = 2
    while cost(too_many) <= target:
        too_many *= 2
    return bisect_right(range(too_many), target, lo=too_many // 2, key=cost) - 1


def _spend(
    budget: Budget, architecture: Architecture, *, target: float | None, nominal_alpha: float | None
) -> Solution:
    """Tokens that spend the budget on one architecture, to the nearest whole sequence."""
    forward = forward_flops_per_token(architecture)
    training = train_flops_per_sequence(architecture)[budget.convention]
    asked = budget.train_flops
    if asked is None:
        assert target is not None
        assert budget.tokens is not None
        per_forward = training / (forward[budget.convention] * architecture.context_length)
        asked = per_forward * target * budget.tokens
    sequence = training
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
