"""How sure is a difference? Units drawn again.

The test divides by the bootstrap's standard error, with Student's t for units less one.

Shapes in names: R resamples, U units that are drawn, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.solve.told_apart import LEVEL

FEWEST_UNITS = 10
"""Documents, or sentences, that hold something before anything is said of it."""
EXACTLY_EQUAL = 1e-6
"""Differences of float32 values no larger are rounding."""

Array = NDArray[np.float64]


def resample_weights(num_units: int, resamples: int, rng: np.random.Generator) -> Array:
    """How often each unit is in each resample, R x U."""
    shares_U = np.full(num_units, 1 / num_units)
    return rng.multinomial(num_units, shares_U, size=resamples).astype(float)


def interval(values_R: Array) -> tuple[float, float]:
    """95 % of the resampled values; those that are NaN tell nothing."""
    low, high = np.nanquantile(values_R, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def p_values(difference_C: Array, differences_RC: Array, num_units: int) -> Array:
    """Of no difference: Student's t with the bootstrap's standard error; 1 for a single unit."""
    if num_units < 2:
        return np.ones_like(difference_C)
    spread_C = np.sqrt(np.nanmean((differences_RC - difference_C) ** 2, axis=0))
    spread_C *= np.sqrt(num_units / (num_units - 1))
    is_equal_C = np.abs(difference_C) <= EXACTLY_EQUAL
    statistic_C = np.abs(difference_C) / np.maximum(spread_C, EXACTLY_EQUAL / 10)
    return np.where(is_equal_C, 1.0, 2 * stats.t.sf(statistic_C, num_units - 1))
