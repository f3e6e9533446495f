"""What speaks against a fit? Each check turns one measured fact into a reason with a remedy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.judge.fit_certificate import Reason, Status
from analysis.judge.identifiability import (
    moving_together,
)
from analysis.judge.lack_of_fit import Noise
from analysis.laws.law import FloatArray, Law
from analysis.objective.estimators import Estimator
from analysis.objective.newton import GRADIENT_TOLERANCE, Optima
from analysis.objective.surface import Surface
from analysis.points.checked_points import Points
from analysis.solve.resampling import FEWEST_GROUPS, Replicates

CONSTANT_LOG_RANGE = 1e-6
"""Losses that span less than a millionth carry no information on any law."""

SHARE_AT_OPTIMUM = 0.5
"""Share of starts that must agree before the optimum counts as found."""

SAME_PARAMETER = 1e-3
"""Relative spread of a parameter over equally good starts beyond which it is not unique."""

HUBER_FAR_BELOW = 0.5
"""Huber deltas under half the residual noise make the Hessian's error bars meaningless."""

SHAPE_HALF_WIDTH = 0.3
"""An interval of phi wider than +-0.3 spans more than half of the way from worthless to whole."""

TERM_RATIO = 100.0
"""A term that is known to no better than a factor 100, at the centre of the table, is not known.

Its coefficient is the term at a size of 1 in the table's units, far outside of the rows: judged
there, the same rows would be refused in one unit and not in another."""

NARROW_SIZES = 6.0
"""Sizes of one budget that span less say little of exponents: 16 x is what laws want."""

FEW_BUDGETS = 6
"""With fewer, an interval over budgets is half as wide again as it has to be (Student's t)."""

NOISE_FREE = 1e-5
"""Residuals relative to the loss below anything that training twice gives."""

OFFSET_RATIO = 3.0
"""The irreducible loss must be known to better than a factor 3 between its ends."""


@dataclass(frozen=True, kw_only=True)
class TermAtCentre:
    """One term of a law at the geometric mean of the table's sizes: the same in every unit."""

    value: float
    """In the loss's unit."""
    interval: tuple[float, float] | None
    where: str
    """The centre, in words."""

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        interval = None if self.interval is None else list(self.interval)
        return {"value": self.value, "interval": interval, "at": self.where}


def data_reasons(points: Points, law: Law) -> list[Reason]:
    """What the rows themselves rule out before any fit."""
    names, rows = law.parameters, points.num_rows
    reasons = []
    if rows <= len(names):
        reasons.append(
            Reason(
                code="too-few-points",
                status="refused",
                message=(
                    f"{rows} rows cannot determine the {len(names)} parameters of {law.name} and "
                    f"leave something to judge them by; use at least {2 * len(names)}"
                ),
            )
        )
    elif rows < 2 * len(names):
        reasons.append(
            Reason(
                code="few-points",
                status="warn",
                message=(
                    f"{rows} rows for {len(names)} parameters leave {rows - len(names)} degrees "
                    f"of freedom; intervals are rough below {2 * len(names)} rows"
                ),
            )
        )
    spread = float(np.ptp(np.log(points.losses)))
    if spread < CONSTANT_LOG_RANGE:
        reasons.append(
            Reason(
                code="constant-loss",
                status="refused",
                message=(
                    f"all {rows} losses are {points.losses[0]:.6g} (they span {spread:.1g} of "
                    "themselves), so nothing decays; check which column holds the loss"
                ),
            )
        )
    return reasons


def optimum_reasons(surface: Surface, optima: Optima, best: int) -> list[Reason]:
    """Whether the optimum is one: moved, flat, found from several starts, and unique."""
    gradient = float(optima.scaled_gradient[best])
    if gradient > GRADIENT_TOLERANCE and optima.moved.max() == 0.0:
        return [
            Reason(
                code="start-returned",
                status="refused",
                message=(
                    "the optimiser gave its starts back unmoved although the scaled gradient "
                    f"there is {gradient:.1g} (converged: {GRADIENT_TOLERANCE:g}); no fit took "
                    "place, allow more iterations"
                ),
            )
        ]
    if gradient > GRADIENT_TOLERANCE:
        return [
            Reason(
                code="not-converged",
                status="refused",
                message=(
                    f"the scaled gradient at the best of {len(optima.objective)} starts is "
                    f"{gradient:.1g}, not under {GRADIENT_TOLERANCE:g}: this is not an optimum, "
                    "and usually means that the design leaves a direction undetermined"
                ),
            )
        ]
    return _start_reasons(surface, optima, best)


