"""How fast is a fit, with the customary way as the other side of the same run?

    python -m experiments.benchmarks.laws.fit_speed [--reference DIR] [--starts 4500] [--json]

One side: the published procedure, 4,500 starts of L-BFGS-B with analytic gradients on the 240
Chinchilla rows (Huber 1e-3 on log losses), and one L-BFGS-B per bootstrap resample, on a sample of
resamples. The other: `analysis`. One thread; CPU seconds, the median of several runs for ours.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import optimize

from analysis.gauntlet.published_cases import chinchilla_points, published_resamples
from analysis.laws.law import FloatArray
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.objective.newton import Batch
from analysis.points.checked_points import Points
from analysis.solve.resampling import refit
from analysis.solve.solving import solve
from experiments.benchmarks.laws.one_thread import start_again_on_one_thread
from experiments.command import parse_options, print_json, talk
from experiments.verbs.fit import default_reference

DELTA = 1e-3
RESAMPLES_OF_THE_OTHER = 100
"""Resamples that the other side refits one by one; its time is scaled up to 4,000."""


@dataclass(frozen=True)
class SpeedOptions:
    """Time a point fit and a bootstrap against the customary procedure."""

    reference: Path = field(default_factory=default_reference)
    """Folder of the reference data."""
    starts: int = 4500
    """Starts of the other side's grid; fewer are taken evenly from it."""
    resamples: int = 4000
    """Resamples of our side."""
    json: bool = False
    """Print one JSON document."""


@dataclass(frozen=True)
class Huber:
    """The customary objective: a, b, e, alpha, beta; log-sum-exp; sum over rows."""

    log_params: FloatArray
    log_tokens: FloatArray
    log_losses: FloatArray
    weights: FloatArray

    def value_and_gradient(self, p: FloatArray) -> tuple[float, FloatArray]:
        """Objective and its analytic gradient (5,)."""
        a, b, e, alpha, beta = p
        terms = np.stack(
            [a - alpha * self.log_params, b - beta * self.log_tokens, np.full_like(self.weights, e)]
        )
        top = terms.max(0)
        parts = np.exp(terms - top)
        total = parts.sum(0)
        residual = top + np.log(total) - self.log_losses
        slope = np.clip(residual, -DELTA, DELTA)
        value = float(
            (self.weights * np.abs(slope) * (np.abs(residual) - 0.5 * np.abs(slope))).sum()
        )
        pull = parts / total * (self.weights * slope)
        by_size, by_tokens, floor = pull
        gradient = np.array(
            [
                by_size.sum(),
                by_tokens.sum(),
                floor.sum(),
                -(by_size * self.log_params).sum(),
                -(by_tokens * self.log_tokens).sum(),
            ]
        )
        return value, gradient


def published_grid(num: int) -> FloatArray:
    """Starts (num, 5) of the grid of arXiv 2203.15556, appendix D.3, evenly thinned."""
    axes = (
        [0.0, 5.0, 10.0, 15.0, 20.0, 25.0],
        [0.0, 5.0, 10.0, 15.0, 20.0, 25.0],
        [-1.0, -0.5, 0.0, 0.5, 1.0],
        [0.0, 0.5, 1.0, 1.5, 2.0],
        [0.0, 0.5, 1.0, 1.5, 2.0],
    )
    grid = np.array(list(itertools.product(*axes)))
    return np.asarray(grid[np.linspace(0, len(grid) - 1, num).astype(int)])


def published_order(outer: FloatArray) -> FloatArray:
    """Our parameters (E, A, B, alpha, beta) as theirs (a, b, e, alpha, beta)."""
    floor, by_size, by_tokens, alpha, beta = outer
    return np.array([np.log(by_size), np.log(by_tokens), np.log(floor), alpha, beta])


def cpu_seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of one call, and what it returned."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def objective_of(points: Points, weights: FloatArray) -> Huber:
    """The customary objective on these points."""
    return Huber(
        np.log(points.columns["params"]),
        np.log(points.columns["tokens"]),
        np.log(points.losses),
        weights,
    )


def run_lbfgs(objective: Huber, starts: FloatArray) -> list[Any]:
    """One L-BFGS-B with scipy's default tolerances per start."""
    return [
        optimize.minimize(objective.value_and_gradient, start, jac=True, method="L-BFGS-B")
        for start in starts
    ]


