"""How do optimal size and tokens grow with compute? Exponents from iso-FLOP optima (Approach 2).

The optima are put beside the parametric surface (Approach 3) on the same rows; the two are never
averaged, their disagreement is stated. Approach 2 is biased even without noise wherever the two
exponents differ (see docs/laws.md).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from analysis.certificate import Certificate, Reason, Status
from analysis.fit import Fit
from analysis.fitting import fit
from analysis.isoflop_curves import CurveMethod, IsoflopCurve, fit_curve
from analysis.laws import FloatArray
from analysis.points import Points
from analysis.tables import points_from
from spaces.errors import RequestError

FEWEST_CURVES = 3
"""Two optima give a slope without any error."""

SUM_TOLERANCE = 0.05
"""a + b is 1 where C = 6 N D; a larger distance means that the curves or the FLOPs are off."""

PARAMETERS = ("a", "b", "n_coefficient", "d_coefficient")
"""``N* = n_coefficient C^a`` and ``D* = d_coefficient C^b``."""


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


@dataclass(frozen=True, kw_only=True)
class IsoflopFit:
    """Curves, their optima and exponents, beside the surface fit on the same rows."""

    points: Points
    method: CurveMethod
    curves: tuple[IsoflopCurve, ...]
    """One per budget, ascending."""
    size_line: PowerLine | None
    """N* against C; None with fewer than three optima."""
    token_line: PowerLine | None
    """D* against C."""
    other_exponents: Mapping[str, float | None]
    """``a`` by the other curve forms."""
    surface: Fit | None
    """Chinchilla's law on the same rows; None where it was not asked for."""
    certificate: Certificate
    at_flops: tuple[float, ...]
    seconds: float

    @property
    def status(self) -> Status:
        """The certificate's status."""
        return self.certificate.status

    @property
    def parameters(self) -> dict[str, float | None]:
        """Exponents and coefficients; None where there are too few optima."""
        if self.size_line is None or self.token_line is None:
            return dict.fromkeys(PARAMETERS)
        return {
            "a": self.size_line.exponent,
            "b": self.token_line.exponent,
            "n_coefficient": float(np.exp(self.size_line.log_coefficient)),
            "d_coefficient": float(np.exp(self.token_line.log_coefficient)),
        }

    @property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of the parameters."""
        if self.size_line is None or self.token_line is None:
            return dict.fromkeys(PARAMETERS)
        return {
            "a": self.size_line.exponent_interval,
            "b": self.token_line.exponent_interval,
            "n_coefficient": self.size_line.coefficient_interval,
            "d_coefficient": self.token_line.coefficient_interval,
        }

    def frontier(self) -> list[dict[str, Any]]:
        """N*, D* and tokens per parameter at the asked FLOPs, with the distance from the data."""
        if self.size_line is None or self.token_line is None:
            return []
        largest = max(curve.budget for curve in self.curves)
        rows = []
        for flops in self.at_flops:
            size, size_interval = self.size_line.at(flops)
            tokens, token_interval = self.token_line.at(flops)
            rows.append(
                {
                    "flops": flops,
                    "outside_data_factor": max(1.0, flops / largest),
                    "n_star": size,
                    "n_star_interval": [*size_interval],
                    "d_star": tokens,
                    "d_star_interval": [*token_interval],
                    "tokens_per_param": tokens / size,
                }
            )
        return rows

    def comparison(self) -> dict[str, Any] | None:
        """Approach 2 beside Approach 3: the exponent a of each, and their difference."""
        if self.surface is None:
            return None
        entry = self.surface.derived_value("a")
        theirs = None if entry is None else entry.value
        ours = self.parameters["a"]
        return {
            "curves_a": ours,
            "surface_a": theirs,
            "surface_a_interval": None
            if entry is None or entry.interval is None
            else [*entry.interval],
            "difference": None if ours is None or theirs is None else ours - theirs,
            "surface_status": self.surface.status,
            "surface_parameters": self.surface.parameters,
            "surface_reasons": [r.to_dict() for r in self.surface.certificate.reasons],
        }

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``--law isoflop``; what is refused or unknown is null."""
        return {
            "law": "isoflop",
            "formula": "N* = n_coefficient C^a, D* = d_coefficient C^b",
            "estimator": "log-interpolation" if self.method == "akima" else "mse",
            "curve": self.method,
            "parameters": self.parameters,
            "intervals": {
                name: None if pair is None else [float(pair[0]), float(pair[1])]
                for name, pair in self.intervals.items()
            },
            "objective": None,
            "starts": {"number": 1, "at_optimum": 1.0, "spread": 0.0},
            "derived": {
                "a": self.parameters["a"],
                "b": self.parameters["b"],
                "a_by_other_curves": dict(self.other_exponents),
                "frontier": self.frontier(),
                "surface": self.comparison(),
            },
            "certificate": self.certificate.to_dict(),
            "curves": [curve.to_dict() for curve in self.curves],
            "data": self.points.to_dict(),
            "seconds": self.seconds,
        }


