"""Which size is best at one budget, and which sizes are as good? One iso-FLOP curve at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from scipy.interpolate import Akima1DInterpolator

from analysis.judge.fit_certificate import Reason, Status, worst
from analysis.laws.law import FloatArray
from spaces.errors import RequestError

CurveMethod = Literal["parabola", "cubic", "akima"]

REGRET = 0.005
"""Sizes whose loss lies within 0.5 % of the minimum form the regret set."""

FEWEST_SIZES = 4
"""Three points fit a parabola exactly and leave nothing to judge it by."""

NEAR_DUPLICATE_LOG = 0.02
"""Sizes within 2 % of each other count as one."""

OFF_CENTRE = 0.2
"""A minimum in the outer fifth of the sizes (in logs) rests on few points on one side."""

LARGEST_LOG = 700.0
"""Logarithms beyond have no number; of sizes, they are as good as unbounded."""

GRID_POINTS = 2001
"""Points at which a curve is searched, in the logarithm of the size."""


@dataclass(frozen=True, kw_only=True)
class IsoflopCurve:
    """Loss against size at one budget, its minimum and its regret set."""

    budget: float
    """Training FLOPs."""
    method: CurveMethod
    sizes: FloatArray
    """Parameters of the runs, ascending, (m,)."""
    losses: FloatArray
    """Losses of the runs, nats, (m,)."""
    grid: FloatArray
    """Sizes at which the curve is drawn, (g,); empty where there is no curve."""
    grid_losses: FloatArray
    """The fitted curve there, nats, (g,)."""
    n_star: float | None
    """Size at the minimum; None where refused."""
    n_star_interval: tuple[float, float] | None
    """95 % from the scatter about the polynomial; None for Akima, which has none."""
    d_star: float | None
    """Tokens at the minimum."""
    loss_star: float | None
    """Loss at the minimum, nats."""
    regret_set: tuple[float, float] | None
    """Smallest and largest size within 0.5 % of the minimum, inside the data."""
    reasons: tuple[Reason, ...]

    @property
    def status(self) -> Status:
        """The worst of the reasons."""
        return worst(reason.status for reason in self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """An entry of ``curves`` in the JSON document."""
        return {
            "budget": self.budget,
            "n_star": self.n_star,
            "n_star_interval": None if self.n_star_interval is None else [*self.n_star_interval],
            "d_star": self.d_star,
            "loss_star": self.loss_star,
            "regret_set": None if self.regret_set is None else [*self.regret_set],
            "num_points": len(self.sizes),
            "status": self.status,
            "reasons": [reason.to_dict() for reason in self.reasons],
        }


def fit_curve(
    sizes: FloatArray,
    losses: FloatArray,
    tokens: FloatArray,
    *,
    budget: float,
    method: CurveMethod = "parabola",
) -> IsoflopCurve:
    """One curve from runs (m,) at one budget; refusals are reasons. Raises `RequestError`.

    ``parabola`` and ``cubic`` are least squares of the loss in the log size, ``akima`` interpolates
    log loss over log size (as arXiv 2406.19146 does) after averaging equal sizes.
    """
    if method not in get_args(CurveMethod):
        raise RequestError(f"--curve takes {', '.join(get_args(CurveMethod))}, got {method!r}")
    order = np.argsort(sizes, kind="stable")
    sizes, losses, tokens = sizes[order], losses[order], tokens[order]
    reasons = _grid_reasons(sizes, losses, budget)
    refused = worst(reason.status for reason in reasons) == "refused"
    logs = np.log(sizes)
    if refused:
        return _without_curve(budget, method, sizes, losses, reasons)
    grid = np.linspace(logs[0], logs[-1], GRID_POINTS)
    curve = _curve(method, logs, losses, grid)
    place, shape_reasons = _minimum(method, logs, losses, grid, curve, budget)
    reasons += shape_reasons
    if place is None:
        return _without_curve(budget, method, sizes, losses, reasons, np.exp(grid), curve)
    reasons += _position_reasons(place, logs, budget, method)
    loss_star = float(_curve(method, logs, losses, np.array([place]))[0])
    if loss_star <= 0:
        reasons.append(_no_minimum("negative-loss", budget, f"its minimum is {loss_star:.3g} nats"))
        return _without_curve(budget, method, sizes, losses, reasons, np.exp(grid), curve)
    inside = np.append(grid[curve <= loss_star * (1.0 + REGRET)], place)
    return IsoflopCurve(
        budget=budget,
        method=method,
        sizes=sizes,
        losses=losses,
        grid=np.exp(grid),
        grid_losses=curve,
        n_star=float(np.exp(place)),
        n_star_interval=_vertex_interval(method, logs, losses),
        d_star=float(np.exp(np.interp(place, logs, np.log(tokens)))),
        loss_star=loss_star,
        regret_set=(float(np.exp(inside.min())), float(np.exp(inside.max()))),
        reasons=tuple(reasons),
    )


def _without_curve(
    budget: float,
    method: CurveMethod,
    sizes: FloatArray,
    losses: FloatArray,
    reasons: list[Reason],
    grid: FloatArray | None = None,
    curve: FloatArray | None = None,
) -> IsoflopCurve:
    return IsoflopCurve(
        budget=budget,
        method=method,
        sizes=sizes,
        losses=losses,
        grid=np.zeros(0) if grid is None else grid,
        grid_losses=np.zeros(0) if curve is None else curve,
        n_star=None,
        n_star_interval=None,
        d_star=None,
        loss_star=None,
        regret_set=None,
        reasons=tuple(reasons),
    )


def _grid_reasons(sizes: FloatArray, losses: FloatArray, budget: float) -> list[Reason]:
    """What the sizes and losses themselves rule out."""
    gaps = np.diff(np.log(sizes))
    distinct = 1 + int((gaps > NEAR_DUPLICATE_LOG).sum())
    reasons = []
    if distinct < FEWEST_SIZES:
        reasons.append(
            Reason(
                code="too-few-points",
                status="refused",
                message=(
                    f"budget {budget:.3g}: {distinct} distinct sizes do not make an iso-FLOP "
                    f"curve; use at least {FEWEST_SIZES}, better 7, around the minimum"
                ),
            )
        )
    elif distinct < len(sizes):
        reasons.append(
            Reason(
                code="near-duplicate-sizes",
                status="warn",
                message=(
                    f"budget {budget:.3g}: {len(sizes) - distinct} of {len(sizes)} sizes lie "
                    "within 2 % of another and add no shape"
                ),
            )
        )
    if float(np.ptp(np.log(losses))) < 1e-6:
        reasons.append(
            Reason(
                code="constant-loss",
                status="refused",
                message=f"budget {budget:.3g}: all losses are {losses[0]:.6g}; no size is better",
            )
        )
    return reasons


def _curve(method: CurveMethod, logs: FloatArray, losses: FloatArray, at: FloatArray) -> FloatArray:
    """The fitted loss at log sizes ``at``."""
    if method == "akima":
        places, labels = np.unique(np.round(logs, 9), return_inverse=True)
        means = np.bincount(labels, np.log(losses)) / np.bincount(labels)
        between = Akima1DInterpolator(places, means)(np.clip(at, places[0], places[-1]))
        return np.asarray(np.exp(np.minimum(between, LARGEST_LOG)))
    middle = logs.mean()
    coefficients = np.polyfit(logs - middle, losses, 2 if method == "parabola" else 3)
    return np.asarray(np.polyval(coefficients, at - middle))


def _minimum(
    method: CurveMethod,
    logs: FloatArray,
    losses: FloatArray,
    grid: FloatArray,
    curve: FloatArray,
    budget: float,
) -> tuple[float | None, list[Reason]]:
    """Log size of the minimum, or None and why there is none."""
    best = int(np.argmin(losses))
    if method == "parabola":
        middle = logs.mean()
        bend, slope, _ = np.polyfit(logs - middle, losses, 2)
        if bend <= 0:
            return None, [_no_minimum("concave-curve", budget, "the parabola opens downwards")]
        place = float(middle - slope / (2.0 * bend))
    else:
        place = float(grid[int(np.argmin(curve))])
    if not logs[0] < place < logs[-1]:
        side = "smaller" if place <= logs[0] else "larger"
        return None, [
            _no_minimum(
                "minimum-outside-data",
                budget,
                f"the minimum lies at or beyond the {side} end of the sizes",
                f"add {side} models",
            )
        ]
    if logs[best] in (logs[0], logs[-1]):
        side = "smallest" if logs[best] == logs[0] else "largest"
        return None, [
            _no_minimum(
                "minimum-at-edge",
                budget,
                f"the {side} size has the lowest loss",
                f"add models beyond {np.exp(logs[best]):.3g} parameters",
            )
        ]
    return place, []


def _no_minimum(code: str, budget: float, what: str, remedy: str | None = None) -> Reason:
    tail = remedy or "the noise exceeds the curve; add seeds or a wider range of sizes"
    return Reason(
        code=code,
        status="refused",
        message=f"budget {budget:.3g}: {what}, so the curve has no minimum to report; {tail}",
    )


def _position_reasons(
    place: float, logs: FloatArray, budget: float, method: CurveMethod
) -> list[Reason]:
    share = (place - logs[0]) / (logs[-1] - logs[0])
    if OFF_CENTRE <= share <= 1.0 - OFF_CENTRE:
        return []
    remedy = (
        "" if method == "akima" else ", or take --curve akima, which off-centre grids bias less"
    )
    return [
        Reason(
            code="off-centre-grid",
            status="warn",
            message=(
                f"budget {budget:.3g}: the minimum lies {100 * share:.0f} % of the way through "
                f"the sizes; off-centre grids bias it, add sizes on the short side{remedy}"
            ),
        )
    ]


def _vertex_interval(
    method: CurveMethod, logs: FloatArray, losses: FloatArray
) -> tuple[float, float] | None:
    """Interval of the parabola's minimum by Fieller's theorem (exact for normal noise).

    None where the bend is not significant, so that the set of possible minima is unbounded, or as
    good as that.
    """
    from scipy import stats

    freedom = len(logs) - 3
    if method != "parabola" or freedom < 1:
        return None
    middle = logs.mean()
    design = np.vander(logs - middle, 3)
    inverse = np.linalg.inv(design.T @ design)
    bend, slope, level = inverse @ design.T @ losses
    rest = losses - design @ np.array([bend, slope, level])
    covariance = float(rest @ rest) / freedom * inverse
    critical = float(stats.t.ppf(0.975, freedom)) ** 2
    leading = 4.0 * (bend**2 - critical * covariance[0, 0])
    if leading <= 0:
        return None
    linear = 4.0 * (bend * slope - critical * covariance[0, 1])
    constant = slope**2 - critical * covariance[1, 1]
    root = np.sqrt(max(0.0, linear**2 - 4.0 * leading * constant))
    ends = middle + np.array([-linear - root, -linear + root]) / (2.0 * leading)
    if np.abs(ends).max() > LARGEST_LOG:
        return None
    return float(np.exp(ends[0])), float(np.exp(ends[1]))
