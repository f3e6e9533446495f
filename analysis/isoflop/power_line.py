"""What straight line runs through logarithms, and how sure is it? Exponents from optima."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.laws.law import FloatArray


@dataclass(frozen=True, kw_only=True)
class PowerLine:
    """A straight line through logarithms, ``y = coefficient * C^exponent``."""

    exponent: float
    log_coefficient: float
    centre: float
    """Mean of log C."""
    scatter: float
    """Standard deviation of log y about the line."""
    spread: float
    """Sum of squares of log C about its mean."""
    num_points: int

    @property
    def critical(self) -> float:
        """Student's t for 95 % with ``num_points - 2`` degrees of freedom."""
        return float(stats.t.ppf(0.975, self.num_points - 2))

    @property
    def exponent_interval(self) -> tuple[float, float]:
        """95 %; noise shared within a budget is covered, since a budget is one point here."""
        half = self.critical * self.scatter / np.sqrt(self.spread)
        return self.exponent - half, self.exponent + half

    @property
    def coefficient_interval(self) -> tuple[float, float]:
        """95 %."""
        value, half = self._at(0.0)
        return float(np.exp(value - half)), float(np.exp(value + half))

    def at(self, flops: float) -> tuple[float, tuple[float, float]]:
        """Value and 95 % interval of the line at FLOPs."""
        value, half = self._at(float(np.log(flops)))
        return float(np.exp(value)), (float(np.exp(value - half)), float(np.exp(value + half)))

    def _at(self, log_flops: float) -> tuple[float, float]:
        value = self.log_coefficient + self.exponent * log_flops
        lever = 1.0 / self.num_points + (log_flops - self.centre) ** 2 / self.spread
        return value, self.critical * self.scatter * float(np.sqrt(lever))


def power_line(flops: FloatArray, values: FloatArray, std: FloatArray | None = None) -> PowerLine:
    """Least squares of log values on log FLOPs, (G,) each, with weights 1 / std^2 where given."""
    weights = np.ones_like(flops) if std is None else 1.0 / std**2
    weights = weights * len(weights) / weights.sum()
    x, y = np.log(flops), np.log(values)
    centre = float((weights * x).sum() / weights.sum())
    spread = float((weights * (x - centre) ** 2).sum())
    slope = float((weights * (x - centre) * y).sum() / spread)
    level = float((weights * y).sum() / weights.sum()) - slope * centre
    rest = y - level - slope * x
    return PowerLine(
        exponent=slope,
        log_coefficient=level,
        centre=centre,
        scatter=float(np.sqrt((weights * rest**2).sum() / max(1, len(x) - 2))),
        spread=spread,
        num_points=len(x),
    )
