"""How does a fit read? The figures, the certificate, and the checklist that belongs to any law.

The checklist follows "(Mis)Fitting" (Li et al., arXiv 2502.18969).
"""

from __future__ import annotations

from typing import Any

from analysis.fit.fit_result import Derived, Fit
from analysis.gauntlet.all_cases import Gauntlet
from analysis.gauntlet.table_statuses import TableStatus
from analysis.isoflop.isoflop_fit import IsoflopFit
from analysis.judge.fit_certificate import Certificate
from analysis.objective.newton import GRADIENT_TOLERANCE
from analysis.points.checked_points import Points
from analysis.solve.variable_projection import GRID_POINTS
from analysis.sweep.sweep_fit import SweepFit

UNITS = {
    "n_star": "parameters",
    "d_star": "tokens",
    "loss": "nats",
    "flops": "FLOPs",
    "tokens_per_param": "tokens per parameter",
}


def number(value: float | None) -> str:
    """Four significant digits, or what stands for a missing value."""
    return "not given" if value is None else f"{value:.4g}"


def between(interval: tuple[float, float] | list[float] | None) -> str:
    """An interval in brackets, or nothing."""
    return "" if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"


def certificate_lines(certificate: Certificate) -> list[str]:
    """Status and reasons."""
    lines = [f"certificate: {certificate.status}; intervals assume: {certificate.assumes}"]
    for reason in certificate.reasons:
        lines.append(f"  {reason.status:<8} {reason.code}: {reason.message}")
    return lines


def fit_text(fit: Fit) -> str:
    """A fit for a person."""
    lines = [f"{fit.law.name} by {fit.estimator.name}: {fit.law.formula}", ""]
    for name, value in fit.parameters.items():
        status = fit.certificate.parameter_status(name)
        mark = "" if status == "ok" else f"  ({status})"
        lines.append(f"  {name:<8} {number(value):>12}  {between(fit.interval(name)):<28}{mark}")
    if fit.derived:
        lines += ["", *map(_derived_line, fit.derived)]
    lines += ["", *certificate_lines(fit.certificate), "", *_checklist(fit)]
    return "\n".join(lines)


def _derived_line(entry: Derived) -> str:
    where = ""
    if entry.at_flops is not None:
        where = f" at {entry.at_flops:.3g} FLOPs"
        if entry.outside_data_factor is not None and entry.outside_data_factor > 1.0:
            where += f" ({entry.outside_data_factor:.3g} times beyond the data)"
    elif entry.at_loss is not None:
        where = f" at loss {entry.at_loss:g} nats"
    convention = f"  {entry.convention}" if entry.convention else ""
    unit = UNITS.get(entry.name, "")
    shown = number(entry.value) if entry.value is None else f"{number(entry.value)} {unit}".strip()
    return f"  {entry.name}{where}: {shown}  {between(entry.interval)}{convention}".rstrip()


def _points_lines(points: Points) -> list[str]:
    lines = [f"  data: {points.source}, {points.num_rows} of {points.num_table_rows} rows"]
    for role, (low, high) in points.ranges().items():
        lines.append(f"    {role}: {low:.4g} to {high:.4g}")
    for left_out in points.excluded:
        lines.append(f"    left out, {left_out.reason}: {len(left_out.rows)} rows")
    budgets = points.budget_source
    lines.append(
        f"  budgets: {points.num_budgets} from {budgets}" if budgets else "  budgets: none"
    )
    lines += [f"  convention: {line}" for line in points.conventions]
    return lines


def _checklist(fit: Fit) -> list[str]:
    lines = ["checklist", *_points_lines(fit.points)]
    lines.append(f"  objective: {number(fit.objective)}, {fit.estimator.convention}")
    if fit.starts.at_optimum is not None:
        lines.append(
            f"  optimiser: variable projection on a grid of about {GRID_POINTS} points, "
            f"{fit.starts.number} starts polished by Newton steps, "
            f"{100 * fit.starts.at_optimum:.0f} % at the optimum; converged means a scaled "
            f"gradient under {GRADIENT_TOLERANCE:g}"
        )
    for name in fit.law.nonlinear:
        bounds = fit.law.bounds_of(name)
        lines.append(
            f"    {name} in {bounds.low:g} to {bounds.high:g}, "
            f"grid {bounds.grid_low:g} to {bounds.grid_high:g}"
        )
    if fit.replicates is not None:
        lines.append(
            f"  intervals: {100 * fit.replicates.level:g} %, {fit.replicates.kind}, "
            f"{len(fit.replicates.outer)} refits"
        )
    beside = {name: pair for name, pair in fit.jackknife.items() if fit.interval(name) is not None}
    if beside:
        listed = ", ".join(f"{name} {between(pair)}" for name, pair in beside.items())
        lines.append(f"  beside them, by the jackknife over budgets: {listed}")
    if fit.noise is not None:
        seed = fit.noise.seed_std
        lines.append(
            f"  residual noise: {100 * fit.noise.residual_std:.3g} %; seed noise: "
            + ("not known" if seed is None else f"{100 * seed:.3g} % ({fit.noise.seed_source})")
        )
    if fit.law.protocol:
        lines.append(f"  protocol: {fit.law.protocol}")
    lines.append(f"  seconds: {fit.seconds:.2f}")
    return lines


