"""Is a mean told apart from 0, and which of several are? Student's t, Holm's step-down (1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.05
"""Over all that is looked at together."""


@dataclass(frozen=True, kw_only=True)
class Mean:
    """The mean of independent values."""

    value: float
    interval: tuple[float, float] | None
    """95 %; None of fewer than two."""
    chance: float | None
    """Of a mean as far from 0 where there is none, two-sided."""


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of at least one value, by Student's t."""
    from scipy.stats import t

    mean, freedom = fmean(values), len(values) - 1
    if not freedom:
        return Mean(value=mean, interval=None, chance=None)
    error = stdev(values) / math.sqrt(len(values))
    half = float(t.ppf(1 - LEVEL / 2, freedom)) * error
    chance = 1.0
    if mean:
        chance = float(2 * t.sf(abs(mean) / error, freedom)) if error else 0.0
    return Mean(value=mean, interval=(mean - half, mean + half), chance=chance)


def adjusted(chances_C: NDArray[np.float64], is_told_C: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Chances corrected for how many are looked at, those of which something is said."""
    adjusted_C, worst = chances_C.copy(), 0.0
    places = [int(place) for place in np.argsort(chances_C) if is_told_C[place]]
    for rank, place in enumerate(places):
        worst = max(worst, min(1.0, float(chances_C[place]) * (len(places) - rank)))
        adjusted_C[place] = worst
    return adjusted_C


def told_apart(means: Sequence[Mean | None]) -> list[bool | None]:
    """Which means are not 0, all together; None where nothing can be said."""
    chances = [None if mean is None else mean.chance for mean in means]
    known = np.array([chance is not None for chance in chances], dtype=bool)
    values = np.array([1.0 if chance is None else chance for chance in chances])
    corrected = adjusted(values, known)
    return [
        bool(value < LEVEL) if is_known else None
        for value, is_known in zip(corrected.tolist(), known.tolist(), strict=True)
    ]
