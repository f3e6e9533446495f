"""Which values of one parameter would the data accept? The profile of the objective.

The parameter is held at each of many values and everything else is fitted again; the rise of the
objective, in units of its own curvature and noise, is compared with chi squared (squares: F).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats

from analysis.fit.fit_result import Fit
from analysis.laws.law import FloatArray
from analysis.objective.estimators import Estimator
from analysis.objective.newton import minimise
from analysis.points.checked_points import Points
from analysis.solve.solving import Solution, solve
from spaces.errors import RequestError

NUM_VALUES = 25
"""Values at which a profile is taken."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The objective along one parameter."""

    parameter: str
    values: FloatArray
    """(V,) ascending."""
    rise: FloatArray
    """(V,) rise of the objective over its minimum in units in which ``threshold`` is 95 %."""
    threshold: float
    """95 % point of the reference distribution."""

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """Ends of the accepted values; None where the profile stays under the threshold."""
        inside = np.flatnonzero(self.rise <= self.threshold)
        if not len(inside):
            return None, None
        first, last = int(inside[0]), int(inside[-1])
        low = None if first == 0 else self._crossing(first - 1, first)
        high = None if last == len(self.values) - 1 else self._crossing(last, last + 1)
        return low, high

    def _crossing(self, left: int, right: int) -> float:
        part = (self.threshold - self.rise[left]) / (self.rise[right] - self.rise[left])
        return float(self.values[left] + part * (self.values[right] - self.values[left]))

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON; an open end of the interval is null."""
        return {
            "parameter": self.parameter,
            "values": self.values.tolist(),
            "rise": self.rise.tolist(),
            "threshold": self.threshold,
            "interval": [*self.interval],
        }


def profile(fit: Fit, name: str, *, num_values: int = NUM_VALUES) -> Profile:
    """Profile of the offset, an exponent or a shape parameter. Raises `RequestError` for others.

    The range is four times the interval where there is one, clipped to the bounds; the offset of a
    fit that runs to zero is profiled from zero to the smallest loss.
    """
    law = fit.law
    allowed = tuple(n for n in (law.offset, *law.nonlinear) if n not in fit.fixed)
    if name not in allowed:
        raise RequestError(f"a profile is taken of {', '.join(allowed)}, got {name!r}")
    if not fit.optimum:
        raise RequestError(f"no fit took place: {fit.certificate.reasons[0].message}")
    free = solve(fit.points, law, fit.estimator, fixed=fit.fixed)
    low, high = _range(fit, free, name)
    values = np.unique(np.append(np.linspace(low, high, num_values), free.optimum[name]))
    values = values[(values >= low) & (values <= high)]
    raw = _objectives(free, name, values)
    lowest = min(float(raw.min()), float(free.optima.objective[free.best]))
    unit, threshold = _unit(fit.points, fit.estimator, free, lowest)
    return Profile(parameter=name, values=values, rise=(raw - lowest) / unit, threshold=threshold)


def _range(fit: Fit, free: Solution, name: str) -> tuple[float, float]:
    law, smallest = fit.law, float(fit.points.losses.min())
    low, high = (0.0, smallest)
    if name != law.offset:
        bounds = law.bounds_of(name)
        low, high = bounds.low, bounds.high
    interval, centre = fit.intervals.get(name), free.optimum[name]
    if interval is not None and centre > low and np.isfinite(interval).all():
        reach = max(centre - interval[0], interval[1] - centre)
        if reach > 0:
            return max(low, centre - 4.0 * reach), min(high, centre + 4.0 * reach)
    return low, high


def _objectives(free: Solution, name: str, values: FloatArray) -> FloatArray:
    """The smallest rounded objective with ``name`` held at each value, (V,)."""
    batch = free.points.batch(on_logs=free.estimator.on_logs)
    found = np.empty(len(values))
    near = np.argsort(np.abs(values - free.optimum[name]))
    warm = free.inner
    for order, place in enumerate(near):
        held = solve(
            free.points,
            free.law,
            free.estimator,
            num_starts=4,
            fixed={**free.surface.fixed, name: float(values[place])},
        )
        again = minimise(held.surface, np.stack([warm, held.inner]), batch, free.estimator)
        best = int(again.objective.argmin())
        found[place] = again.objective[best]
        if order % 2:
            warm = again.inner[best]
    return found


def _unit(
    points: Points, estimator: Estimator, free: Solution, lowest: float
) -> tuple[float, float]:
    """What one unit of rise is worth, and the 95 % threshold.

    Squares: ``(RSS / RSS_min - 1) (n - P)`` against F. Robust losses: twice the rise times the mean
    curvature over the mean squared slope, against chi squared (Huber and Ronchetti 2009, section
    7.6); the mean curvature is that of normal noise of the residuals' robust scale.
    """
    freedom = max(1, points.num_rows - len(free.law.parameters))
    batch = points.batch(on_logs=estimator.on_logs)
    residuals = free.surface.residuals(free.inner[None], batch.losses, estimator)[0] / batch.scale
    turning = estimator.turning_point
    floor = 1e-300 + points.num_rows * 1e-28
    if turning is None:
        return lowest / freedom + floor, float(stats.f.ppf(0.95, 1, freedom))
    slope = estimator.rounded(residuals, turning)[1]
    scale = 1.4826 * float(np.median(np.abs(residuals))) + 1e-14
    curvature = float(special.erf(turning / (scale * np.sqrt(2.0))))
    squared = float((slope**2).sum()) / freedom
    return squared / (2.0 * curvature) + floor, float(stats.chi2.ppf(0.95, 1))
