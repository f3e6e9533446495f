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
    level: float
    """ln y at the centre."""
    centre: float
    """Of ln C."""
    covariance: FloatArray
    """Of level and exponent, (2, 2)."""
    degrees: int
    """Degrees of freedom that the covariance rests on."""
    scatter: float
    """Standard deviation of what was fitted about the line: of ln y, or of log losses."""

    @property
    def log_coefficient(self) -> float:
        """ln of the coefficient."""
        return self.level - self.exponent * self.centre

    @property
    def exponent_interval(self) -> tuple[float, float]:
        """95 %; noise shared within a budget is covered, since a budget has its own level."""
        half = self._critical * float(np.sqrt(self.covariance[1, 1]))
        return self.exponent - half, self.exponent + half

    @property
    def coefficient_interval(self) -> tuple[float, float]:
        """95 %."""
        return self.at(1.0)[1]

    def at(self, flops: float) -> tuple[float, tuple[float, float]]:
        """Value and 95 % interval of the line at FLOPs."""
        lever = np.array([1.0, np.log(flops) - self.centre])
        value = self.level + self.exponent * float(lever[1])
        half = self._critical * float(np.sqrt(lever @ self.covariance @ lever))
        return float(np.exp(value)), (float(np.exp(value - half)), float(np.exp(value + half)))

    @property
    def _critical(self) -> float:
        return float(stats.t.ppf(0.975, self.degrees))


def power_line(flops: FloatArray, values: FloatArray, std: FloatArray | None = None) -> PowerLine:
    """Least squares of log values on log FLOPs, (G,) each, with weights 1 / std^2 where given."""
    weights = np.ones_like(flops) if std is None else 1.0 / std**2
    weights = weights * len(weights) / weights.sum()
    x, y = np.log(flops), np.log(values)
    centre = float((weights * x).sum() / weights.sum())
    spread = float((weights * (x - centre) ** 2).sum())
    slope = float((weights * (x - centre) * y).sum() / spread)
    level = float((weights * y).sum() / weights.sum())
    rest = y - level - slope * (x - centre)
    variance = float((weights * rest**2).sum()) / max(1, len(x) - 2)
    return PowerLine(
        exponent=slope,
        level=level,
        centre=centre,
        covariance=variance * np.diag([1.0 / len(x), 1.0 / spread]),
        degrees=len(x) - 2,
        scatter=float(np.sqrt(variance)),
    )