def measure(options: SpeedOptions) -> dict[str, Any]:
    """Both sides, in CPU seconds."""
    points = chinchilla_points(options.reference)
    estimator = Estimator(delta=DELTA)
    law = law_named("chinchilla")
    ours = [cpu_seconds(lambda: solve(points, law, estimator)) for _ in range(7)]
    seconds = statistics.median(each[0] for each in ours)
    solution = ours[0][1]
    talk(f"ours: {seconds:.3f} s; now {options.starts} L-BFGS-B starts")
    plain = objective_of(points, np.ones(points.num_rows))
    theirs, found = cpu_seconds(lambda: run_lbfgs(plain, published_grid(options.starts)))
    values = np.array([each.fun for each in found])
    talk(f"grid: {theirs:.1f} s; now the resamples")
    weights = published_resamples(points, options.resamples)
    base = points.batch(on_logs=True)
    batch = Batch(base.losses, weights, base.scale)
    boot, replicates = cpu_seconds(
        lambda: refit(solution.surface, solution.inner, batch, estimator, kind="pairs")
    )
    warm = found[int(values.argmin())].x
    few = weights[:RESAMPLES_OF_THE_OTHER]
    objectives = [objective_of(points, row) for row in few]
    one_by_one, singles = cpu_seconds(lambda: [run_lbfgs(o, warm[None])[0].fun for o in objectives])
    best = [
        objective.value_and_gradient(published_order(row))[0]
        for objective, row in zip(objectives, replicates.outer, strict=False)
    ]
    reached = int((np.array(singles) <= np.array(best) * (1 + 1e-6)).sum())
    scaled = one_by_one * options.resamples / len(few)
    return {
        "num_rows": points.num_rows,
        "point_fit": {
            "ours_seconds": seconds,
            "grid_seconds": theirs,
            "grid_starts": options.starts,
            "ratio": theirs / seconds,
            "ours_objective": solution.objective,
            "grid_objective": float(values.min()),
            "grid_reported_success": int(sum(each.success for each in found)),
            "grid_within_one_percent": int((values <= 1.01 * solution.objective).sum()),
            "grid_at_optimum": int((values <= solution.objective * (1 + 1e-6)).sum()),
        },
        "bootstrap": {
            "resamples": options.resamples,
            "ours_seconds": boot,
            "share_converged": replicates.share_converged,
            "one_by_one_seconds_scaled": scaled,
            "one_by_one_measured": len(few),
            "one_by_one_at_optimum": reached,
            "ratio": scaled / boot,
        },
    }


def main(argv: list[str]) -> int:
    """Measure, print, and return 1 where a target is missed."""
    options = parse_options(SpeedOptions, argv, verb="benchmark fit_speed")
    if not (options.reference / "chinchilla").is_dir():
        talk(f"skipped: the reference data is absent from {options.reference}")
        return 0
    found = measure(options)
    fit, boot = found["point_fit"], found["bootstrap"]
    met = (
        fit["ours_seconds"] < 0.5
        and fit["ratio"] >= 50.0
        and fit["ours_objective"] <= fit["grid_objective"] * (1 + 1e-9)
        and boot["ours_seconds"] < 5.0
    )
    if options.json:
        print_json(found | {"targets_met": met})
        return 0 if met else 1
    print(
        f"point fit, n = {found['num_rows']}: ours {fit['ours_seconds']:.3f} s, objective "
        f"{fit['ours_objective']:.13g}\n  {fit['grid_starts']} L-BFGS-B starts "
        f"{fit['grid_seconds']:.1f} s, objective {fit['grid_objective']:.13g}: "
        f"{fit['grid_reported_success']} report success, {fit['grid_within_one_percent']} are "
        f"within 1 %, {fit['grid_at_optimum']} within 1e-6\n  ratio {fit['ratio']:.0f} x\n"
        f"{boot['resamples']} resamples: ours {boot['ours_seconds']:.2f} s "
        f"({100 * boot['share_converged']:.1f} % converged); one L-BFGS-B each "
        f"{boot['one_by_one_seconds_scaled']:.1f} s (from {boot['one_by_one_measured']}, of which "
        f"{boot['one_by_one_at_optimum']} end within 1e-6 of ours); ratio {boot['ratio']:.0f} x\n"
        f"targets met: {met}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    start_again_on_one_thread("experiments.benchmarks.laws.fit_speed", sys.argv[1:])
    sys.exit(main(sys.argv[1:]))