def isoflop_text(fitted: IsoflopFit) -> str:
    """Curves, exponents and the comparison with the surface, for a person."""
    lines = [f"iso-FLOP curves by {fitted.method}", ""]
    for curve in fitted.curves:
        regret = between(curve.regret_set)
        lines.append(
            f"  {curve.budget:.3g} FLOPs: N* {number(curve.n_star)} "
            f"{between(curve.n_star_interval)}, D* {number(curve.d_star)}, "
            f"loss {number(curve.loss_star)}, within 0.5 %: {regret or 'not given'} "
            f"({curve.status})"
        )
    lines.append("")
    for name, value in fitted.parameters.items():
        lines.append(f"  {name:<14} {number(value):>12}  {between(fitted.intervals[name])}")
    lines.append(f"  a by other curves: {_pairs(fitted.other_exponents)}")
    comparison = fitted.comparison()
    if comparison is not None:
        lines.append(
            f"  a by the surface on the same rows: {number(comparison['surface_a'])} "
            f"{between(comparison['surface_a_interval'])} ({comparison['surface_status']})"
        )
    for row in fitted.frontier():
        lines.append(
            f"  at {row['flops']:.3g} FLOPs ({row['outside_data_factor']:.3g} times the data): "
            f"N* {number(row['n_star'])} {between(row['n_star_interval'])}, "
            f"D* {number(row['d_star'])} {between(row['d_star_interval'])}"
        )
    lines += ["", *certificate_lines(fitted.certificate), "", "checklist"]
    return "\n".join(lines + _points_lines(fitted.points))


def _pairs(values: Any) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in values.items())


def sweep_text(sweep: SweepFit) -> str:
    """All laws of a sweep, for a person."""
    parts = []
    for arm in sweep.arms:
        texts = [*(fit_text(law) for law in arm.laws), isoflop_text(arm.isoflop)]
        parts.append("\n\n".join([f"== arm {arm.arm}", *texts]))
    if sweep.capacity is not None:
        parts.append(f"== all arms\n\n{fit_text(sweep.capacity)}")
    parts.append("\n".join(f"convention: {line}" for line in sweep.conventions))
    return "\n\n".join(parts)


def gauntlet_text(gauntlet: Gauntlet) -> str:
    """Published against ours, case by case."""
    lines = []
    case = None
    for row in gauntlet.comparisons:
        if row.case != case:
            case = row.case
            lines += ["", case]
        mark = "ok" if row.passed else "DIFFERS"
        lines.append(
            f"  {row.figure:<58} published {row.published:>14.8g}  ours {row.ours:>14.8g}  "
            f"tolerance {row.tolerance:.1g}  {mark}"
        )
    lines += ["", *map(_table_line, gauntlet.tables)]
    lines += ["", *(f"skipped: {what}" for what in gauntlet.skipped)]
    passed = sum(row.passed for row in gauntlet.comparisons)
    lines.append(f"{passed} of {len(gauntlet.comparisons)} figures within tolerance")
    if gauntlet.tables:
        same = sum(table.passed for table in gauntlet.tables)
        lines.append(f"{same} of {len(gauntlet.tables)} tables judged alike in every unit")
    return "\n".join(lines).strip()


def _table_line(table: TableStatus) -> str:
    why = f" ({', '.join(table.refused_for)})" if table.refused_for else ""
    mark = "ok" if table.passed else "DIFFERS"
    differing = f" in {', '.join(table.differing)}" if not table.passed else ""
    return (
        f"  {table.table:<58} {table.rows:>4} rows  {table.status}{why}, in other units "
        f"{table.elsewhere}  {mark}{differing}"
    )
