"""What exactly is drawn? Plain numbers of every figure, computed here and tested; ink elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fit.fit_result import Fit
from analysis.isoflop.frontier_gap import FURTHEST, GapTrend
from analysis.isoflop.isoflop_curves import IsoflopCurve
from analysis.isoflop.isoflop_fit import IsoflopFit
from analysis.laws.derived_quantities import optimal_loss, optimal_params
from analysis.laws.law import FloatArray

BEYOND = 10.0
"""A frontier is drawn to ten times the largest budget, dashed where no data lies."""


@dataclass(frozen=True, kw_only=True)
class CurvePanel:
    """Iso-FLOP curves of one arm (or one table)."""

    title: str
    curves: tuple[IsoflopCurve, ...]


@dataclass(frozen=True, kw_only=True)
class FrontierLine:
    """Optima, the line through them and its 95 % band."""

    label: str
    budgets: FloatArray
    """FLOPs of the optima, (m,)."""
    sizes: FloatArray
    """N* of the optima, (m,)."""
    intervals: FloatArray
    """(m, 2) intervals of N*; NaN where there is none."""
    flops: FloatArray
    """FLOPs at which the line is drawn, (g,); empty where there is no line."""
    line: FloatArray
    """(g,)."""
    low: FloatArray
    """(g,)."""
    high: FloatArray
    """(g,)."""
    fitted: FloatArray
    """(g,) booleans: inside the range of the optima (solid) or beyond (dashed)."""
    exponent: float | None
    exponent_interval: tuple[float, float] | None

    @property
    def told(self) -> str:
        """Its label with the exponent, where there is one."""
        if self.exponent is None or self.exponent_interval is None:
            return self.label
        low, high = self.exponent_interval
        return f"{self.label}: a = {self.exponent:.3f} [{low:.3f}, {high:.3f}]"


@dataclass(frozen=True, kw_only=True)
class LossFrontier:
    """Lowest loss at every budget."""

    label: str
    budgets: FloatArray
    """FLOPs, (m,)."""
    losses: FloatArray
    """Nats: the curve's minimum, or the lowest run where the curve has none, (m,)."""
    from_curve: FloatArray
    """(m,) booleans."""


@dataclass(frozen=True, kw_only=True)
class ResidualCloud:
    """Residuals of a fit against what they could depend on."""

    columns: tuple[tuple[str, FloatArray], ...]
    """Axis label and values (n,), one pair per panel."""
    residuals_percent: FloatArray
    """Predicted over measured minus 1, in percent, (n,)."""
    noise_percent: float
    """Residual standard deviation, percent."""
    seed_percent: float | None
    """Seed noise, percent."""


@dataclass(frozen=True, kw_only=True)
class GapPanel:
    """The gap between two arms over compute, and where it is zero."""

    one: str
    """The arm that is better where the gap is above zero."""
    other: str
    """The arm that is better below."""
    budgets: FloatArray
    """FLOPs of the gaps, (m,)."""
    gaps: FloatArray
    """Nats, (m,)."""
    intervals: FloatArray
    """(m, 2), 95 %, nats."""
    flops: FloatArray
    """FLOPs at which the line is drawn, (g,); empty where there is no line."""
    line: FloatArray
    """(g, 3): value, low, high; nats."""
    fitted: FloatArray
    """(g,) booleans: inside the range of the gaps (solid) or beyond (dashed)."""
    crossing: tuple[float, float, float] | None
    """FLOPs of the zero and of the ends of its interval, which end with the axis where they are not
    told; None where no crossing is, or it lies beyond."""

    @property
    def title(self) -> str:
        """Which two."""
        return f"{self.one} and {self.other}"

    @property
    def label(self) -> str:
        """Of the vertical axis: whose loss less whose."""
        return f"{self.other} − {self.one} (nats per token)"

    @property
    def better(self) -> tuple[str, ...]:
        """The arm of the lower loss at each of the gaps, (m,)."""
        return tuple(self.one if gap > 0 else self.other for gap in self.gaps)


def gap_panel(trend: GapTrend, num_points: int = 120) -> GapPanel:
    """The gaps of two arms, the line through them ten times beyond, and its zero."""
    known = [
        (g.train_flops, g.gap_nats, *g.interval) for g in trend.gaps if g.interval and g.is_of_line
    ]
    table = np.array(known, dtype=np.float64).reshape(len(known), 4)
    flops, line, crossing = np.zeros(0), np.zeros((0, 3)), None
    if trend.line is not None:
        low, high = trend.line.budgets
        flops = np.geomspace(low / FURTHEST, high * FURTHEST, num_points)
        ends = [trend.line.at(float(x)) for x in flops]
        line = np.array([(value, *interval) for value, interval in ends])
    found = trend.crossing
    if found is not None and found.train_flops is not None:
        low, high = found.not_before or float(flops[0]), found.not_after or float(flops[-1])
        crossing = (found.train_flops, low, high)
    budgets = table[:, 0]
    inside = (flops >= budgets.min()) & (flops <= budgets.max()) if len(budgets) else flops > 0
    return GapPanel(
        one=trend.one,
        other=trend.other,
        budgets=budgets,
        gaps=table[:, 1],
        intervals=table[:, 2:],
        flops=flops,
        line=line,
        fitted=np.asarray(inside, dtype=np.float64),
        crossing=crossing,
    )


