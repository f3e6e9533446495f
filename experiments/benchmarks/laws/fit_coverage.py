"""Which intervals hold what they promise? Simulated sweeps of a known law, per kind and design.

    python -m experiments.benchmarks.laws.fit_coverage [--sweeps 1000] [--resamples 399]
        [--out FILE]

Every cell is a design (6 budgets x 7 sizes, or 240 scattered points in 24 campaigns of 10) and a
noise (independent rows, or half of the variance shared within a budget or campaign). Truth and
seeds stand in this file. A nominal 95 % interval is good where 92 to 98 % of the sweeps have the
truth inside; with 1,000 sweeps the measurement itself is good to +-1.4 % (two standard errors).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from analysis.laws.derived_quantities import derived_quantities, optimal_params
from analysis.laws.law import FloatArray
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.objective.newton import minimise
from analysis.points.checked_points import Points
from analysis.solve.resampling import Resample, resample
from experiments.benchmarks.laws.one_thread import start_again_on_one_thread
from experiments.command import parse_options, print_json, talk

Design = Literal["grid", "scattered"]
Dependence = Literal["independent", "clustered"]

TRUTH = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
"""Near the replication of Chinchilla's law."""
NOISE = 0.005
"""Standard deviation of the log loss; the 240 Chinchilla rows have 0.005 robustly."""
SHARED = 0.5
"""Share of the variance that a budget's rows have in common, where noise is clustered."""
DESIGN_SEED = 20261123
NOISE_SEED = 7
TARGET_FACTOR = 10.0
"""Derived quantities are taken at ten times the largest FLOPs of a design."""
KINDS: tuple[Resample, ...] = (
    "components",
    "jackknife",
    "clusters",
    "wild",
    "pairs",
    "residual",
    "hessian",
)
POSITIVE = ("E", "A", "B", "n_star", "loss")


@dataclass(frozen=True)
class CoverageOptions:
    """Measure the coverage of every kind of interval."""

    sweeps: int = 1000
    """Simulated sweeps per design and noise."""
    resamples: int = 399
    """Resamples of the kinds that draw."""
    design: Design | None = None
    """Only this design."""
    dependence: Dependence | None = None
    """Only this noise."""
    estimator: Literal["huber", "lad", "log-mse", "mse"] = "huber"
    """Estimator of every fit."""
    out: Path | None = None
    """Also write the JSON document here."""
    json: bool = False
    """Print one JSON document."""


def design_points(design: Design) -> Points:
    """A design without noise: 6 budgets of 7 sizes around the optimum, or 240 scattered points."""
    if design == "grid":
        flops = np.repeat(np.geomspace(1e18, 3e20, 6), 7)
        params = optimal_params(TRUTH, flops) * np.tile(np.geomspace(1 / 6, 6, 7), 6)
        budgets = np.repeat(np.arange(6), 7)
    else:
        generator = np.random.default_rng(DESIGN_SEED)
        flops = np.sort(10.0 ** generator.uniform(18.0, 22.0, 240))
        params = np.sqrt(flops / (6.0 * 10.0 ** generator.uniform(0.5, 2.2, 240)))
        budgets = np.repeat(np.arange(24), 10)
    columns = {"params": params, "tokens": flops / (6.0 * params), "flops": flops}
    law = law_named("chinchilla")
    return Points(
        columns=columns,
        losses=np.asarray(law.loss(columns, TRUTH)),
        weights=np.ones_like(flops),
        loss_std=None,
        budgets=budgets.astype(np.int64),
        budget_source="the design",
        row_numbers=np.arange(1, len(flops) + 1, dtype=np.int64),
        num_table_rows=len(flops),
    )


def noise_of(points: Points, dependence: Dependence, generator: np.random.Generator) -> FloatArray:
    """Noise of the log losses, (n,)."""
    labels: NDArray[np.int64] | None = points.budgets
    assert labels is not None
    own = generator.normal(size=points.num_rows)
    if dependence == "independent":
        return NOISE * own
    shared = generator.normal(size=points.num_budgets)[labels]
    return np.asarray(NOISE * (np.sqrt(SHARED) * shared + np.sqrt(1.0 - SHARED) * own))


