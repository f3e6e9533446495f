"""How does the best size grow with compute, by one curve that all budgets share?

Each budget's own parabola finds its own minimum, and a line through few minima knows little of its
error. Here every budget has a level, the curve has one shape, flatter with compute as there is less
loss left to gain, and the minimum moves along the line:

    ln L = level(budget) + (C / C0)^-fall (bend u^2 + skew u^3)
    u = ln N - ln N0 - a ln(C / C0)

fitted at once, robustly (Huber, 1964, Ann. Math. Stat. 35, 73). What the runs of a budget share is
in its level; the error of `a` comes from the scatter of all runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from analysis.isoflop.power_line import PowerLine
from analysis.laws.law import FloatArray

HUBER = 1.345
"""Residuals beyond so many standard deviations are weighted down: 95 % efficient at the normal."""

SURE_BEND = 3.0
"""Standard errors that the bend must be above zero; below, the minimum may lie anywhere."""

FEWEST_BUDGETS = 3
FEWEST_DEGREES = 4
"""Runs beyond the unknowns."""

REWEIGHTINGS = 20

EXACT = 1e-9
"""Residuals below are those of losses without noise."""

STEEPEST = 20.0
"""Logarithm of the most that the bend changes; losses without a curve lead anywhere."""

SHAPES = 5
"""Start, exponent, bend, fall and skew."""


@dataclass(frozen=True, kw_only=True)
class PooledRuns:
    """Runs (n,) of several budgets: ln C, ln of the size, ln of the loss, and the budget."""

    log_flops: FloatArray
    log_sizes: FloatArray
    log_losses: FloatArray
    budgets: NDArray[np.int64]

    def residuals(self, shape: FloatArray, weights: FloatArray) -> FloatArray:
        """Log losses about the curve (n,), each budget's level solved."""
        start, exponent, bend, fall, skew = shape
        z = self.log_flops - self.log_flops.mean()
        u = self.log_sizes - start - exponent * z
        flatter = np.exp(np.clip(-fall * z, -STEEPEST, STEEPEST))
        rest: FloatArray = self.log_losses - flatter * (bend * u**2 + skew * u**3)
        totals = np.bincount(self.budgets, weights)
        levels = np.bincount(self.budgets, weights * rest) / totals
        return rest - levels[self.budgets]

    @property
    def degrees(self) -> int:
        """Degrees of freedom: runs less levels and the shape."""
        return len(self.log_losses) - len(np.unique(self.budgets)) - SHAPES


def pooled_line(runs: PooledRuns) -> PowerLine | str:
    """The line of the best size against C, or why there is none, in words."""
    num_budgets = len(np.unique(runs.budgets))
    if num_budgets < FEWEST_BUDGETS or runs.degrees < FEWEST_DEGREES:
        return (
            f"{len(runs.log_losses)} runs at {num_budgets} budgets are too few for one curve over "
            f"all budgets: it takes {FEWEST_BUDGETS} budgets and {FEWEST_DEGREES} runs beyond its "
            f"{num_budgets + SHAPES} unknowns; add sizes"
        )
    shape, weights = _robust(runs)
    covariance = _covariance(runs, shape, weights)
    if shape[2] < SURE_BEND * np.sqrt(covariance[2, 2]):
        return (
            "losses do not bend enough over the sizes to have a minimum: add sizes from a quarter "
            "to four times the best one, or seeds"
        )
    inside = _budgets_with_minimum(runs, shape)
    if inside < FEWEST_BUDGETS:
        return (
            f"the minimum lies among the sizes of {inside} of {num_budgets} budgets only: add "
            f"sizes on the side that is missing"
        )
    return PowerLine(
        exponent=float(shape[1]),
        level=float(shape[0]),
        centre=float(runs.log_flops.mean()),
        covariance=covariance[:2, :2],
        degrees=runs.degrees,
        scatter=float(np.sqrt(_variance(runs, shape, weights))),
    )


