"""Which value of a list that was tried is best? The first looks at an arm: its rates, its starts.

Each arm trains its baseline shape at the smallest budget over a list of multiples of the rule's
learning rate, then over starts of the step scales at the best of these. What comes after is up to
`search.belief.rates`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spaces.arms.dual_path import STEP_SCALE_INIT

STEP_SCALE = STEP_SCALE_INIT.name

TIE = 1.645 * math.sqrt(2)
"""Seed noises by which one run must beat another: one-sided, 5 %."""


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


def choose_start(
    losses: Mapping[float, float | None], *, own: float, noise_nats: float
) -> Choice | None:
    """The best start of the step scales; the axis's own where no other beats it by more than a tie.

    None where none trained.
    """
    choice = choose_value(losses, logarithmic=False)
    stays, best = losses.get(own), None if choice is None else losses[choice.value]
    if choice is None or stays is None or best is None or stays - best > TIE * noise_nats:
        return choice
    tried = sorted(losses)
    return Choice(value=own, at_edge=own in (tried[0], tried[-1]))
