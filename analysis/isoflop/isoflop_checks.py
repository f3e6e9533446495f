"""What speaks against exponents from iso-FLOP optima, and do they agree with the surface?"""

from __future__ import annotations

from collections.abc import Sequence

from analysis.fit.fit_result import Fit
from analysis.isoflop.isoflop_curves import IsoflopCurve
from analysis.isoflop.power_line import PowerLine
from analysis.judge.fit_certificate import Reason, Status

FEWEST_CURVES = 3
"""Two optima give a slope without any error."""

WEAK = 0.5
"""Of an exponent's value: half-widths beyond are a warning, beyond the value itself a refusal."""

SUM_TOLERANCE = 0.05
"""a + b is 1 where C = 6 N D; a larger distance means that the curves or the FLOPs are off."""


def curve_reasons(
    curves: Sequence[IsoflopCurve],
    size_line: PowerLine | None,
    token_line: PowerLine | None,
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
    return reasons + line_reasons(size_line, token_line)


def pooled_reasons(why_none: str) -> list[Reason]:
    """That one curve over all budgets gives no exponents."""
    return [Reason(code="no-pooled-curve", status="refused", message=why_none)]


def line_reasons(size_line: PowerLine, token_line: PowerLine) -> list[Reason]:
    """What speaks against exponents by themselves: intervals too wide to use, a sum that is not 1.

    The limits are those of a law's exponents: refused where the half-width exceeds the value.
    """
    return [
        *_width_reasons("a", ("a", "n_coefficient", "n_star"), size_line),
        *_width_reasons("b", ("b", "d_coefficient", "d_star"), token_line),
        *_sum_reasons(size_line, token_line),
    ]


def _width_reasons(name: str, concerned: tuple[str, ...], line: PowerLine) -> list[Reason]:
    low, high = line.exponent_interval
    half, value = (high - low) / 2, abs(line.exponent)
    if half <= WEAK * value:
        return []
    poorly = half <= value
    return [
        Reason(
            code="weak" if poorly else "not-identified",
            status="warn" if poorly else "refused",
            parameters=concerned,
            message=(
                f"{name} = {line.exponent:.3g} with interval {low:.3g} to {high:.3g}: the rows "
                f"{'determine it poorly' if poorly else 'do not determine it'}; more sizes and "
                f"budgets, or replicates, would narrow it"
            ),
        )
    ]


def _sum_reasons(size_line: PowerLine, token_line: PowerLine) -> list[Reason]:
    """Sizes and tokens at the optima multiply up to the FLOPs, so that a + b is 1."""
    total = size_line.exponent + token_line.exponent
    if abs(total - 1.0) <= SUM_TOLERANCE:
        return []
    return [
        Reason(
            code="exponents-do-not-sum",
            status="warn",
            message=(
                f"a + b = {total:.3f}, away from 1: sizes and tokens at the optima do not "
                "multiply up to the FLOPs; check what params and FLOPs count"
            ),
        )
    ]


def surface_reasons(
    line: PowerLine | None, surface: Fit | None, at_flops: Sequence[float]
) -> list[Reason]:
    """The exponent and the optimal sizes of both approaches, and whether their intervals meet."""
    entry = None if surface is None else surface.derived_value("a")
    if line is None or surface is None or entry is None or entry.value is None:
        return []
    apart = _are_apart(line.exponent_interval, entry.interval)
    parts = [f"a = {line.exponent:.3f} from the curves and {entry.value:.3f} from the surface"]
    for flops in at_flops:
        theirs = surface.derived_value("n_star", at_flops=flops)
        if theirs is None or theirs.value is None:
            continue
        ours, interval = line.at(flops)
        apart |= _are_apart(interval, theirs.interval)
        parts.append(f"N* at {flops:.3g} FLOPs {ours:.3g} and {theirs.value:.3g}")
    return [
        Reason(
            code="curves-and-surface-disagree" if apart else "curves-and-surface",
            status="warn" if apart else "ok",
            message=(
                f"{', '.join(parts)}: "
                + ("apart beyond their intervals" if apart else "within their intervals")
                + "; curves are biased where the two exponents of the law differ, the surface "
                "where the law's form is wrong; they are not averaged"
            ),
        )
    ]


def _are_apart(one: tuple[float, float], other: tuple[float, float] | None) -> bool:
    """Whether two intervals do not meet, up to one part in a million."""
    if other is None:
        return False
    return one[0] > other[1] * (1 + 1e-6) or one[1] * (1 + 1e-6) < other[0]
