"""How far apart are two arms at their frontiers, where does that lead, and from which compute on is
one of them the better?

An arm's frontier at a budget is the minimum of a parabola through the losses of its sizes, never
the lowest loss, which is the luckiest one. Both parabolas of a budget are one least-squares fit
that has a level for every data order that both arms ran: what an order does to both is no
difference between them. The gaps then follow a straight line in ln C, and the line's zero is the
crossing, its interval by Fieller's theorem (Fieller 1954, J. R. Stat. Soc. B 16, 175).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.isoflop.isoflop_curves import fit_curve
from analysis.judge.fit_certificate import Reason, Status, worst
from analysis.laws.law import FloatArray

FEWEST_GAPS = 3
"""Through two gaps every line is exact, and nothing tells whether it is one."""

FURTHEST = 10.0
"""No crossing is told further than so many times beyond the budgets."""

TAIL = 0.025
"""Of a 95 % interval, on each side."""

NOT_A_LINE = 0.05
"""Chance to find that gaps of a straight line do not lie on one."""


@dataclass(frozen=True, kw_only=True)
class ArmRuns:
    """Results of one arm at one budget."""

    sizes: FloatArray
    """Parameters, (m,)."""
    tokens: FloatArray
    """Training tokens, (m,)."""
    losses: FloatArray
    """Nats per token, (m,)."""
    data_seeds: NDArray[np.int64]
    """Which order of the training text each saw, (m,)."""


@dataclass(frozen=True, kw_only=True)
class BudgetGap:
    """Two arms at one budget."""

    train_flops: float
    """The budget."""
    gap_nats: float | None
    """Fitted minimum of the second arm less that of the first, nats; None where refused."""
    error_nats: float | None
    """Standard error of it, from the scatter about both curves."""
    scatter_nats: float | None
    """Standard deviation of a run about its curve."""
    degrees: int
    """Degrees of freedom that the scatter rests on."""
    paired: bool
    """Whether a data order is common to both arms."""
    refused: str | None
    """Why there is no gap."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 %, nats; None where refused."""
        if self.gap_nats is None or self.error_nats is None:
            return None
        half = _student(self.degrees) * self.error_nats
        return self.gap_nats - half, self.gap_nats + half


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where the gap is zero, as far as that may be told."""

    better_beyond: str
    """The arm of the lower loss at all larger compute."""
    train_flops: float | None
    """Where the line is zero; None further than ten times beyond the budgets."""
    not_before: float | None
    """Lower end of the 95 % interval, FLOPs; None where that lies as far below the budgets."""
    not_after: float | None
    """Upper end; None where that lies as far above them."""


@dataclass(frozen=True, kw_only=True)
class GapLine:
    """``gap(C) = level + slope (ln C - centre)``, and how sure it is."""

    level: float
    """Nats, at the centre."""
    slope: float
    """Nats per unit of ln C."""
    centre: float
    """ln C about which it is written."""
    covariance: FloatArray
    """Of level and slope, (2, 2), nats squared."""
    degrees: float
    """Degrees of freedom of that (Satterthwaite's)."""
    budgets: tuple[float, float]
    """Least and most FLOPs of its gaps."""
    lack_of_line: float
    """Chance of a scatter like this about a line that is one."""

    @cached_property
    def critical(self) -> float:
        """Student's t of a 95 % interval."""
        return _student(self.degrees)

    @property
    def slope_interval(self) -> tuple[float, float]:
        """95 %, nats per unit of ln C."""
        half = self.critical * math.sqrt(self.covariance[1, 1])
        return self.slope - half, self.slope + half

    @property
    def slope_is_known(self) -> bool:
        """Whether the slope's interval leaves zero out."""
        low, high = self.slope_interval
        return low > 0 or high < 0

    def at(self, flops: float) -> tuple[float, tuple[float, float]]:
        """Gap and its 95 % interval at training FLOPs, nats."""
        place = np.array([1.0, math.log(flops) - self.centre])
        value = float(place @ [self.level, self.slope])
        half = self.critical * math.sqrt(float(place @ self.covariance @ place))
        return value, (value - half, value + half)

    def zero(self) -> tuple[float, float, float]:
        """ln C of the zero and of the ends of its 95 % interval, all C at which no gap is rejected.

        Only where the slope is known: elsewhere that set is not bounded.
        """
        square = self.critical**2
        (v00, v01), (_, v11) = self.covariance
        bend = self.slope**2 - square * v11
        half = square * v01 - self.level * self.slope
        rest = self.level**2 - square * v00
        root = math.sqrt(max(0.0, half**2 - bend * rest))
        ends = (half - root) / bend, (half + root) / bend
        zero = -self.level / self.slope
        return self.centre + zero, self.centre + ends[0], self.centre + ends[1]


@dataclass(frozen=True, kw_only=True)
class GapTrend:
    """Two arms over all budgets."""

    one: str
    other: str
    """Gaps are the loss of this arm less that of the first: positive where the first is better."""
    gaps: tuple[BudgetGap, ...]
    """By budget, smallest first."""
    line: GapLine | None
    """None with too few gaps."""
    crossing: Crossing | None
    """None where the reasons say why."""
    reasons: tuple[Reason, ...]

    @property
    def status(self) -> Status:
        """The worst of the reasons."""
        return worst(reason.status for reason in self.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        line = self.line
        return {
            "one": self.one,
            "other": self.other,
            "status": self.status,
            "gaps": [asdict(each) | {"interval": _listed(each.interval)} for each in self.gaps],
            "slope_nats_per_ln_flops": None if line is None else line.slope,
            "slope_interval": None if line is None else _listed(line.slope_interval),
            "centre_train_flops": None if line is None else math.exp(line.centre),
            "gap_at_centre_nats": None if line is None else line.level,
            "crossing": None if self.crossing is None else asdict(self.crossing),
            "reasons": [reason.to_dict() for reason in self.reasons],
        }


def minimum_of(runs: ArmRuns, flops: float) -> tuple[float, float] | str:
    """An arm's fitted minimum at a budget and its standard error, nats; or why there is none."""
    refused = _why_no_minimum(runs, flops)
    if refused is not None:
        return refused
    centred = _centred(runs)
    found = _joint_fit([centred], runs.losses, np.zeros((len(runs.losses), 0)))
    if isinstance(found, str):
        return f"budget {flops:.3g}: {found}"
    return found.minima[0], found.error(np.array([1.0]))


def gap_at(one: ArmRuns, other: ArmRuns, flops: float) -> BudgetGap:
    """The gap between two arms at one budget, or why there is none."""
    orders = _common_orders(one, other)

    def refuse(why: str) -> BudgetGap:
        return BudgetGap(
            train_flops=flops,
            gap_nats=None,
            error_nats=None,
            scatter_nats=None,
            degrees=0,
            paired=bool(len(orders)),
            refused=why,
        )

    for runs in (one, other):
        why = _why_no_minimum(runs, flops)
        if why is not None:
            return refuse(why)
    losses = np.concatenate([one.losses, other.losses])
    seeds = np.concatenate([one.data_seeds, other.data_seeds])
    found = _joint_fit([_centred(one), _centred(other)], losses, _levels(seeds, orders))
    if isinstance(found, str):
        return refuse(f"budget {flops:.3g}: {found}")
    return BudgetGap(
        train_flops=flops,
        gap_nats=found.minima[1] - found.minima[0],
        error_nats=found.error(np.array([-1.0, 1.0])),
        scatter_nats=found.scatter,
        degrees=found.degrees,
        paired=bool(len(orders)),
        refused=None,
    )


def gap_trend(
    one: str, other: str, gaps: Sequence[BudgetGap], *, reasons: Sequence[Reason] = ()
) -> GapTrend:
    """The line through the gaps of two arms and its crossing; ``reasons`` are known beforehand."""
    gaps = tuple(sorted(gaps, key=lambda gap: gap.train_flops))
    line = gap_line(gaps)
    crossing = None if line is None or not line.slope_is_known else _crossing(one, other, line)
    return GapTrend(
        one=one,
        other=other,
        gaps=gaps,
        line=line,
        crossing=crossing,
        reasons=(*reasons, *_reasons(gaps, line)),
    )


def gap_line(gaps: Sequence[BudgetGap]) -> GapLine | None:
    """Least squares of the gaps on ln C; None through fewer than three.

    Weighted by the runs of each budget, and not by its scatter: weights that are estimated from a
    few runs make intervals too short. Each budget's scatter is in the error of the line. Where the
    gaps do not lie on one, their scatter about it is what tells how sure it is.
    """
    known = [
        (g.train_flops, g.gap_nats, g.scatter_nats, g.error_nats, g.degrees)
        for g in gaps
        if g.gap_nats is not None and g.scatter_nats and g.error_nats
    ]
    if len(known) < FEWEST_GAPS:
        return None
    flops, values, scatter, errors, degrees = np.array(known, dtype=np.float64).T
    logs, shares = np.log(flops), (errors / scatter) ** 2
    centre = float(np.average(logs, weights=1 / shares))
    design = np.stack([np.ones_like(logs), logs - centre], axis=1)
    solve = np.linalg.solve(design.T @ (design / shares[:, None]), design.T / shares)  # (2, B)
    level, slope = solve @ values
    covariance = (solve * errors**2) @ solve.T
    parts = (solve[1] * errors) ** 2
    freedom = float(parts.sum() ** 2 / np.sum(parts**2 / degrees))
    pooled = float(np.average(scatter**2, weights=degrees))
    rest = values - design @ [level, slope]
    lack, chance = _lack_of_line(rest**2 / (shares * pooled), float(degrees.sum()))
    if chance < NOT_A_LINE:
        covariance, freedom = covariance * lack, float(len(known) - 2)
    return GapLine(
        level=float(level),
        slope=float(slope),
        centre=centre,
        covariance=covariance,
        degrees=freedom,
        budgets=(float(flops.min()), float(flops.max())),
        lack_of_line=chance,
    )


def _lack_of_line(squares: FloatArray, freedom: float) -> tuple[float, float]:
    """Mean squared residual in standard errors, and the chance of one as large on a line."""
    from scipy.stats import f

    free = len(squares) - 2
    lack = float(np.sum(squares)) / free
    return lack, float(f.sf(lack, free, freedom))


def _crossing(one: str, other: str, line: GapLine) -> Crossing:
    zero, low, high = line.zero()
    first, last = math.log(line.budgets[0] / FURTHEST), math.log(line.budgets[1] * FURTHEST)
    return Crossing(
        better_beyond=one if line.slope > 0 else other,
        train_flops=math.exp(zero) if first <= zero <= last else None,
        not_before=math.exp(min(low, last)) if low >= first else None,
        not_after=math.exp(max(high, first)) if high <= last else None,
    )


def _reasons(gaps: Sequence[BudgetGap], line: GapLine | None) -> list[Reason]:
    reasons = [
        Reason(code="no-gap", status="warn", message=gap.refused) for gap in gaps if gap.refused
    ]
    unpaired = [gap for gap in gaps if gap.refused is None and not gap.paired]
    if unpaired:
        where = ", ".join(f"{gap.train_flops:.3g}" for gap in unpaired)
        reasons.append(
            Reason(
                code="not-paired",
                status="warn",
                message=(
                    f"no data order is common to both arms at {where} FLOPs, so that what an order "
                    "does to a loss is in the gap; use the same seeds.data for both"
                ),
            )
        )
    if line is None:
        found = sum(gap.refused is None for gap in gaps)
        reasons.append(
            Reason(
                code="too-few-gaps",
                status="refused",
                message=(
                    f"a trend needs gaps at {FEWEST_GAPS} budgets, but {found} of {len(gaps)} have "
                    "one; add budgets, or sizes on both sides of the minimum"
                ),
            )
        )
        return reasons
    if line.lack_of_line < NOT_A_LINE:
        reasons.append(
            Reason(
                code="not-a-line",
                status="warn",
                message=(
                    f"the gaps do not lie on a line in ln C (p = {line.lack_of_line:.2g}): their "
                    "scatter about it is in the intervals; leave out the smallest budgets"
                ),
            )
        )
    if not line.slope_is_known:
        low, high = line.slope_interval
        reasons.append(
            Reason(
                code="no-trend",
                status="refused",
                message=(
                    f"no crossing is told, since the slope's interval [{low:.3g}, {high:.3g}] nats "
                    "per unit of ln C holds zero: the arms may be parallel; add seeds, or budgets "
                    "further apart"
                ),
                parameters=("crossing",),
            )
        )
    return reasons


@dataclass(frozen=True)
class _JointFit:
    """Parabolas that were fitted together."""

    minima: tuple[float, ...]
    """Of each, nats."""
    gradients: FloatArray
    """Of each minimum in all coefficients, (curves, coefficients)."""
    covariance: FloatArray
    """Of the coefficients."""
    scatter: float
    """Standard deviation of a run about its curve, nats."""
    degrees: int
    """Of freedom of the residuals."""

    def error(self, weights: FloatArray) -> float:
        """Standard error of a weighted sum of the minima."""
        gradient = weights @ self.gradients
        return math.sqrt(float(gradient @ self.covariance @ gradient))


def _joint_fit(
    logs: Sequence[FloatArray], losses: FloatArray, levels: FloatArray
) -> _JointFit | str:
    """Parabolas through the runs of several arms, one after the other, with ``levels`` (n, s) that
    they share; or why not.

    A minimum moves with the coefficients as the curve does at its place, since it is flat there.
    """
    from scipy.linalg import block_diag

    design = np.hstack([block_diag(*(np.vander(each, 3) for each in logs)), levels])
    degrees = len(losses) - design.shape[1]
    if degrees < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return "no run is left over to tell the scatter about the curves; add sizes or seeds"
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ losses
    rest = losses - design @ coefficients
    minima, gradients = [], np.zeros((len(logs), design.shape[1]))
    for number, mine in enumerate(logs):
        block = slice(3 * number, 3 * number + 3)
        bend, slope, level = coefficients[block]
        place = -slope / (2 * bend) if bend > 0 else math.inf
        if not mine.min() < place < mine.max():
            return "with data orders taken out, a curve has no minimum among its sizes"
        minima.append(float(level - slope**2 / (4 * bend)))
        gradients[number, block] = place**2, place, 1.0
    return _JointFit(
        minima=tuple(minima),
        gradients=gradients,
        covariance=inverse * float(rest @ rest) / degrees,
        scatter=math.sqrt(float(rest @ rest) / degrees),
        degrees=degrees,
    )


def _why_no_minimum(runs: ArmRuns, flops: float) -> str | None:
    """What the curve of an arm's runs says against its minimum; None where it has one."""
    if not len(runs.sizes):
        return f"budget {flops:.3g}: an arm has no run that may be compared"
    curve = fit_curve(runs.sizes, runs.losses, runs.tokens, budget=flops)
    if curve.loss_star is not None:
        return None
    return next(reason.message for reason in curve.reasons if reason.status == "refused")


def _centred(runs: ArmRuns) -> FloatArray:
    logs = np.log(runs.sizes)
    return np.asarray(logs - logs.mean())


def _common_orders(one: ArmRuns, other: ArmRuns) -> NDArray[np.int64]:
    """Data orders that both arms ran, ascending."""
    return np.intersect1d(one.data_seeds, other.data_seeds)


def _levels(seeds: NDArray[np.int64], orders: NDArray[np.int64]) -> FloatArray:
    """A column for each common order, (n, s): all but the first where nothing else was run."""
    mine = orders if not np.isin(seeds, orders).all() else orders[1:]
    return np.asarray(seeds[:, None] == mine[None, :], dtype=np.float64)


def _student(degrees: float) -> float:
    from scipy.stats import t

    return float(t.ppf(1 - TAIL, degrees))


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [*interval]
