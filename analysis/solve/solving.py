"""Where is the optimum of one law on one table? Starts by projection, polished together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from analysis.laws.law import FloatArray, Law
from analysis.objective.estimators import Estimator
from analysis.objective.newton import Optima, minimise
from analysis.objective.surface import Surface
from analysis.points.checked_points import Points
from analysis.solve.variable_projection import starts_by_projection

NUM_STARTS = 12
"""Starts that are polished: the best grid cells that are not neighbours."""

LONG_TABLE, ROWS_FOR_STARTS = 2000, 500
"""Of tables longer than the first, starts are sought on so many rows; all rows polish them."""


@dataclass(frozen=True)
class Solution:
    """Polished starts of one law on one table."""

    points: Points
    surface: Surface
    estimator: Estimator
    optima: Optima
    best: int

    @property
    def law(self) -> Law:
        """The law that was fitted."""
        return self.surface.law

    @property
    def inner(self) -> FloatArray:
        """The optimum in inner coordinates, (P,)."""
        return np.asarray(self.optima.inner[self.best])

    @property
    def optimum(self) -> dict[str, float]:
        """The optimum by name."""
        values = self.surface.outer(self.inner)
        return {n: float(v) for n, v in zip(self.law.parameters, values, strict=True)}

    @property
    def log_residuals(self) -> FloatArray:
        """Log of predicted over measured, (n,)."""
        predicted = self.surface.predict(self.inner[None])[0]
        return np.asarray(np.log(predicted / self.points.losses))

    @property
    def objective(self) -> float:
        """In the estimator's own convention."""
        batch = self.points.batch(on_logs=self.estimator.on_logs)
        residuals = self.surface.residuals(self.inner[None], batch.losses, self.estimator)[0]
        return float(self.estimator.objective(residuals / batch.scale, batch.weights))


def solve(
    points: Points,
    law: Law,
    estimator: Estimator,
    *,
    num_starts: int = NUM_STARTS,
    max_iterations: int = 200,
    fixed: Mapping[str, float] | None = None,
) -> Solution:
    """The optimum from the best grid cells, with some parameters held where asked."""
    surface = replace(points.surface(law), fixed=dict(fixed or {}))
    batch = points.batch(on_logs=estimator.on_logs)
    starts = _starts(points, surface, estimator, num_starts)
    starts = np.clip(starts, surface.lower, surface.upper)
    optima = minimise(surface, starts, batch, estimator, max_iterations=max_iterations)
    settled = np.where(optima.converged, optima.objective, np.inf)
    ranking = settled if np.isfinite(settled).any() else optima.objective
    return Solution(points, surface, estimator, optima, int(ranking.argmin()))


def _starts(points: Points, surface: Surface, estimator: Estimator, num_starts: int) -> FloatArray:
    """Starts (S, P) in the surface's own coordinates, from some of the rows of a long table."""
    if points.num_rows <= LONG_TABLE:
        batch = points.batch(on_logs=estimator.on_logs)
        return starts_by_projection(surface, batch, estimator, num_starts=num_starts)
    drawn = np.random.default_rng(0).choice(points.num_rows, ROWS_FOR_STARTS, replace=False)
    some = np.isin(np.arange(points.num_rows), drawn)
    few = points.select(some, "not drawn for starts")
    small = replace(few.surface(surface.law), fixed=surface.fixed)
    batch = few.batch(on_logs=estimator.on_logs)
    found = starts_by_projection(small, batch, estimator, num_starts=num_starts)
    return surface.inner(small.outer(found))
