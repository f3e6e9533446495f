"""By what loss is a law fitted? Four named estimators; a figure never travels without its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from analysis.laws.law import FloatArray
from spaces.errors import RequestError

EstimatorName = Literal["huber", "lad", "log-mse", "mse"]
Reduction = Literal["sum", "mean"]

LAD_DELTA = 1e-8
"""Half-width of the parabola that rounds |r| at zero, so that one Newton method serves LAD too.

At the optimum as many residuals as parameters lie inside it; the sum of |r| is therefore off by at
most 1e-8 per parameter."""


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """A named loss of residuals.

    Residuals are ``log(predicted) - log(measured)`` for ``huber``, ``lad`` and ``log-mse``, and
    ``predicted - measured`` for ``mse``. Known standard deviations (of the loss, in nats) divide
    the residual (after division by the loss where residuals are logarithmic), so that ``delta`` is
    then in standard deviations; weights multiply each row's share of the objective.
    """

    name: EstimatorName = "huber"
    """``huber``, ``lad``, ``log-mse`` or ``mse``."""
    delta: float = 1e-3
    """Where Huber's parabola turns into a line; unused by the others."""
    reduction: Reduction = "sum"
    """Whether the reported objective is a sum over rows or their mean; the optimum is the same."""

    def __post_init__(self) -> None:
        if self.name not in get_args(EstimatorName):
            names = ", ".join(get_args(EstimatorName))
            raise RequestError(f"an estimator is one of {names}, got {self.name!r}")
        if not (self.delta > 0 and np.isfinite(self.delta)):
            raise RequestError(f"delta must be positive and finite, got {self.delta}; use 1e-3")

    @property
    def on_logs(self) -> bool:
        """Whether residuals are differences of logarithms."""
        return self.name != "mse"

    @property
    def is_robust(self) -> bool:
        """Whether large residuals count linearly."""
        return self.name in ("huber", "lad")

    @property
    def turning_point(self) -> float | None:
        """Where the parabola ends: delta, the tiny rounding of LAD, or None for squares."""
        return {"huber": self.delta, "lad": LAD_DELTA}.get(self.name)

    @property
    def convention(self) -> str:
        """The objective in words."""
        kind = {
            "huber": f"Huber(delta={self.delta:g}) of log residuals",
            "lad": "|log residual|",
            "log-mse": "squared log residual",
            "mse": "squared residual (nats)",
        }[self.name]
        return f"{self.reduction} over rows of {kind}"

    def rounded(self, residuals: FloatArray, delta: float | None) -> tuple[Any, Any, Any]:
        """Value, slope and curvature of the rounded loss; ``None`` means half the square.

        Scaled so that the curvature inside the parabola is 1: Huber's own scale.
        """
        if delta is None:
            return 0.5 * residuals**2, residuals, np.ones_like(residuals)
        size = np.abs(residuals)
        slope = np.clip(residuals, -delta, delta)
        value = np.abs(slope) * (size - 0.5 * np.abs(slope))
        return value, slope, (size <= delta).astype(np.float64)

    def objective(self, residuals: FloatArray, weights: FloatArray | float = 1.0) -> Any:
        """The reported objective over the last axis, in the stated reduction."""
        if self.name == "huber":
            each = self.rounded(residuals, self.delta)[0]
        elif self.name == "lad":
            each = np.abs(residuals)
        else:
            each = residuals**2
        weighted = each * weights
        return weighted.sum(-1) if self.reduction == "sum" else weighted.mean(-1)
