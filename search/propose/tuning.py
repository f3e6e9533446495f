"""Is every arm at its own learning rate? A stage at the smallest budget, and a rule to the others.

Each arm trains its baseline shape at the smallest budget over a list of multiples of the rule's
learning rate, then over starts of the step scales at the best of these. The choice transfers to
every other shape and budget through the rule itself, rate ~ width^a (effective depth)^b: the
multiplier stays. At the largest budget the neighbours of the chosen multiplier are tried on the
arm's leader, which shows whether the transfer held.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.asked.settings import TuningSettings
from spaces.axes import AxisValue

RATE = "learning_rate_multiplier"
STEP_SCALE = "step_scale_init"
_DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What a list of tried values says."""

    value: float
    """The best value of the list."""
    at_edge: bool
    """Whether it is the first or last of the list, so that a better one may lie beyond."""


def choose_value(losses: Mapping[float, float | None], *, logarithmic: bool) -> Choice | None:
    """The best of the tried values; None where none trained.

    With four values or more that trained, a parabola smooths the noise; where it has no minimum,
    or with fewer, the lowest loss decides. A value without a loss diverged.
    """
    trained = {value: loss for value, loss in losses.items() if loss is not None}
    if not trained:
        return None
    values = sorted(trained)
    ranked = {value: trained[value] for value in values}
    if len(values) >= 4:
        x = np.log(values) if logarithmic else np.array(values)
        x = (x - x.mean()) / x.std()
        curve = np.polyfit(x, [trained[value] for value in values], 2)
        if curve[0] > 0:
            ranked = dict(zip(values, np.polyval(curve, x).tolist(), strict=True))
    best = min(values, key=lambda value: ranked[value])
    tried = sorted(losses)
    return Choice(value=best, at_edge=best in (tried[0], tried[-1]))


def transferred(values: Sequence[AxisValue], multiplier: float) -> tuple[AxisValue, ...]:
    """The learning rate axis around the tuned multiplier."""
    return tuple(significant(float(value) * multiplier) for value in values)


def neighbours(settings: TuningSettings, multiplier: float) -> tuple[float, float]:
    """The tried multipliers beside one; beyond an end, the list goes on by its last factor."""
    values = settings.learning_rate_multipliers
    place = min(range(len(values)), key=lambda i: abs(math.log(values[i] / multiplier)))
    below = values[place - 1] if place > 0 else values[0] ** 2 / values[1]
    above = values[place + 1] if place + 1 < len(values) else values[-1] ** 2 / values[-2]
    return significant(below), significant(above)


def possible_rates(settings: TuningSettings, axis: Sequence[AxisValue]) -> set[float]:
    """Every multiplier that a tuned sweep may propose."""
    tried = settings.learning_rate_multipliers
    ends = {side for value in tried for side in neighbours(settings, value)}
    spread = {float(rate) for value in tried for rate in transferred(axis, value)}
    beside = {significant(side * float(value)) for side in ends for value in axis}
    return {significant(value) for value in tried} | ends | spread | beside


def significant(value: float) -> float:
    """The value to six digits, so that products of list values stay equal."""
    return float(f"{value:.{_DIGITS}g}")
