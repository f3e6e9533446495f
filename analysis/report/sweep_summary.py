"""What does a sweep's fit say in a few lines? What stands, and why the rest does not."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.fit.fit_result import Fit
from analysis.isoflop.isoflop_fit import IsoflopFit
from analysis.judge.fit_certificate import Certificate, Reason
from analysis.report.fit_text import between, number
from analysis.sweep.sweep_fit import ArmFit, SweepFit

MAX_REASONS = 2
"""Reasons that are told of each law; the whole certificate is in the JSON and in the full text."""


def sweep_summary(sweep: SweepFit) -> str:
    """What stands, then one paragraph per arm and one for the law over all arms."""
    parts = [_standing(sweep), *(_arm_lines(arm) for arm in sweep.arms)]
    if sweep.capacity is not None:
        parts.append(_law_lines("all arms", sweep.capacity))
    return "\n\n".join("\n".join(lines) for lines in parts)


def _standing(sweep: SweepFit) -> list[str]:
    """What of all this is not refused, arm by arm; what the rows determine poorly says so."""
    found = {arm.arm: _arm_stands(arm) for arm in sweep.arms}
    if sweep.capacity is not None:
        found["all arms"] = _stands(sweep.capacity)
    lines = [f"  {label}: {', '.join(values)}" for label, values in found.items() if values]
    return ["what stands, with 95 % intervals:", *lines] if lines else ["no law stands yet"]


def _arm_stands(arm: ArmFit) -> list[str]:
    law = arm.surface if arm.loops is None else arm.loops
    return _stands(law) + _exponent(arm.isoflop)


def _stands(fitted: Fit) -> list[str]:
    """Exponents and shapes of a law that are not refused."""
    names = [name for name in fitted.law.nonlinear if fitted.parameters[name] is not None]
    return [
        _with_interval(name, fitted.parameters[name], fitted.interval(name))
        + _poorly(name, fitted.certificate)
        for name in names
    ]


def _exponent(fitted: IsoflopFit) -> list[str]:
    value = fitted.parameters["a"]
    if value is None:
        return []
    told = _with_interval("a", value, fitted.intervals["a"])
    return [f"best size ~ C^a, {told}{_poorly('a', fitted.certificate)}"]


def _poorly(name: str, certificate: Certificate) -> str:
    weak = any(each.code == "weak" and name in each.parameters for each in certificate.reasons)
    return " (poorly)" if weak else ""


def _with_interval(name: str, value: float | None, interval: tuple[float, float] | None) -> str:
    return f"{name} {number(value)} {between(interval)}".rstrip()


def _arm_lines(arm: ArmFit) -> list[str]:
    laws = [line for law in arm.laws for line in _law_lines(arm.arm, law)]
    return laws + _curve_lines(arm.isoflop)


def _law_lines(label: str, fitted: Fit) -> list[str]:
    """Formula, status, the parameters that stand, and the reasons against the others."""
    num_rows, status = fitted.points.num_rows, fitted.status
    lines = [f"{label} ({num_rows} results): {fitted.law.formula}: {status}"]
    stands = [
        _with_interval(name, value, fitted.interval(name))
        for name, value in fitted.parameters.items()
        if value is not None
    ]
    if stands:
        lines.append(f"  {', '.join(stands)}")
    return lines + _reasons(fitted.certificate)


def _curve_lines(fitted: IsoflopFit) -> list[str]:
    """How many curves have a minimum, and the exponent of the optimal size."""
    found = [curve for curve in fitted.curves if curve.n_star is not None]
    lines = [f"  iso-FLOP curves: {len(found)} of {len(fitted.curves)} have a minimum"]
    lines[0] += "".join(f"; {each}" for each in _exponent(fitted))
    return lines + [f"  {each.status}: {each.message}" for each in _against_exponent(fitted)]


def _against_exponent(fitted: IsoflopFit) -> list[Reason]:
    """Why there is no exponent, in one line."""
    if fitted.parameters["a"] is not None:
        return []
    refused = [each for each in fitted.certificate.reasons if each.status == "refused"]
    return refused[-1:]


def _reasons(certificate: Certificate) -> list[str]:
    """The gravest reasons, one line each."""
    against = [each for each in certificate.reasons if each.status != "ok"]
    against.sort(key=lambda each: each.status != "refused")
    lines = [f"  {each.status}: {each.message}" for each in against[:MAX_REASONS]]
    return lines + _more(against[MAX_REASONS:])


def _more(rest: Iterable[object]) -> list[str]:
    count = len(list(rest))
    return [f"  and {count} more reason{'s' * (count > 1)}"] if count else []
