"""How large are the residuals, and how large should they be? Lack of fit against seed noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.laws.law import FloatArray
from analysis.points.checked_points import Points


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Residual noise of a fit beside the noise of repeated runs."""

    residual_std: float
    """Root mean square of log residuals with degrees of freedom taken off: a relative error."""
    residual_nats: float
    """The same in nats, at the median loss."""
    robust_std: float
    """1.4826 times the median absolute log residual; insensitive to outliers."""
    degrees_of_freedom: int
    """Rows minus parameters."""
    seed_std: float | None = None
    """Standard deviation of log losses among repeated rows or as given; None where unknown."""
    seed_source: str | None = None
    """Where the seed noise comes from."""
    seed_degrees_of_freedom: int | None = None
    """Degrees of freedom of ``seed_std``; None where it was given."""

    @property
    def lack_of_fit(self) -> float | None:
        """Residual over seed standard deviation; None where the latter is unknown."""
        if self.seed_std is None or self.seed_std <= 0:
            return None
        return self.residual_std / self.seed_std

    @property
    def lack_is_significant(self) -> bool:
        """Whether residuals exceed the seed noise beyond chance (5 %, F or chi squared)."""
        ratio = self.lack_of_fit
        if ratio is None or self.degrees_of_freedom < 1:
            return False
        if self.seed_degrees_of_freedom is None:
            limit = stats.chi2.ppf(0.95, self.degrees_of_freedom) / self.degrees_of_freedom
        else:
            limit = stats.f.ppf(0.95, self.degrees_of_freedom, self.seed_degrees_of_freedom)
        return bool(ratio**2 > limit)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "residual_log_std": self.residual_std,
            "residual_nats": self.residual_nats,
            "robust_log_std": self.robust_std,
            "seed_log_std": self.seed_std,
            "seed_source": self.seed_source,
            "lack_of_fit": self.lack_of_fit,
        }


def noise_of(points: Points, log_residuals: FloatArray, num_parameters: int) -> Noise:
    """Noise of a fit from its log residuals (n,)."""
    freedom = len(log_residuals) - num_parameters
    residual = float(np.sqrt((log_residuals**2).sum() / max(1, freedom)))
    seed, source, seed_freedom = seed_noise(points)
    return Noise(
        residual_std=residual,
        residual_nats=residual * float(np.median(points.losses)),
        robust_std=1.4826 * float(np.median(np.abs(log_residuals))),
        degrees_of_freedom=freedom,
        seed_std=seed,
        seed_source=source,
        seed_degrees_of_freedom=seed_freedom,
    )


def seed_noise(points: Points) -> tuple[float | None, str | None, int | None]:
    """Seed noise of log losses: pooled over rows with equal inputs, else as given per row."""
    inputs = np.stack([points.columns[role] for role in sorted(points.columns)], axis=1)
    rounded = np.round(np.log(np.maximum(inputs, 1e-300)), 9)
    labels = np.unique(rounded, axis=0, return_inverse=True)[1].ravel()
    logs = np.log(points.losses)
    sizes = np.bincount(labels)
    freedom = int((sizes - 1).sum())
    if freedom >= 2:
        means = np.bincount(labels, logs) / sizes
        pooled = float(np.sqrt(((logs - means[labels]) ** 2).sum() / freedom))
        count = freedom + int((sizes > 1).sum())
        return pooled, f"{count} rows that share every column of the law", freedom
    if points.loss_std is not None:
        return float(np.median(points.loss_std / points.losses)), "the loss_std column", None
    return None, None, None