def quantities(outer: FloatArray, flops: float) -> dict[str, FloatArray]:
    """Parameters, the exponent a, and N* and loss at ``flops``, for vectors (R, P)."""
    names = law_named("chinchilla").parameters
    values = {name: outer[:, place] for place, name in enumerate(names)}
    derived = derived_quantities(law_named("chinchilla"), values, at_flops=(flops,))
    wanted = ("a", "n_star", "loss")
    return values | {q.name: np.asarray(q.values) for q in derived if q.name in wanted}


def sweep_hits(
    points: Points, losses: FloatArray, estimator: Estimator, resamples: int, seed: int
) -> Iterator[tuple[str, dict[str, tuple[bool, float]]]]:
    """Per kind and quantity: truth inside or not, and the width (in logs if positive)."""
    noisy = Points(**{**vars(points), "losses": losses})
    surface = noisy.surface(law_named("chinchilla"))
    start = surface.inner(np.array([[TRUTH[name] for name in surface.law.parameters]]))
    inner = minimise(surface, start, noisy.batch(on_logs=estimator.on_logs), estimator).inner[0]
    flops = TARGET_FACTOR * float(points.columns["flops"].max())
    truth = quantities(np.array([[TRUTH[name] for name in surface.law.parameters]]), flops)
    here = quantities(surface.outer(inner)[None], flops)
    for kind in KINDS:
        found = resample(noisy, surface, inner, estimator, kind=kind, num=resamples, seed=seed)
        draws = quantities(found.outer, flops)
        hits = {}
        for name, value in truth.items():
            positive = name in POSITIVE
            ends = found.interval(float(here[name][0]), draws[name], positive=positive)
            low, high = ends or (np.nan, np.nan)
            width = np.log(high / low) if positive else high - low
            hits[name] = (bool(low <= value[0] <= high), float(width))
        yield kind, hits


def measure_cell(
    design: Design, dependence: Dependence, options: CoverageOptions
) -> list[dict[str, Any]]:
    """Coverage (percent) and median width per kind and quantity in one cell."""
    points = design_points(design)
    generator = np.random.default_rng(NOISE_SEED)
    estimator = Estimator(name=options.estimator)
    inside: dict[tuple[str, str], list[bool]] = {}
    widths: dict[tuple[str, str], list[float]] = {}
    began = time.perf_counter()
    for sweep in range(options.sweeps):
        losses = points.losses * np.exp(noise_of(points, dependence, generator))
        for kind, hits in sweep_hits(points, losses, estimator, options.resamples, sweep):
            for name, (hit, width) in hits.items():
                inside.setdefault((kind, name), []).append(hit)
                widths.setdefault((kind, name), []).append(width)
        if (sweep + 1) % 100 == 0:
            talk(f"{design}, {dependence}: {sweep + 1} sweeps, {time.perf_counter() - began:.0f} s")
    return [
        {
            "design": design,
            "noise": dependence,
            "kind": kind,
            "coverage_percent": {
                name: 100.0 * float(np.mean(hits))
                for (other, name), hits in inside.items()
                if other == kind
            },
            "median_width": {
                name: float(np.nanmedian(found))
                for (other, name), found in widths.items()
                if other == kind
            },
        }
        for kind in KINDS
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """Coverage in percent, one line per design, noise and kind."""
    names = list(rows[0]["coverage_percent"])
    lines = [f"{'design':<10} {'noise':<12} {'kind':<10} " + " ".join(f"{n:>7}" for n in names)]
    for row in rows:
        cells = " ".join(f"{row['coverage_percent'][n]:7.1f}" for n in names)
        lines.append(f"{row['design']:<10} {row['noise']:<12} {row['kind']:<10} {cells}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Measure all cells and print the table."""
    options = parse_options(CoverageOptions, argv, verb="benchmark fit_coverage")
    designs = (options.design,) if options.design else get_args(Design)
    noises = (options.dependence,) if options.dependence else get_args(Dependence)
    rows = [row for d in designs for n in noises for row in measure_cell(d, n, options)]
    document = {
        "truth": TRUTH,
        "noise": NOISE,
        "shared": SHARED,
        "seeds": {"design": DESIGN_SEED, "noise": NOISE_SEED},
        "sweeps": options.sweeps,
        "resamples": options.resamples,
        "estimator": options.estimator,
        "rows": rows,
    }
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=1))
    if options.json:
        print_json(document)
    else:
        print(table(rows))
    return 0


if __name__ == "__main__":
    start_again_on_one_thread("experiments.benchmarks.laws.fit_coverage", sys.argv[1:])
    sys.exit(main(sys.argv[1:]))
