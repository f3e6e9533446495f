"""How far apart are two arms at their frontiers, where does that lead, and from which compute on is
one of them the better?

An arm's frontier at a budget is the minimum of a parabola through the losses of its sizes, never
the lowest loss, which is the luckiest one; where an arm ran several K, that of its best K
(`joint_curves`). Which K is the best is not known for sure, and the interval holds that too: it is
that of the least of several means. The gaps then follow a straight line in ln C, and the line's
zero is the crossing, its interval by Fieller's theorem (Fieller 1954, J. R. Stat. Soc. B 16, 175).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analysis.isoflop.joint_curves import (
    ArmCurves,
    ArmRuns,
    JointFit,
    common_orders,
    curves_of,
    joint_fit,
)
from analysis.judge.fit_certificate import Reason, Status, worst
from analysis.laws.law import FloatArray

FEWEST_GAPS = 3
"""Through two gaps every line is exact, and nothing tells whether it is one."""

FURTHEST = 10.0
"""No crossing is told further than so many times beyond the budgets."""

TAIL = 0.025
"""Of a 95 % interval, on each side."""

NO_MINIMUM = "with data orders taken out, a curve has no minimum among its sizes"

NOT_A_LINE = 0.05
"""Chance to find that gaps of a straight line do not lie on one."""


@dataclass(frozen=True, kw_only=True)
class BudgetGap:
    """Two arms at one budget."""

    train_flops: float
    """The budget."""
    gap_nats: float | None
    """Fitted minimum of the second arm less that of the first, nats; None where refused."""
    error_nats: float | None
    """Standard error of it, from the scatter about the curves; of several K, such that the interval
    is 2 t errors wide."""
    interval: tuple[float, float] | None
    """95 %, nats; None where refused. With several K it need not be centred on the gap."""
    scatter_nats: float | None
    """Standard deviation of a run about its curve."""
    degrees: int
    """Degrees of freedom that the scatter rests on."""
    paired: bool
    """Whether a data order is common to both arms."""
    loops: tuple[float | None, float | None] = (None, None)
    """The best K of the first and of the second arm; None where several stand on one curve."""
    left_out: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
    """Each K of either arm that has no minimum by itself beside others that have."""
    refused: str | None
    """Why there is no gap."""

    @property
    def is_of_line(self) -> bool:
        """Whether a trend may rest on it: a gap of several K on one curve is their mixture's."""
        return self.refused is None and None not in self.loops


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
    """An arm's fitted minimum at a budget, its best K's, and its standard error, nats, which holds
    that another K may be the best; or why there is none."""
    parted = curves_of(runs, flops)
    if isinstance(parted, str):
        return parted
    found = joint_fit(parted.curves, runs.data_seeds[:0])
    if isinstance(found, str):
        return f"budget {flops:.3g}: {found}"
    known = _known(found, range(len(parted.curves)))
    if not known:
        return f"budget {flops:.3g}: {NO_MINIMUM}"
    once, together = _student(found.degrees), _student(found.degrees, TAIL / len(known))
    low = min(loss - once * found.error(number) for number, loss in known.items())
    high = min(loss + together * found.error(number) for number, loss in known.items())
    return min(known.values()), (high - low) / 2 / once


def gap_at(one: ArmRuns, other: ArmRuns, flops: float) -> BudgetGap:
    """The gap between two arms at one budget, or why there is none."""
    parted = [curves_of(runs, flops) for runs in (one, other)]
    kept = [each for each in parted if isinstance(each, ArmCurves)]
    if len(kept) < len(parted):
        return _refused(flops, next(why for why in parted if isinstance(why, str)))
    curves = (*kept[0].curves, *kept[1].curves)
    orders = common_orders(kept[0].curves, kept[1].curves)
    found = joint_fit(curves, orders)
    if isinstance(found, str):
        return _refused(flops, f"budget {flops:.3g}: {found}", paired=bool(len(orders)))
    num_first = len(kept[0].curves)
    first = _known(found, range(num_first))
    second = _known(found, range(num_first, len(curves)))
    if not first or not second:
        return _refused(flops, f"budget {flops:.3g}: {NO_MINIMUM}", paired=bool(len(orders)))
    low, high = _interval(found, first, second)
    loops = [each for mine in kept for each in mine.loops]
    without = [
        tuple(k for n, k in enumerate(loops) if n in numbers and n not in known and k is not None)
        for numbers, known in ((range(num_first), first), (range(num_first, len(loops)), second))
    ]
    return BudgetGap(
        train_flops=flops,
        gap_nats=min(second.values()) - min(first.values()),
        error_nats=(high - low) / 2 / _student(found.degrees),
        interval=(low, high),
        scatter_nats=found.scatter,
        degrees=found.degrees,
        paired=bool(len(orders)),
        loops=(
            loops[min(first, key=first.__getitem__)],
            loops[min(second, key=second.__getitem__)],
        ),
        left_out=(kept[0].left_out + without[0], kept[1].left_out + without[1]),
        refused=None,
    )


def _refused(flops: float, why: str, *, paired: bool = False) -> BudgetGap:
    return BudgetGap(
        train_flops=flops,
        gap_nats=None,
        error_nats=None,
        interval=None,
        scatter_nats=None,
        degrees=0,
        paired=paired,
        refused=why,
    )


def _known(found: JointFit, numbers: Iterable[int]) -> dict[int, float]:
    """The minima that these curves have, nats, by the curve's number."""
    minima = {number: found.minima[number] for number in numbers}
    return {number: loss for number, loss in minima.items() if loss is not None}


def _interval(
    found: JointFit, first: Mapping[int, float], second: Mapping[int, float]
) -> tuple[float, float]:
    """95 % of the least of the second minima less the least of the first.

    With k* the truly best curve of the second arm, the gap is at least its loss less any of the
    first; with j* that of the first, at most any of the second less its loss. Each end so needs
    that the bounds of one row of differences hold together, by Bonferroni, and no word on which
    curve is the best. With one curve each it is Student's.
    """
    below = _student(found.degrees, TAIL / len(first))
    above = _student(found.degrees, TAIL / len(second))
    gaps = {(k, j): second[k] - first[j] for k in second for j in first}
    errors = {(k, j): found.error_of_difference(j, k) for k, j in gaps}
    low = min(max(gaps[k, j] - below * errors[k, j] for j in first) for k in second)
    high = max(min(gaps[k, j] + above * errors[k, j] for k in second) for j in first)
    return low, high


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
        if g.gap_nats is not None and g.scatter_nats and g.error_nats and g.is_of_line
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
        found = sum(gap.is_of_line for gap in gaps)
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


def _student(degrees: float, tail: float = TAIL) -> float:
    from scipy.stats import t

    return float(t.ppf(1 - tail, degrees))


def _listed(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else [*interval]