def _robust(runs: PooledRuns) -> tuple[FloatArray, FloatArray]:
    """Shape (start, exponent, bend, fall, skew) and the weight of every run, until they agree."""
    weights = np.ones_like(runs.log_losses)
    shape = _first(runs)
    for _ in range(REWEIGHTINGS):
        shape = _solved(runs, shape, weights)
        rest = np.abs(runs.residuals(shape, weights))
        scale = float(np.median(rest)) / 0.6745 * np.sqrt(len(rest) / runs.degrees)
        new = np.minimum(1.0, HUBER * max(scale, EXACT) / np.maximum(rest, EXACT))
        if np.abs(new - weights).max() < 1e-3:
            break
        weights = new
    return shape, weights


def _first(runs: PooledRuns) -> FloatArray:
    """By linear least squares without skew, about the sizes' own line."""
    z = runs.log_flops - runs.log_flops.mean()
    slope, middle = np.polyfit(z, runs.log_sizes, 1)
    x = runs.log_sizes - middle - slope * z
    columns = [x**2, x, x * z, *(runs.budgets == each for each in np.unique(runs.budgets))]
    bend, linear, moving, *_ = np.linalg.lstsq(np.stack(columns, 1), runs.log_losses, rcond=None)[0]
    bend = max(float(bend), 1e-4)
    most = float(np.ptp(x))
    start, drift = (float(np.clip(-each / (2 * bend), -most, most)) for each in (linear, moving))
    return np.array([middle + start, slope + drift, bend, 0.0, 0.0])


def _solved(runs: PooledRuns, shape: FloatArray, weights: FloatArray) -> FloatArray:
    """Least squares from a shape on: first as skewed as it is, since a cubic has two turning
    points, then free."""
    root, skew = np.sqrt(weights), shape[-1:]

    def rest(shape: FloatArray) -> FloatArray:
        return root * runs.residuals(shape, weights)

    first = least_squares(lambda each: rest(np.append(each, skew)), shape[:-1], method="lm").x
    return np.asarray(least_squares(rest, np.append(first, skew), method="lm").x)


def _variance(runs: PooledRuns, shape: FloatArray, weights: FloatArray) -> float:
    """Of one run's log loss, as Huber's estimator knows it: runs beyond the corner count as if on
    it, the share of those within is what informs, and few runs know that share badly
    (Huber 1981, Robust Statistics, eq. 7.6.10)."""
    kept, within = weights * runs.residuals(shape, weights), float((weights == 1.0).mean())
    few = 1.0 + (1.0 - runs.degrees / len(kept)) * (1.0 - within) / within
    return float(kept @ kept) / runs.degrees * (few / within) ** 2


def _covariance(runs: PooledRuns, shape: FloatArray, weights: FloatArray) -> FloatArray:
    """Of the shape, (5, 5)."""
    jacobian = _jacobian(runs, shape)
    return np.asarray(_variance(runs, shape, weights) * np.linalg.pinv(jacobian.T @ jacobian))


def _jacobian(runs: PooledRuns, shape: FloatArray) -> FloatArray:
    """Of the residuals, (n, 5), by central differences."""
    columns, weights = [], np.ones_like(runs.log_losses)
    for place, value in enumerate(shape):
        step = np.zeros(SHAPES)
        step[place] = 1e-5 * max(1.0, abs(value))
        up, down = runs.residuals(shape + step, weights), runs.residuals(shape - step, weights)
        columns.append((up - down) / (2 * step[place]))
    return np.stack(columns, axis=1)


def _budgets_with_minimum(runs: PooledRuns, shape: FloatArray) -> int:
    """Budgets of three or more sizes that lie on both sides of the line."""
    line = shape[0] + shape[1] * (runs.log_flops - runs.log_flops.mean())
    above = runs.log_sizes - line
    groups = (above[runs.budgets == each] for each in np.unique(runs.budgets))
    return sum(len(np.unique(each.round(2))) > 2 and each.min() < 0 < each.max() for each in groups)
