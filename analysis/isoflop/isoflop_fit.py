"""How do optimal size and tokens grow with compute? Exponents from iso-FLOP optima (Approach 2).

The optima are put beside the parametric surface (Approach 3) on the same rows; the two are never
averaged, their disagreement is stated. Approach 2 is biased even without noise wherever the two
exponents differ (see docs/laws.md). ``pooled`` takes the exponents from one curve over all budgets,
the other methods from a line through every budget's own minimum.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from analysis.fit.fit_assembly import default_flops
from analysis.fit.fit_result import Fit
from analysis.fit.fitting import fit
from analysis.isoflop.isoflop_checks import (
    FEWEST_CURVES,
    curve_reasons,
    line_reasons,
    pooled_reasons,
    surface_reasons,
)
from analysis.isoflop.isoflop_curves import CurveMethod, IsoflopCurve, fit_curve
from analysis.isoflop.pooled_curve import PooledRuns, pooled_line
from analysis.isoflop.power_line import PowerLine, power_line
from analysis.judge.fit_certificate import Certificate, Reason, Status
from analysis.judge.table_checks import require_positive, table_reasons
from analysis.laws.law_registry import law_named
from analysis.points.checked_points import Points
from analysis.points.table_reading import points_from
from spaces.errors import RequestError
from spaces.shown import Block, Shown, Table, interval_cell

IsoflopMethod = Literal["pooled", CurveMethod]

PARAMETERS = ("a", "b", "n_coefficient", "d_coefficient")
"""``N* = n_coefficient C^a`` and ``D* = d_coefficient C^b``."""


@dataclass(frozen=True, kw_only=True)
class IsoflopFit(Shown):
    """Curves, their optima and exponents, beside the surface fit on the same rows."""

    points: Points
    method: IsoflopMethod
    """Where the exponents come from; curves of ``pooled`` are drawn as parabolas."""
    curves: tuple[IsoflopCurve, ...]
    """One per budget, ascending."""
    size_line: PowerLine | None
    """N* against C; None where there is none."""
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
        """Exponents and coefficients; None where there are too few optima, or where refused."""
        if self.size_line is None or self.token_line is None:
            return dict.fromkeys(PARAMETERS)
        found = {
            "a": self.size_line.exponent,
            "b": self.token_line.exponent,
            "n_coefficient": float(np.exp(self.size_line.log_coefficient)),
            "d_coefficient": float(np.exp(self.token_line.log_coefficient)),
        }
        return {n: None if self.certificate.refuses(n) else v for n, v in found.items()}

    @property
    def intervals(self) -> dict[str, tuple[float, float] | None]:
        """95 % intervals of the parameters."""
        if self.size_line is None or self.token_line is None:
            return dict.fromkeys(PARAMETERS)
        found = {
            "a": self.size_line.exponent_interval,
            "b": self.token_line.exponent_interval,
            "n_coefficient": self.size_line.coefficient_interval,
            "d_coefficient": self.token_line.coefficient_interval,
        }
        return {n: None if self.certificate.refuses(n) else pair for n, pair in found.items()}

    def blocks(self) -> list[Block]:
        """Minima of the curves, exponents, and the certificate."""
        intervals = self.intervals
        return [
            Table(
                caption=f"iso-FLOP curves by {self.method}",
                columns=("budget (FLOPs)", "N*", "95 % interval", "D*", "loss (nats)", "status"),
                rows=tuple(
                    (
                        each.budget,
                        each.n_star,
                        interval_cell(each.n_star_interval),
                        each.d_star,
                        each.loss_star,
                        each.status,
                    )
                    for each in self.curves
                ),
            ),
            Table(
                caption="N* = n_coefficient C^a, D* = d_coefficient C^b",
                columns=("parameter", "value", "95 % interval"),
                rows=tuple(
                    (name, value, interval_cell(intervals[name]))
                    for name, value in self.parameters.items()
                ),
            ),
            *self.certificate.blocks(),
        ]

    def frontier(self) -> list[dict[str, Any]]:
        """N*, D* and tokens per parameter at the asked FLOPs, with the distance from the data."""
        if self.size_line is None or self.token_line is None or self.certificate.refuses("n_star"):
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
            "n_star_ratios": self._size_ratios(self.surface),
            "surface_status": self.surface.status,
            "surface_parameters": self.surface.parameters,
            "surface_reasons": [r.to_dict() for r in self.surface.certificate.reasons],
        }

    def _size_ratios(self, surface: Fit) -> list[dict[str, float]]:
        """N* by the curves over N* by the surface at the asked FLOPs."""
        rows = []
        for flops in self.at_flops:
            entry = surface.derived_value("n_star", at_flops=flops)
            if self.size_line is not None and entry is not None and entry.value is not None:
                rows.append({"flops": flops, "ratio": self.size_line.at(flops)[0] / entry.value})
        return rows

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
    method: IsoflopMethod = "parabola",
    roles: Mapping[str, str] | None = None,
    tokens_from_flops: str | None = None,
    keep: Sequence[str] = (),
    at_flops: Sequence[float] = (),
    with_surface: bool = True,
    surface: Fit | None = None,
) -> IsoflopFit:
    """Curves and exponents of a table with budgets. Raises `RequestError` where it has none, or
    where the method is unknown.

    ``surface`` is a fit of the same rows where one exists; otherwise it is made, if asked for.
    """
    require_positive("--at-flops", at_flops)
    if method not in get_args(IsoflopMethod):
        raise RequestError(f"--curve takes {', '.join(get_args(IsoflopMethod))}, got {method!r}")
    began = time.perf_counter()
    points = isoflop_points(table, roles=roles, tokens_from_flops=tokens_from_flops, keep=keep)
    curves = curves_of(points, "parabola" if method == "pooled" else method)
    size_line, token_line, against = _lines(points, curves, method)
    at_flops = tuple(at_flops) or default_flops(points)
    if surface is None and with_surface:
        surface = fit("chinchilla", points, at_flops=at_flops)
    reasons = [_of_curves(reason) for reason in table_reasons(points, law_named("chinchilla"))]
    withheld = [reason for reason in reasons if reason.status == "refused"]
    reasons += against
    reasons += surface_reasons(size_line, surface, at_flops)
    return IsoflopFit(
        points=points,
        method=method,
        curves=tuple(_withheld(curve, withheld) for curve in curves) if withheld else curves,
        size_line=size_line,
        token_line=token_line,
        other_exponents=_other_exponents(points, method),
        surface=surface,
        certificate=Certificate(
            reasons=tuple(reasons),
            parameters=PARAMETERS,
            assumes="rows of one budget may share noise; budgets are independent",
            measures={
                "num_optima": sum(curve.n_star is not None for curve in curves),
                "scatter": None if size_line is None else size_line.scatter,
            },
        ),
        at_flops=at_flops,
        seconds=time.perf_counter() - began,
    )


def size_line_of(points: Points, method: IsoflopMethod) -> PowerLine | None:
    """The line of N* against C by one method; None where it has none."""
    curves = () if method == "pooled" else curves_of(points, method)
    return _lines(points, curves, method)[0]


def _other_exponents(points: Points, method: IsoflopMethod) -> dict[str, float | None]:
    """The exponent a by the other methods."""
    others = [each for each in get_args(IsoflopMethod) if each != method]
    lines = {other: size_line_of(points, other) for other in others}
    return {other: None if line is None else line.exponent for other, line in lines.items()}


def _withheld(curve: IsoflopCurve, reasons: list[Reason]) -> IsoflopCurve:
    """The curve without its optimum, where the table's units or losses are in doubt."""
    return replace(
        curve,
        n_star=None,
        n_star_interval=None,
        d_star=None,
        loss_star=None,
        regret_set=None,
        reasons=(*curve.reasons, *(replace(reason, parameters=()) for reason in reasons)),
    )


