"""Which axes are free? What each arm can vary while one dimension is solved from a budget."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from spaces.architecture import Arm
from spaces.errors import RequestError

SolveMode = Literal["tokens", "deep_ffn", "wide_ffn", "both_ffn", "d_model"]
Axis = Literal["num_loops", "wide_multiplier", "deep_multiplier", "alpha", "num_layers", "d_model"]

_DEPTH: tuple[Axis, ...] = ("num_layers",)
_SHAPE: tuple[Axis, ...] = ("num_layers", "d_model")

ARM_AXES: dict[Arm, dict[SolveMode, tuple[Axis, ...]]] = {
    "dual": {
        "tokens": ("num_loops", "wide_multiplier", "deep_multiplier", *_SHAPE),
        "deep_ffn": ("num_loops", "wide_multiplier", *_SHAPE),
        "wide_ffn": ("num_loops", "deep_multiplier", *_SHAPE),
        "both_ffn": ("num_loops", "alpha", *_SHAPE),
        "d_model": ("num_loops", "wide_multiplier", "deep_multiplier", *_DEPTH),
    },
    "loop": {
        "tokens": ("num_loops", "deep_multiplier", *_SHAPE),
        "deep_ffn": ("num_loops", *_SHAPE),
        "wide_ffn": ("num_loops", *_SHAPE),
        "both_ffn": ("num_loops", *_SHAPE),
        "d_model": ("num_loops", "deep_multiplier", *_DEPTH),
    },
    "wide": {
        "tokens": ("wide_multiplier", *_SHAPE),
        "deep_ffn": _SHAPE,
        "wide_ffn": _SHAPE,
        "both_ffn": _SHAPE,
        "d_model": ("wide_multiplier", *_DEPTH),
    },
    "standard": {
        "tokens": ("deep_multiplier", *_SHAPE),
        "deep_ffn": _SHAPE,
        "wide_ffn": _SHAPE,
        "both_ffn": _SHAPE,
        "d_model": ("deep_multiplier", *_DEPTH),
    },
}
"""The free axes of each arm in each mode; what is not listed does not exist there.

An arm with one path has one FFN, which every FFN mode derives: so it stands in the same study as
the dual arm, at the same FLOPs per token.
"""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """One point of the free axes; `axes_of` says which an arm has in a mode, the rest is None."""

    num_layers: int
    """Depth."""
    num_loops: int | None = None
    """K."""
    d_model: int | None = None
    """Width, in channels."""
    deep_multiplier: float | None = None
    """Deep SwiGLU size over the width, rounded to the FFN multiple."""
    wide_multiplier: float | None = None
    """Wide SwiGLU size over the width, rounded to the FFN multiple."""
    alpha: float | None = None
    """Deep path's nominal share of a layer's path FLOPs, between 0 and 1."""


def axes_of(arm: Arm, mode: SolveMode) -> tuple[Axis, ...]:
    """The free axes of an arm in a mode: what a search may propose, no more and no less."""
    return ARM_AXES[arm][mode]


def check_axes(arm: Arm, mode: SolveMode, axes: Axes) -> None:
    """Raise `RequestError` where an axis is missing, superfluous or out of its range."""
    if arm not in ARM_AXES or mode not in get_args(SolveMode):
        raise RequestError(
            f"arm and mode must be of {', '.join(ARM_AXES)} and {', '.join(get_args(SolveMode))}, "
            f"got {arm!r} and {mode!r}"
        )
    expected = axes_of(arm, mode)
    for name, value in vars(axes).items():
        if value is None and name in expected:
            raise RequestError(f"the {arm} arm needs {name} where {mode} is solved")
        if value is not None and name not in expected:
            raise RequestError(
                f"the {arm} arm has no {name} where {mode} is solved, got {value}; "
                f"its axes are {', '.join(expected)}"
            )
        if value is not None and not (math.isfinite(value) and value > 0):
            raise RequestError(f"{name} must be positive and finite, got {value}")
    if axes.alpha is not None and axes.alpha >= 1:
        raise RequestError(f"alpha must lie between 0 and 1, got {axes.alpha}")
