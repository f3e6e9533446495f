"""Where is the best rate, and what does a transferred one lose? A parabola in log2 of the rate.

``loss = c_seed + curvature * (log2 rate - optimum)^2``: seeds are paired over rates, so each has a
level of its own. Only rates up to ``reach`` octaves from the best one count, since farther off the
curve is no parabola. Intervals (95 %) are of coefficients drawn from their joint t distribution:
exact for normal residuals, wide where few degrees of freedom are left. The transfer loss is
``curvature * (log2 of the transferred rate - optimum)^2`` with the target's curvature and optimum;
a rate far beyond what was tried is extrapolated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.benchmarks.rates.rate_runs import RateRow

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class RateFit:
    """The parabola of one cell."""

    curvature: float
    """Nats per octave squared."""
    optimum: float
    """log2 of the best rate."""
    loss_nats: float
    """Mean over seeds at the optimum."""
    residual_nats: float
    """Standard deviation of a loss from the parabola; NaN without degrees of freedom."""
    curvature_draws: Floats
    """Drawn; empty without degrees of freedom."""
    optimum_draws: Floats
    """Of the same draws; NaN where one has no minimum."""
    is_bracketed: bool
    """Whether both neighbours of the best rate were run and the parabola's minimum lies inside."""
    num_runs: int

    @property
    def curvature_interval(self) -> Interval:
        """95 %."""
        return interval(self.curvature_draws)

    @property
    def rate_interval(self) -> Interval:
        """95 %, of the best rate itself."""
        low, high = interval(self.optimum_draws)
        return 2.0**low, 2.0**high


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a rate that was found elsewhere loses."""

    rate: float
    octaves: float
    """log2 of the rate over the best one."""
    loss_nats: float
    interval: Interval


def fit_rates(
    rows: Sequence[RateRow], *, reach: float = 2.0, num_draws: int = 4000, seed: int = 0
) -> RateFit | None:
    """The parabola of a cell's runs; None where they show no minimum or are fewer than needed."""
    measured = [row for row in rows if row.loss_nats is not None]
    by_rate: dict[float, list[float]] = {}
    for row in measured:
        assert row.loss_nats is not None
        by_rate.setdefault(row.learning_rate, []).append(row.loss_nats)
    if len(by_rate) < 3:
        return None
    best = min(by_rate, key=lambda rate: float(np.mean(by_rate[rate])))
    near = [row for row in measured if abs(np.log2(row.learning_rate / best)) <= reach + 1e-9]
    octaves: Floats = np.array([np.log2(row.learning_rate / best) for row in near])
    losses: Floats = np.array([row.loss_nats for row in near], dtype=np.float64)
    design = _design(octaves, [row.seed for row in near])
    solved = _solved(design, losses)
    curvature, optimum = _shape(solved)
    if len(set(octaves)) < 3 or not np.isfinite(optimum):
        return None
    draws = _draws(design, losses, num_draws=num_draws, seed=seed)
    free = len(losses) - design.shape[1]
    residuals = losses - design @ solved
    return RateFit(
        curvature=curvature,
        optimum=float(optimum + np.log2(best)),
        loss_nats=float(np.mean(solved[2:]) - curvature * optimum**2),
        residual_nats=float(np.sqrt(residuals @ residuals / free)) if free > 0 else np.nan,
        curvature_draws=np.array([draw[0] for draw in draws]),
        optimum_draws=np.array([draw[1] + np.log2(best) for draw in draws]),
        is_bracketed=bool(min(octaves) < 0 < max(octaves))
        and bool(min(octaves) <= optimum <= max(octaves)),
        num_runs=len(near),
    )


def _design(octaves: Floats, seeds: Sequence[int]) -> Floats:
    """Columns: octaves squared, octaves, and one for each seed."""
    of_seed = [[float(seed == each) for each in sorted(set(seeds))] for seed in seeds]
    columns: Floats = np.column_stack([octaves**2, octaves, np.array(of_seed)]).astype(np.float64)
    return columns


def _solved(design: Floats, losses: Floats) -> Floats:
    solution = np.linalg.lstsq(design, losses, rcond=None)[0]
    return solution.astype(np.float64)


def _shape(solved: Floats) -> tuple[float, float]:
    """Curvature, and the minimum in octaves from the best rate; NaN where there is none."""
    curvature, slope = float(solved[0]), float(solved[1])
    return curvature, -slope / (2 * curvature) if curvature > 0 else np.nan


def _draws(
    design: Floats, losses: Floats, *, num_draws: int, seed: int
) -> list[tuple[float, float]]:
    """Curvature and minimum of coefficients drawn from their joint t distribution."""
    free = len(losses) - design.shape[1]
    if free <= 0:
        return []
    solved = _solved(design, losses)
    residuals = losses - design @ solved
    covariance = np.linalg.inv(design.T @ design) * (residuals @ residuals) / free
    rng = np.random.default_rng(seed)
    normal = rng.multivariate_normal(np.zeros(len(solved)), covariance, size=num_draws)
    spread = np.sqrt(free / rng.chisquare(free, size=num_draws))
    return [_shape(solved + spread[each] * normal[each]) for each in range(num_draws)]


def transfer(target: RateFit, reference: RateFit, *, factor: float) -> Transfer:
    """What the reference's best rate times a factor loses at the target."""
    off = reference.optimum + np.log2(factor) - target.optimum
    count = min(len(reference.optimum_draws), len(target.optimum_draws))
    octaves = reference.optimum_draws[:count] + np.log2(factor) - target.optimum_draws[:count]
    draws = target.curvature_draws[:count] * octaves**2
    return Transfer(
        rate=float(2.0**reference.optimum * factor),
        octaves=float(off),
        loss_nats=float(target.curvature * off**2),
        interval=interval(draws),
    )


def interval(draws: Floats) -> Interval:
    """2.5 % and 97.5 % of the finite draws; NaN where there are none."""
    finite = draws[np.isfinite(draws)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, (0.025, 0.975))
    return float(low), float(high)
