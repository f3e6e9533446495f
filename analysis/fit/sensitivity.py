"""Which rows does the result hang on? Leave out each row, the worst k rows, and each budget."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.fit.fit_result import Fit
from analysis.laws.law import FloatArray
from analysis.objective.newton import SHORT_STEP, Batch, minimise
from spaces.errors import RequestError

LARGEST_DROP = 3
"""Rows that are dropped together at most."""


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What leaving rows out does to one parameter."""

    parameter: str
    full: float
    """Value with all rows."""
    value: float
    """Value without them."""
    rows: tuple[int, ...]
    """Row numbers that were left out."""

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "parameter": self.parameter,
            "full": self.full,
            "value": self.value,
            "rows": list(self.rows),
        }


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The largest shifts of every nonlinear parameter."""

    dropped: tuple[Shift, ...]
    """For every nonlinear parameter, the worst drop of 1, 2, 3 rows found."""
    budgets: tuple[Shift, ...]
    """For every nonlinear parameter and budget, the value without that budget."""

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "drop_rows": [shift.to_dict() for shift in self.dropped],
            "leave_one_budget_out": [shift.to_dict() for shift in self.budgets],
        }


def sensitivity(fit: Fit) -> Sensitivity:
    """Refit without rows and without budgets. Raises `RequestError` where no fit took place.

    The worst k rows are sought by the exact effect of leaving out each row, separately upwards and
    downwards (arXiv 2011.14999 uses its derivative), then refitted together.
    """
    if not fit.optimum or fit.solved_law is not fit.law:
        raise RequestError("sensitivity needs a fit of all parameters, and this one was refused")
    names = fit.law.nonlinear
    singles = _refitted(fit, np.eye(fit.points.num_rows) < 0.5)
    dropped = []
    for name in names:
        place = fit.law.parameters.index(name)
        effect = singles[:, place] - fit.optimum[name]
        for count in range(1, LARGEST_DROP + 1):
            dropped.append(_worst_drop(fit, name, place, effect, count))
    return Sensitivity(dropped=tuple(dropped), budgets=_budget_shifts(fit))


def _refitted(fit: Fit, keep: Any) -> FloatArray:
    """Law parameters (R, P) with only the rows of ``keep`` (R, n)."""
    surface = replace(fit.points.surface(fit.law), fixed=fit.fixed)
    base = fit.points.batch(on_logs=fit.estimator.on_logs)
    weights = base.weights * np.asarray(keep, dtype=np.float64)
    start = surface.inner(np.array([fit.optimum[name] for name in fit.law.parameters]))
    optima = minimise(
        surface,
        np.repeat(start[None], len(weights), axis=0),
        Batch(base.losses, weights, base.scale),
        fit.estimator,
        longest_step=SHORT_STEP,
    )
    return surface.outer(optima.inner)


def _worst_drop(fit: Fit, name: str, place: int, effect: FloatArray, count: int) -> Shift:
    order = np.argsort(effect)
    keep = np.ones((2, len(effect)), dtype=bool)
    keep[0, order[:count]] = False
    keep[1, order[-count:]] = False
    values = _refitted(fit, keep)[:, place]
    worst = int(np.abs(values - fit.optimum[name]).argmax())
    return Shift(
        parameter=name,
        full=fit.optimum[name],
        value=float(values[worst]),
        rows=tuple(int(row) for row in np.sort(fit.points.row_numbers[~keep[worst]])),
    )


def _budget_shifts(fit: Fit) -> tuple[Shift, ...]:
    labels = fit.points.budgets
    if labels is None:
        return ()
    keep = labels[None] != np.arange(fit.points.num_budgets)[:, None]
    values = _refitted(fit, keep)
    return tuple(
        Shift(
            parameter=name,
            full=fit.optimum[name],
            value=float(values[group, fit.law.parameters.index(name)]),
            rows=tuple(int(row) for row in fit.points.row_numbers[labels == group]),
        )
        for group in range(fit.points.num_budgets)
        for name in fit.law.nonlinear
    )
