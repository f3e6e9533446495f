"""How is a law fitted to a table? Solve, resample, judge: one `Fit` value."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from analysis.fit.fit_assembly import Judged, assemble, default_flops, refused_fit
from analysis.fit.fit_result import Fit
from analysis.judge.design_checks import bound_reasons, design_reasons
from analysis.judge.fit_certificate import Reason
from analysis.judge.fit_checks import (
    TermAtCentre,
    data_reasons,
    interval_reasons,
    noise_reasons,
    optimum_reasons,
)
from analysis.judge.frontier_shape import collapse
from analysis.judge.held_parameters import checked_fixed, held_reasons
from analysis.judge.identifiability import Identifiability, identifiability
from analysis.judge.lack_of_fit import Noise, noise_of
from analysis.judge.rows_for_laws import unfit_reasons
from analysis.judge.table_checks import require_positive, table_reasons
from analysis.laws.law import Law
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator, EstimatorName
from analysis.points.checked_points import Points
from analysis.points.table_reading import points_from
from analysis.solve.resampling import FEWEST_GROUPS, Replicates, Resample, kind_for, resample
from analysis.solve.solving import NUM_STARTS, Solution, solve
from spaces.errors import RequestError

NUM_RESAMPLES = 1000
"""Bootstrap resamples unless asked otherwise."""


def fit(
    law: Law | str,
    table: Path | str | pl.DataFrame | Points,
    *,
    estimator: Estimator | EstimatorName = "huber",
    roles: Mapping[str, str] | None = None,
    tokens_from_flops: str | None = None,
    keep: Sequence[str] = (),
    resample_kind: Resample = "auto",
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
    at_flops: Sequence[float] = (),
    at_losses: Sequence[float] = (),
    num_starts: int = NUM_STARTS,
    max_iterations: int = 200,
    fixed: Mapping[str, float] | None = None,
) -> Fit:
    """Fit one law to one table; statistical refusals are part of the result.

    ``fixed`` holds the offset, exponents or shape parameters at values instead of fitting them.

    Raises `RequestError` for what cannot be asked: unknown names, missing columns, malformed rows.
    """
    law = law_named(law) if isinstance(law, str) else law
    estimator = Estimator(name=estimator) if isinstance(estimator, str) else estimator
    require_positive("--at-flops", at_flops)
    require_positive("--target-loss", at_losses)
    if num_resamples < 1:
        raise RequestError(f"intervals need at least one resample, got {num_resamples}")
    began = time.perf_counter()
    held = checked_fixed(law, fixed or {})
    points = as_points(table, law, roles=roles, tokens_from_flops=tokens_from_flops, keep=keep)
    kind_for(points, resample_kind)
    reasons = table_reasons(points, law) + unfit_reasons(points) + held_reasons(points, law, held)
    reasons += data_reasons(points, law)
    if any(reason.status == "refused" and not reason.parameters for reason in reasons):
        return refused_fit(law, estimator, points, reasons, time.perf_counter() - began)
    solution = solve(
        points, law, estimator, num_starts=num_starts, max_iterations=max_iterations, fixed=held
    )
    at_flops = tuple(at_flops) or default_flops(points)
    judged = _judge(solution, reasons, kind=resample_kind, num=num_resamples, seed=seed)
    return assemble(judged, at_flops, at_losses, began)


def as_points(
    table: Path | str | pl.DataFrame | Points,
    law: Law,
    *,
    roles: Mapping[str, str] | None = None,
    tokens_from_flops: str | None = None,
    keep: Sequence[str] = (),
) -> Points:
    """Points of a table for one law; points pass through."""
    if isinstance(table, Points):
        missing = [role for role in law.roles if role not in table.columns]
        if missing:
            raise RequestError(f"{law.name} reads {', '.join(missing)}, which the points lack")
        return table
    path = Path(table) if isinstance(table, str) else table
    return points_from(path, law.roles, roles=roles, tokens_from_flops=tokens_from_flops, keep=keep)


def _judge(
    solution: Solution, reasons: list[Reason], *, kind: Resample, num: int, seed: int
) -> Judged:
    points, estimator, asked = solution.points, solution.estimator, solution
    found = identifiability(solution.surface, solution.inner, on_logs=estimator.on_logs)
    design = design_reasons(points, solution.surface, solution.inner, found)
    bounds = bound_reasons(solution.surface, solution.inner)
    collapsed = collapse(solution)
    if collapsed is not None:
        solution, reason = collapsed
        found = identifiability(solution.surface, solution.inner, on_logs=estimator.on_logs)
        design, bounds = [reason], bound_reasons(solution.surface, solution.inner)
    reasons = reasons + design + bounds
    reasons += optimum_reasons(solution.surface, solution.optima, solution.best)
    replicates = resample(
        points, solution.surface, solution.inner, estimator, kind=kind, num=num, seed=seed
    )
    num_free = len(solution.law.parameters) - len(solution.surface.fixed)
    noise = noise_of(points, solution.log_residuals, num_free)
    intervals = _parameter_intervals(solution, replicates)
    beside = _beside(solution, replicates)
    half_widths = _linear_half_widths(solution, found, noise)
    refused = {
        name for reason in reasons if reason.status == "refused" for name in reason.parameters
    }
    terms = _terms_at_centre(solution, replicates)
    reasons += interval_reasons(
        points, solution.law, solution.optimum, intervals, half_widths, refused, terms
    )
    reasons += noise_reasons(points, estimator, noise, replicates)
    return Judged(solution, asked, replicates, found, noise, intervals, reasons, terms, beside)


def _beside(solution: Solution, replicates: Replicates) -> dict[str, tuple[float, float] | None]:
    """Intervals of the jackknife, which assumes less, where noise components gave the others."""
    points = solution.points
    if replicates.kind != "components" or points.num_budgets < FEWEST_GROUPS:
        return {}
    found = resample(
        points,
        solution.surface,
        solution.inner,
        solution.estimator,
        kind="jackknife",
        num=points.num_budgets,
        seed=0,
    )
    return _parameter_intervals(solution, found)


def _terms_at_centre(solution: Solution, replicates: Replicates) -> dict[str, TermAtCentre]:
    """Every term of the law at the table's centre, by the name of its coefficient."""
    law, surface, found = solution.law, solution.surface, {}
    for place, term in enumerate(law.terms):
        centre, coefficient = surface.centres[place], surface.index(term.coefficient)
        exponent = surface.index(term.exponent)
        value = solution.optimum[term.coefficient] * np.exp(
            -solution.optimum[term.exponent] * centre
        )
        draws = replicates.outer[:, coefficient] * np.exp(-replicates.outer[:, exponent] * centre)
        found[term.coefficient] = TermAtCentre(
            value=float(value),
            interval=replicates.interval(float(value), draws, positive=True),
            where=f"a size of {np.exp(centre):.3g}",
        )
    return found


def _is_positive(law: Law, name: str) -> bool:
    return name in law.linear


def _parameter_intervals(
    solution: Solution, replicates: Replicates
) -> dict[str, tuple[float, float] | None]:
    law = solution.law
    return {
        name: replicates.interval(
            solution.optimum[name],
            replicates.outer[:, place],
            positive=_is_positive(law, name),
        )
        for place, name in enumerate(law.parameters)
        if name not in solution.surface.fixed
    }


def _linear_half_widths(
    solution: Solution, found: Identifiability, noise: Noise
) -> dict[str, float]:
    """1.96 linearised standard errors of the nonlinear parameters at the residual noise."""
    scale = noise.residual_std if solution.estimator.on_logs else noise.residual_nats
    errors = 1.96 * scale * found.unit_errors
    names = solution.law.parameters
    return {
        name: float(errors[names.index(name)])
        for name in solution.law.nonlinear
        if np.isfinite(errors[names.index(name)])
    }
