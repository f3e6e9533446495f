"""Which sizes does a law need of an arm at a budget? From a quarter to four times the best one.

Runs that cluster around the best shape say how good it is and next to nothing about a law's
exponents: at equal FLOPs, sizes from 1/4 to 4 times the optimum halve the errors of alpha and beta
against sizes from 1/2 to 2 times (docs/designing.md). What else an arm chooses (loops, widths of
paths) takes its values in turn along the sizes, so that it is not confounded with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from search.limits.law_rows import why_no_law_uses
from search.propose.baselines import BASELINE_TOKENS_PER_PARAMETER
from search.record.trial import Proposal
from spaces.axes import LEARNING_RATE_MULTIPLIER, AxisValue
from spaces.parameters import count_parameters

SIZES = (1.0, 2.0, 0.5, 4.0, 0.25)
"""Multiples of the expected best size, in the order of trial."""
SIZES_BETWEEN = (1.4, 0.7, 2.8, 0.35)
"""What a design chooses from besides."""
NEAR = math.log(2) * 0.3
"""A size covers another where their logarithms differ by less."""

_SHAPE = ("num_layers", "d_model")
_FIXED = ("step_scale_init", "step_scales", LEARNING_RATE_MULTIPLIER.name)


def log_size(proposal: Proposal) -> float:
    """ln of a shape's size over the best one expected at its budget.

    At equal FLOPs, parameters times tokens is nearly constant: a shape of s times the best size
    sees 1 / s^2 of its tokens per parameter.
    """
    total = count_parameters(proposal.config.architecture).total
    return math.log(BASELINE_TOKENS_PER_PARAMETER * total / proposal.config.tokens) / 2


def missing_sizes(tried: Sequence[Proposal], wanted: Sequence[float]) -> list[float]:
    """Multiples of the best size that no shape covers yet, in the order of ``wanted``."""
    return [size for size in wanted if not any(covers(each, size) for each in tried)]


def covers(proposal: Proposal, size: float) -> bool:
    """Whether a shape is near enough to a multiple of the best size."""
    return abs(log_size(proposal) - math.log(size)) < NEAR


def at_size(
    size: float,
    axes: Mapping[str, tuple[AxisValue, ...]],
    attempt: Callable[[dict[str, AxisValue]], Proposal | None],
    *,
    turn: int,
    num_train_tokens: int | None,
) -> Proposal | None:
    """A shape near a multiple of the best size that a law may use; None where none is near.

    Of the depths, the nearest to the middle one that has such a shape, since a law knows sizes and
    not aspects. ``turn`` chooses the values of the other axes.
    """
    for depth in _depths(axes):
        shapes = _shapes(axes, depth, turn, attempt, num_train_tokens)
        found = _nearest(shapes, size)
        if found is not None:
            return found
    return None


def spread(
    axes: Mapping[str, tuple[AxisValue, ...]],
    attempt: Callable[[dict[str, AxisValue]], Proposal | None],
    *,
    num_train_tokens: int | None,
) -> list[Proposal]:
    """Shapes of every size that a law may use, for every turn of the other axes, each once."""
    turns = max((len(v) for name, v in axes.items() if name not in _FIXED + _SHAPE), default=1)
    found: dict[str, Proposal] = {}
    for turn in range(turns):
        left = list(SIZES + SIZES_BETWEEN)
        for depth in _depths(axes):
            shapes = _shapes(axes, depth, turn, attempt, num_train_tokens) if left else []
            nearest = {size: _nearest(shapes, size) for size in left}
            found |= {each.config_hash: each for each in nearest.values() if each is not None}
            left = [size for size in left if nearest[size] is None]
    return list(found.values())


def _depths(axes: Mapping[str, tuple[AxisValue, ...]]) -> list[AxisValue]:
    """From the middle one on."""
    depths = axes.get("num_layers", ())
    middle = float(depths[len(depths) // 2]) if depths else 1.0
    return sorted(depths, key=lambda each: abs(math.log(float(each) / middle)))


def _shapes(
    axes: Mapping[str, tuple[AxisValue, ...]],
    depth: AxisValue,
    turn: int,
    attempt: Callable[[dict[str, AxisValue]], Proposal | None],
    num_train_tokens: int | None,
) -> list[Proposal]:
    """What a law may use of one depth, over all widths."""
    fixed = {
        name: values[len(values) // 2] if name in _FIXED else values[(turn + place) % len(values)]
        for place, (name, values) in enumerate(axes.items())
        if name not in _SHAPE
    }
    widths = axes.get("d_model", ())
    found = (attempt(fixed | {"num_layers": depth, "d_model": width}) for width in widths)
    return [
        each
        for each in found
        if each is not None
        and why_no_law_uses(each.config, num_train_tokens=num_train_tokens) is None
    ]


def _nearest(shapes: Sequence[Proposal], size: float) -> Proposal | None:
    """The one that covers a multiple of the best size best; None where none does."""
    found = min(shapes, key=lambda each: abs(log_size(each) - math.log(size)), default=None)
    return found if found is not None and covers(found, size) else None
