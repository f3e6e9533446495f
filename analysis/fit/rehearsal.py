"""Would this law have predicted what it has not seen? Hold runs out, predict them, compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.fit.fit_result import Fit, Prediction
from analysis.fit.fitting import fit
from analysis.laws.law import FloatArray
from analysis.points.checked_points import Points
from spaces.errors import RequestError

SPEC_HELP = "largest-budget, largest-budgets:K, a fraction such as 0.2 (of the FLOPs), or sizes:K"


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Held-out runs, predicted by a fit of the others."""

    hold_out: str
    """What was held out, as asked."""
    fit: Fit
    """The fit of the remaining rows."""
    rows: NDArray[np.int64]
    """Row numbers of the held-out runs, (m,)."""
    measured: FloatArray
    """Their losses, nats, (m,)."""
    prediction: Prediction | None
    """None where the fit of the rest is refused."""

    @property
    def errors(self) -> FloatArray | None:
        """Predicted minus measured, nats, (m,)."""
        return None if self.prediction is None else self.prediction.losses - self.measured

    @property
    def coverage(self) -> float | None:
        """Share of held-out runs inside the interval for one new run."""
        if self.prediction is None:
            return None
        inside = (self.prediction.run_low <= self.measured) & (
            self.measured <= self.prediction.run_high
        )
        return float(inside.mean())

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        errors, noise = self.errors, self.fit.noise
        error = None if errors is None else float(np.abs(errors).mean())
        return {
            "hold_out": self.hold_out,
            "status": self.fit.status,
            "reasons": [reason.to_dict() for reason in self.fit.certificate.reasons],
            "num_fitted": self.fit.points.num_rows,
            "num_held_out": len(self.rows),
            "mean_absolute_error_nats": error,
            "bias_nats": None if errors is None else float(errors.mean()),
            "residual_nats": None if noise is None else noise.residual_nats,
            "seed_log_std": None if noise is None else noise.seed_std,
            "coverage": self.coverage,
            "nominal_coverage": None if self.fit.replicates is None else self.fit.replicates.level,
            "runs": self._runs(),
        }

    def _runs(self) -> list[dict[str, Any]]:
        if self.prediction is None:
            return []
        p = self.prediction
        return [
            {
                "row": int(row),
                "measured": float(self.measured[i]),
                "predicted": float(p.losses[i]),
                "interval": [float(p.run_low[i]), float(p.run_high[i])],
                "outside_data_factor": float(p.outside_data_factor[i]),
            }
            for i, row in enumerate(self.rows)
        ]


def rehearse(full: Fit, hold_out: str, *, num_resamples: int = 1000, seed: int = 0) -> Rehearsal:
    """Fit ``full``'s law to the rows that are not held out and predict the others.

    Raises `RequestError` for a specification that holds out nothing or everything.
    """
    points = full.points
    out = held_out(points, hold_out)
    if out.all() or not out.any():
        raise RequestError(f"--hold-out {hold_out} holds out {int(out.sum())} of {len(out)} rows")
    rest = fit(
        full.law,
        points.select(~out, f"held out: {hold_out}"),
        estimator=full.estimator,
        num_resamples=num_resamples,
        seed=seed,
        fixed=full.fixed,
    )
    refused = any(reason.status == "refused" for reason in rest.certificate.reasons)
    columns = {role: points.columns[role][out] for role in full.law.roles}
    return Rehearsal(
        hold_out=hold_out,
        fit=rest,
        rows=points.row_numbers[out],
        measured=points.losses[out],
        prediction=None if refused else rest.predict(columns),
    )


def held_out(points: Points, spec: str) -> NDArray[np.bool_]:
    """Which rows (n,) a specification holds out. Raises `RequestError` for what it cannot mean."""
    name, _, count = spec.partition(":")
    if name in ("largest-budget", "largest-budgets"):
        return _largest_budgets(points, int(count) if count.isdigit() else 1)
    if name == "sizes":
        known = [points.columns[r] for r in ("params", "params_deep") if r in points.columns]
        if not known or not count.isdigit():
            raise RequestError(f"--hold-out takes {SPEC_HELP}; got {spec!r}")
        return np.asarray(np.isin(known[0], np.unique(known[0])[-int(count) :]))
    try:
        fraction = float(spec)
    except ValueError:
        raise RequestError(f"--hold-out takes {SPEC_HELP}; got {spec!r}") from None
    if not 0.0 < fraction < 1.0 or points.flops is None:
        raise RequestError(
            f"--hold-out {spec}: a fraction lies between 0 and 1 and needs FLOPs in the table"
        )
    order = np.argsort(points.flops, kind="stable")
    chosen = np.zeros(points.num_rows, dtype=np.bool_)
    chosen[order[-max(1, round(fraction * points.num_rows)) :]] = True
    return chosen


def _largest_budgets(points: Points, count: int) -> NDArray[np.bool_]:
    if points.budgets is None or points.flops is None:
        raise RequestError(
            "--hold-out largest-budget needs budgets; name a column with --column budget=..., or "
            "hold out a fraction such as 0.2"
        )
    centres = [
        float(np.median(points.flops[points.budgets == g])) for g in range(points.num_budgets)
    ]
    return np.asarray(np.isin(points.budgets, np.argsort(centres)[-count:]))