def _of_curves(reason: Reason) -> Reason:
    """A reason about units, on the coefficients that inherit them too."""
    if "n_star" not in reason.parameters:
        return reason
    return replace(reason, parameters=(*reason.parameters, "n_coefficient", "d_coefficient"))


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


def _lines(
    points: Points, curves: Sequence[IsoflopCurve], method: IsoflopMethod
) -> tuple[PowerLine | None, PowerLine | None, list[Reason]]:
    """Lines of N* and D* against C, and what speaks against them."""
    if method == "pooled":
        size, tokens = (_pooled(points, name) for name in ("params", "tokens"))
        if isinstance(size, str) or isinstance(tokens, str):
            return None, None, pooled_reasons(size if isinstance(size, str) else str(tokens))
        return size, tokens, line_reasons(size, tokens)
    found = [(c.budget, c.n_star, c.d_star) for c in curves if c.n_star and c.d_star]
    if len(found) < FEWEST_CURVES:
        return None, None, curve_reasons(curves, None, None)
    flops, sizes, numbers = (
        np.array(column, dtype=np.float64) for column in zip(*found, strict=True)
    )
    lines = power_line(flops, sizes), power_line(flops, numbers)
    return *lines, curve_reasons(curves, *lines)


def _pooled(points: Points, column: str) -> PowerLine | str:
    assert points.budgets is not None
    assert points.flops is not None
    return pooled_line(
        PooledRuns(
            log_flops=np.log(points.flops),
            log_sizes=np.log(points.columns[column]),
            log_losses=np.log(points.losses),
            budgets=points.budgets,
        )
    )