def fit_isoflop(
    table: Path | str | pl.DataFrame | Points,
    *,
    method: CurveMethod = "parabola",
    roles: Mapping[str, str] | None = None,
    tokens_from_flops: str | None = None,
    keep: Sequence[str] = (),
    at_flops: Sequence[float] = (),
    with_surface: bool = True,
    surface: Fit | None = None,
) -> IsoflopFit:
    """Curves and exponents of a table with budgets. Raises `RequestError` where it has none.

    ``surface`` is a fit of the same rows where one exists; otherwise it is made, if asked for.
    """
    began = time.perf_counter()
    points = isoflop_points(table, roles=roles, tokens_from_flops=tokens_from_flops, keep=keep)
    curves = curves_of(points, method)
    size_line, token_line = _lines(curves)
    if surface is None and with_surface:
        surface = fit("chinchilla", points)
    others: dict[str, float | None] = {}
    for other in ("parabola", "cubic", "akima"):
        if other != method:
            line, _ = _lines(curves_of(points, other))
            others[other] = None if line is None else line.exponent
    reasons = _reasons(curves, size_line, token_line, surface)
    largest = max(curve.budget for curve in curves)
    return IsoflopFit(
        points=points,
        method=method,
        curves=curves,
        size_line=size_line,
        token_line=token_line,
        other_exponents=others,
        surface=surface,
        certificate=Certificate(
            reasons=tuple(reasons),
            parameters=PARAMETERS,
            assumes="rows of one budget may share noise; budgets are independent",
            measures={
                "num_optima": sum(curve.n_star is not None for curve in curves),
                "log_scatter_of_n_star": None if size_line is None else size_line.scatter,
            },
        ),
        at_flops=tuple(at_flops) or (largest, 10.0 * largest),
        seconds=time.perf_counter() - began,
    )


def isoflop_points(
    table: Path | str | pl.DataFrame | Points,
    *,
    roles: Mapping[str, str] | None = None,
    tokens_from_flops: str | None = None,
    keep: Sequence[str] = (),
) -> Points:
    """Points with sizes, tokens and budgets. Raises `RequestError` where there are no budgets."""
    if not isinstance(table, Points):
        path = Path(table) if isinstance(table, str) else table
        table = points_from(
            path, ("params", "tokens"), roles=roles, tokens_from_flops=tokens_from_flops, keep=keep
        )
    if table.budgets is None:
        raise RequestError(
            "iso-FLOP curves need budgets, but the table has no budget column and its FLOPs do not "
            "come in groups; name one with --column budget=..., or fit the surface with "
            "--law chinchilla"
        )
    return table


def curves_of(points: Points, method: CurveMethod) -> tuple[IsoflopCurve, ...]:
    """One curve per budget, ascending in FLOPs."""
    assert points.budgets is not None
    assert points.flops is not None
    curves = []
    for group in range(points.num_budgets):
        rows = points.budgets == group
        curves.append(
            fit_curve(
                points.columns["params"][rows],
                points.losses[rows],
                points.columns["tokens"][rows],
                budget=float(np.median(points.flops[rows])),
                method=method,
            )
        )
    return tuple(sorted(curves, key=lambda curve: curve.budget))


def _lines(curves: Sequence[IsoflopCurve]) -> tuple[PowerLine | None, PowerLine | None]:
    """Lines of N* and D* against C over the curves that have a minimum."""
    found = [(c.budget, c.n_star, c.d_star) for c in curves if c.n_star and c.d_star]
    if len(found) < FEWEST_CURVES:
        return None, None
    flops, sizes, tokens = (
        np.array(column, dtype=np.float64) for column in zip(*found, strict=True)
    )
    return power_line(flops, sizes), power_line(flops, tokens)


def _reasons(
    curves: Sequence[IsoflopCurve],
    size_line: PowerLine | None,
    token_line: PowerLine | None,
    surface: Fit | None,
) -> list[Reason]:
    reasons = []
    for curve in curves:
        for reason in curve.reasons:
            status: Status = "ok" if reason.status == "ok" else "warn"
            reasons.append(Reason(code=reason.code, status=status, message=reason.message))
    if size_line is None or token_line is None:
        found = sum(curve.n_star is not None for curve in curves)
        reasons.append(
            Reason(
                code="too-few-curves",
                status="refused",
                message=(
                    f"{found} of {len(curves)} iso-FLOP curves have a minimum; exponents need at "
                    f"least {FEWEST_CURVES}"
                ),
            )
        )
        return reasons
    total = size_line.exponent + token_line.exponent
    if abs(total - 1.0) > SUM_TOLERANCE:
        reasons.append(
            Reason(
                code="exponents-do-not-sum",
                status="warn",
                message=(
                    f"a + b = {total:.3f}, away from 1: sizes and tokens at the optima do not "
                    "multiply up to the FLOPs; check what params and FLOPs count"
                ),
            )
        )
    return reasons + _surface_reasons(size_line, surface)


def _surface_reasons(line: PowerLine, surface: Fit | None) -> list[Reason]:
    entry = None if surface is None else surface.derived_value("a")
    if entry is None or entry.value is None or entry.interval is None:
        return []
    low, high = line.exponent_interval
    apart = low > entry.interval[1] or high < entry.interval[0]
    difference = line.exponent - entry.value
    return [
        Reason(
            code="curves-and-surface-disagree" if apart else "curves-and-surface",
            status="warn" if apart else "ok",
            message=(
                f"a = {line.exponent:.3f} from the optima of the curves and {entry.value:.3f} from "
                f"the surface on the same rows (difference {difference:+.3f}"
                + (", beyond both intervals" if apart else ", within the intervals")
                + "); curves are biased where the two exponents of the law differ"
            ),
        )
    ]