def at_optimum(optima: Optima, best: int) -> FloatArray:
    """Which starts (S,) ended at the best objective, to a millionth."""
    lowest = optima.objective[best]
    return np.asarray(optima.objective - lowest <= 1e-6 * lowest + 1e-18)


def _start_reasons(surface: Surface, optima: Optima, best: int) -> list[Reason]:
    names = surface.law.parameters
    there = at_optimum(optima, best)
    reasons = []
    if there.mean() < SHARE_AT_OPTIMUM:
        reasons.append(
            Reason(
                code="starts-disagree",
                status="warn",
                message=(
                    f"{int(there.sum())} of {len(there)} polished starts reached the optimum; the "
                    "objective has several basins and a better one may exist"
                ),
            )
        )
    inner = optima.inner[there]
    spread = np.ptp(inner, axis=0) / np.maximum(np.abs(inner[0]), 1e-3)
    loose = tuple(n for n, s in zip(names, spread, strict=True) if s > SAME_PARAMETER)
    if loose:
        reasons.append(
            Reason(
                code="not-unique",
                status="refused",
                parameters=loose,
                message=(
                    f"starts with the same objective end at different {', '.join(loose)}: the data "
                    "are equally content with many values"
                ),
            )
        )
    return reasons


def interval_reasons(
    points: Points,
    law: Law,
    optimum: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float] | None],
    linear_half_widths: Mapping[str, float],
    refused: Collection[str],
    terms: Mapping[str, TermAtCentre],
) -> list[Reason]:
    """Parameters, not refused before, whose interval is too wide to use, by kind of parameter.

    Of a coefficient in ``terms``, that of its term at the centre of the table decides.
    """
    reasons, remedy = [], _remedy(points)
    for name in law.parameters:
        interval, value = intervals.get(name), optimum[name]
        if interval is None or name in refused:
            continue
        term = terms.get(name)
        judged = interval if term is None or term.interval is None else term.interval
        status = _width_status(law, name, value, judged, linear_half_widths.get(name, 0.0))
        if status == "ok":
            continue
        pairs = moving_together({role: points.columns[role] for role in law.roles})
        cause = "; ".join(f"{one} and {two} move together" for one, two in pairs)
        linear = linear_half_widths.get(name, 0.0)
        wider = f", +-{linear:.2g} by the Jacobian" if linear > interval[1] - interval[0] else ""
        reasons.append(
            Reason(
                code="not-identified" if status == "refused" else "weak",
                status=status,
                parameters=(name,),
                message=(
                    f"{_value_in_words(name, value, interval, term)}{wider}: "
                    + (
                        "the rows do not determine it"
                        if status == "refused"
                        else "the rows determine it poorly"
                    )
                    + (f"; in the table {cause}" if cause and name in law.shape else "")
                    + f"; {remedy} would narrow it"
                ),
            )
        )
    return reasons


def _remedy(points: Points) -> str:
    """What would narrow intervals most, of the rows that there are."""
    sizes = points.columns.get("params")
    if points.budgets is not None and sizes is not None:
        spans = [
            float(sizes[points.budgets == each].max() / sizes[points.budgets == each].min())
            for each in range(points.num_budgets)
        ]
        span = float(np.median(spans))
        if span < NARROW_SIZES:
            return (
                f"sizes from a quarter to four times the best one at every budget (half of the "
                f"budgets span {span:.2g} x or less)"
            )
        if points.num_budgets < FEW_BUDGETS:
            return f"more budgets (there are {points.num_budgets})"
    elif points.num_rows > 1 and sizes is not None and sizes.max() < NARROW_SIZES * sizes.min():
        return f"a wider range of sizes (they span {float(sizes.max() / sizes.min()):.2g} x)"
    return "more rows, replicates of some of them, and even rates and depths"


def _value_in_words(
    name: str, value: float, interval: tuple[float, float], term: TermAtCentre | None
) -> str:
    if term is None or term.interval is None:
        return f"{name} = {value:.4g} with interval {interval[0]:.4g} to {interval[1]:.4g}"
    low, high = term.interval
    return (
        f"the term of {name} is {term.value:.3g} at the table's centre ({term.where}) with "
        f"interval {low:.3g} to {high:.3g}"
    )