def frontier_line(label: str, fitted: IsoflopFit, num_points: int = 120) -> FrontierLine:
    """Minima, and N* against C with its band where the exponent stands, from the smallest budget to
    ten times the largest."""
    found = [curve for curve in fitted.curves if curve.n_star is not None]
    budgets = np.array([curve.budget for curve in found])
    sizes = np.array([curve.n_star for curve in found], dtype=np.float64)
    intervals = np.array(
        [curve.n_star_interval or (np.nan, np.nan) for curve in found], dtype=np.float64
    ).reshape(len(found), 2)
    stands = None if fitted.parameters["a"] is None else fitted.size_line
    largest = max(curve.budget for curve in fitted.curves)
    flops, line = np.zeros(0), np.zeros((0, 3))
    if stands is not None:
        smallest = min(curve.budget for curve in fitted.curves)
        flops = np.geomspace(smallest, largest * BEYOND, num_points)
        ends = [stands.at(float(x)) for x in flops]
        line = np.array([(value, low, high) for value, (low, high) in ends])
    return FrontierLine(
        label=label,
        budgets=budgets,
        sizes=sizes,
        intervals=intervals,
        flops=flops,
        line=line[:, 0],
        low=line[:, 1],
        high=line[:, 2],
        fitted=np.asarray(flops <= largest, dtype=np.float64),
        exponent=None if stands is None else stands.exponent,
        exponent_interval=None if stands is None else stands.exponent_interval,
    )


def size_range(lines: Sequence[FrontierLine]) -> tuple[float, float]:
    """Sizes between which frontiers are drawn: an optimum's interval may reach far beyond, and is
    cut there."""
    shown = [np.concatenate([each.sizes, each.line]) for each in lines]
    sizes = np.concatenate(shown)
    return float(sizes.min() / 3.0), float(sizes.max() * 3.0)


def loss_frontier(label: str, curves: Sequence[IsoflopCurve]) -> LossFrontier:
    """The lowest loss at every budget."""
    lowest = [
        float(curve.losses.min()) if curve.loss_star is None else curve.loss_star
        for curve in curves
    ]
    return LossFrontier(
        label=label,
        budgets=np.array([curve.budget for curve in curves]),
        losses=np.array(lowest),
        from_curve=np.array([float(curve.loss_star is not None) for curve in curves]),
    )


@dataclass(frozen=True, kw_only=True)
class SurfaceFrontier:
    """Loss and size on the compute frontier of a fitted Chinchilla law, with 95 % bands."""

    run_flops: FloatArray
    """Training FLOPs of the runs, (n,)."""
    run_losses: FloatArray
    """Their losses, nats, (n,)."""
    flops: FloatArray
    """FLOPs at which the frontier is drawn, (g,)."""
    loss: FloatArray
    """(g, 3): value, low, high; nats."""
    params: FloatArray
    """(g, 3): value, low, high of N*."""
    fitted: FloatArray
    """(g,) booleans: inside the range of the runs' FLOPs."""


def surface_frontier(fit: Fit, num_points: int = 60) -> SurfaceFrontier | None:
    """The frontier from the smallest FLOPs to ten times the largest; None where it is refused."""
    needed = ("E", "A", "B", "alpha", "beta", "n_star")
    runs = fit.points.flops
    if fit.law.name != "chinchilla" or not fit.optimum or fit.certificate.refuses(*needed):
        return None
    assert fit.replicates is not None
    assert runs is not None
    flops = np.geomspace(runs.min(), runs.max() * BEYOND, num_points)
    draws = {n: fit.replicates.outer[:, place] for place, n in enumerate(fit.law.parameters)}
    bands = {"n_star": np.zeros((num_points, 3)), "loss": np.zeros((num_points, 3))}
    for row, at in enumerate(flops):
        for name, of in (("n_star", optimal_params), ("loss", optimal_loss)):
            value = float(of(fit.optimum, at))
            ends = fit.replicates.interval(value, of(draws, at), positive=True)
            bands[name][row] = (value, *(ends or (np.nan, np.nan)))
    return SurfaceFrontier(
        run_flops=runs,
        run_losses=fit.points.losses,
        flops=flops,
        loss=bands["loss"],
        params=bands["n_star"],
        fitted=np.asarray(flops <= runs.max() * (1 + 1e-9), dtype=np.float64),
    )


AXIS_LABELS = {
    "params": "parameters",
    "tokens": "training tokens",
    "flops": "training FLOPs",
    "num_loops": "loops K",
    "params_deep": "deep-path parameters",
    "params_wide": "wide-path parameters",
    "params_once": "parameters used once",
}


def residual_cloud(fit: Fit) -> ResidualCloud:
    """Relative residuals against every positive, varying column of the law."""
    surface = fit.points.surface(fit.law)
    inner = surface.inner(np.array([fit.optimum[name] for name in fit.law.parameters]))
    predicted = surface.predict(inner[None])[0]
    columns = tuple(
        (AXIS_LABELS.get(role, role), fit.points.columns[role])
        for role in fit.law.roles
        if (fit.points.columns[role] > 0).all() and np.ptp(fit.points.columns[role]) > 0
    )
    assert fit.noise is not None
    seed = fit.noise.seed_std
    return ResidualCloud(
        columns=columns,
        residuals_percent=100.0 * (predicted / fit.points.losses - 1.0),
        noise_percent=100.0 * fit.noise.residual_std,
        seed_percent=None if seed is None else 100.0 * seed,
    )
