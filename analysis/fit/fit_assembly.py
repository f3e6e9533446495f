"""How do a solution, its resamples and the findings become one `Fit` value?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fit.fit_result import WIDEST_PREDICTION, Derived, Fit, Starts
from analysis.judge.fit_certificate import Certificate, Reason
from analysis.judge.fit_checks import TermAtCentre, at_optimum
from analysis.judge.identifiability import Identifiability
from analysis.judge.lack_of_fit import Noise
from analysis.laws.derived_quantities import FLOPS_CONVENTION, Quantity, derived_quantities
from analysis.laws.law import Law
from analysis.objective.estimators import Estimator
from analysis.points.checked_points import Points
from analysis.solve.resampling import Replicates
from analysis.solve.solving import Solution


@dataclass(frozen=True)
class Judged:
    """A solution with its resamples and everything that was found about it."""

    solution: Solution
    asked: Solution
    """The solution of the law that was asked for; differs where a frontier was collapsed."""
    replicates: Replicates
    found: Identifiability
    noise: Noise
    intervals: dict[str, tuple[float, float] | None]
    reasons: list[Reason]
    terms: dict[str, TermAtCentre]
    """Terms at the centre of the table, by their coefficients."""
    beside: dict[str, tuple[float, float] | None]
    """The jackknife's intervals beside those of noise components; empty where there are none."""


def default_flops(points: Points) -> tuple[float, ...]:
    """The largest FLOPs of the table and ten times that."""
    if points.flops is None:
        return ()
    largest = float(points.flops.max())
    return (largest, 10.0 * largest)


def assemble(
    judged: Judged, at_flops: Sequence[float], at_losses: Sequence[float], began: float
) -> Fit:
    solution, asked = judged.solution, judged.asked
    there = at_optimum(asked.optima, asked.best)
    inner = asked.optima.inner[there]
    certificate = Certificate(
        reasons=tuple(judged.reasons),
        parameters=asked.law.parameters,
        assumes=judged.replicates.assumes,
        measures={
            "condition": judged.found.condition,
            "scaled_gradient": float(solution.optima.scaled_gradient[solution.best]),
            **judged.noise.to_dict(),
        },
    )
    starts = Starts(
        number=len(there),
        at_optimum=float(there.mean()),
        spread=float((np.ptp(inner, axis=0) / np.maximum(np.abs(inner[0]), 1e-9)).max()),
    )
    return Fit(
        law=asked.law,
        solved_law=solution.law,
        estimator=asked.estimator,
        points=asked.points,
        optimum=solution.optimum,
        intervals=judged.intervals,
        objective=asked.objective,
        starts=starts,
        replicates=judged.replicates,
        noise=judged.noise,
        derived=_derive(judged, certificate, at_flops, at_losses),
        certificate=certificate,
        terms=judged.terms,
        jackknife=judged.beside,
        fixed=dict(asked.surface.fixed),
        seconds=time.perf_counter() - began,
    )


def _derive(
    judged: Judged,
    certificate: Certificate,
    at_flops: Sequence[float],
    at_losses: Sequence[float],
) -> tuple[Derived, ...]:
    """Derived quantities with intervals, None where a parameter that they need is refused."""
    law, replicates = judged.solution.law, judged.replicates
    point = {name: np.array([value]) for name, value in judged.solution.optimum.items()}
    draws = {name: replicates.outer[:, place] for place, name in enumerate(law.parameters)}
    here = derived_quantities(law, point, at_flops=at_flops, at_losses=at_losses)
    spread = derived_quantities(law, draws, at_flops=at_flops, at_losses=at_losses)
    return tuple(
        _with_interval(one, many, judged, certificate)
        for one, many in zip(here, spread, strict=True)
    )


def _with_interval(
    one: Quantity, many: Quantity, judged: Judged, certificate: Certificate
) -> Derived:
    value = float(one.values[0])
    placed = one.at_flops is not None or one.at_loss is not None
    interval = judged.replicates.interval(value, np.asarray(many.values), positive=one.positive)
    if placed and one.name == "loss":
        given = not certificate.refuses(one.name) and _is_told(one, many, judged)
    else:
        given = not certificate.refuses(*one.needs, *((one.name,) if placed else ()))
    given = given and bool(np.isfinite(value))
    interval = interval if given else None
    flops = judged.asked.points.flops
    asked = one.at_flops if one.at_loss is None or one.name != "flops" else value
    distance = None
    if asked is not None and np.isfinite(asked) and flops is not None:
        distance = max(1.0, asked / float(flops.max()), float(flops.min()) / asked)
    return Derived(
        name=one.name,
        value=value if given else None,
        interval=interval,
        at_flops=one.at_flops,
        at_loss=one.at_loss,
        outside_data_factor=distance,
        convention=FLOPS_CONVENTION if one.at_flops or one.at_loss else None,
    )


def _is_told(one: Quantity, many: Quantity, judged: Judged) -> bool:
    """Whether a loss is predicted well enough: by the interval of a new run, not by whether each
    parameter is known by itself."""
    noise = judged.noise.residual_std
    value, draws = float(one.values[0]), np.asarray(many.values)
    found = judged.replicates.interval(value, draws, positive=True, noise=noise)
    return found is not None and found[1] - found[0] <= 2 * WIDEST_PREDICTION * value


def refused_fit(
    law: Law, estimator: Estimator, points: Points, reasons: list[Reason], seconds: float
) -> Fit:
    """The fit that did not take place."""
    certificate = Certificate(
        reasons=tuple(reasons), parameters=law.parameters, assumes="nothing", measures={}
    )
    return Fit(
        law=law,
        solved_law=law,
        estimator=estimator,
        points=points,
        optimum={},
        intervals={},
        objective=None,
        starts=Starts(number=0, at_optimum=None, spread=None),
        replicates=None,
        noise=None,
        derived=(),
        certificate=certificate,
        seconds=seconds,
    )