def _width_status(
    law: Law, name: str, value: float, interval: tuple[float, float], linear: float
) -> Status:
    low, high = interval
    half = max(0.5 * (high - low), linear)
    if name in law.linear:
        ratio = high / low if low > 0 else np.inf
        refused, weak = (
            (OFFSET_RATIO, np.sqrt(OFFSET_RATIO))
            if name == law.offset
            else (TERM_RATIO, np.sqrt(TERM_RATIO))
        )
        return "refused" if ratio > refused else "warn" if ratio > weak else "ok"
    limit = abs(value) if name in law.exponents else max(SHAPE_HALF_WIDTH, 0.5 * abs(value))
    return "refused" if half > limit else "warn" if half > 0.5 * limit else "ok"


def _noise_free(noise: Noise) -> Reason:
    return Reason(
        code="noise-free",
        status="ok",
        message=(
            f"the rows lie on the law to {100 * noise.residual_std:.1g} %, closer than runs ever "
            "do: they look computed from a formula, and the intervals say nothing about runs"
        ),
    )


def noise_reasons(
    points: Points, estimator: Estimator, noise: Noise, replicates: Replicates
) -> list[Reason]:
    """What the residuals and the resamples say about the intervals."""
    reasons = []
    if noise.residual_std < NOISE_FREE:
        reasons.append(_noise_free(noise))
    elif noise.lack_is_significant:
        reasons.append(
            Reason(
                code="lack-of-fit",
                status="warn",
                message=(
                    f"residuals ({100 * noise.residual_std:.2g} %) are {noise.lack_of_fit:.1f} "
                    f"times the seed noise ({100 * (noise.seed_std or 0):.2g} %, "
                    f"{noise.seed_source}): the law itself misses something, and extrapolation "
                    "inherits that error"
                ),
            )
        )
    turning = estimator.turning_point
    if replicates.kind == "hessian":
        far = turning is not None and turning < HUBER_FAR_BELOW * noise.robust_std
        reasons.append(
            Reason(
                code="hessian-interval",
                status="warn",
                message=(
                    "intervals come from the Hessian"
                    + (
                        f", whose curvature counts only the rows within delta {turning:g}, far "
                        f"below the residual noise {noise.robust_std:.2g}: such intervals are "
                        "several times too small"
                        if far
                        else ", which assumes independent normal noise"
                    )
                    + "; use a jackknife or bootstrap"
                ),
            )
        )
    if replicates.share_converged < 0.95:
        reasons.append(
            Reason(
                code="resamples-failed",
                status="warn",
                message=(
                    f"{100 * (1 - replicates.share_converged):.0f} % of the {replicates.kind} "
                    "refits did not converge and are left out; intervals lean on the others"
                ),
            )
        )
    if replicates.kind == "components" and points.num_budgets < FEW_BUDGETS:
        reasons.append(
            Reason(
                code="few-budgets",
                status="ok",
                message=(
                    f"{points.num_budgets} budgets say little of what their runs share: intervals "
                    "were measured to hold what they promise at six and eight (docs/laws.md); at "
                    "four and five they are wide where noise is independent, and a loss far "
                    "beyond the data may be missed more often where nearly all of it is shared"
                ),
            )
        )
    if replicates.kind in ("jackknife", "clusters", "wild", "pairs") and (
        "trunk" in points.shared_noise
    ):
        reasons.append(
            Reason(
                code="ignores-trunks",
                status="warn",
                message=(
                    f"{replicates.kind} intervals take branches of one trunk at several budgets "
                    "for independent runs; use --resample components, where they cross budgets"
                ),
            )
        )
    if replicates.kind == "wild":
        reasons.append(
            Reason(
                code="wild-undercovers",
                status="warn",
                message=(
                    "wild cluster intervals were measured to hold the truth in 62 to 87 % of "
                    "simulated sweeps instead of 95 (docs/laws.md); use --resample jackknife"
                ),
            )
        )
    if replicates.kind in ("pairs", "residual") and points.num_budgets >= FEWEST_GROUPS:
        reasons.append(
            Reason(
                code="ignores-clusters",
                status="warn",
                message=(
                    f"{replicates.kind} intervals assume independent rows, but the table has "
                    f"{points.num_budgets} budgets; where rows of one budget share noise these "
                    "intervals are too narrow (see docs/laws.md for measured coverage); use "
                    "--resample jackknife"
                ),
            )
        )
    return reasons
