"""What do intervals cover, and how wide are they, where runs share noise? Beside the ideal.

    python -m experiments.benchmarks.laws.noise_coverage [--sweeps 300] [--resamples 199]
        [--law compute-capacity] [--budgets 6] [--shared 0.5] [--seeds 2] [--out FILE]

Simulated iso-FLOP sweeps of a known law, sizes from 1/4 to 4 x the best of each budget; a share of
the variance is common to the runs of one budget and data seed. The ideal half-width is 1.96
standard deviations of the estimates over the sweeps; widths are medians over it. A nominal 95 %
interval is good between 92 and 98 %; 300 sweeps measure that to +-2.5 % (two standard errors).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from analysis.laws.derived_quantities import derived_quantities
from analysis.laws.law import FloatArray
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.objective.newton import minimise
from analysis.points.checked_points import Points
from analysis.solve.resampling import Resample, resample
from experiments.benchmarks.laws.one_thread import start_again_on_one_thread
from experiments.command import parse_options, print_json, talk

LawName = Literal["chinchilla", "loop-power", "compute-capacity"]

TRUTH = {
    "E": 1.82,
    "A": 482.0,
    "B": 2085.0,
    "alpha": 0.348,
    "beta": 0.366,
    "phi": 0.45,
    "omega": 0.6,
}
"""Near the replication of Chinchilla's law, with loops and a wide path."""
NOISE = 0.003
"""Standard deviation of the log loss."""
SEED = 11
FIRST_BUDGET, LAST_BUDGET = 1e18, 3e20
KINDS: tuple[Resample, ...] = ("components", "jackknife")
BUDGETS = (4, 5, 6, 8)
SHARES = (0.0, 0.25, 0.5, 0.9)
ARCHITECTURES = {
    "chinchilla": ((1, 0.0),),
    "loop-power": ((1, 0.0), (2, 0.0), (4, 0.0)),
    "compute-capacity": ((1, 0.0), (2, 0.0), (4, 0.0), (1, 0.5), (2, 0.5)),
}
"""Loops K, and share of the layers' parameters on the wide path."""


@dataclass(frozen=True)
class NoiseCoverageOptions:
    """Measure coverage and width of intervals over simulated sweeps."""

    sweeps: int = 300
    """Simulated sweeps per cell."""
    resamples: int = 199
    """Draws of the kinds that draw."""
    law: LawName | None = None
    """Only this law."""
    budgets: int | None = None
    """Only this many budgets."""
    shared: float | None = None
    """Only this share of the variance."""
    seeds: int = 1
    """Data seeds per budget; runs of one share noise."""
    out: Path | None = None
    """Also write the JSON document here."""
    json: bool = False
    """Print one JSON document."""


def design(law_name: str, num_budgets: int, num_seeds: int, *, off_centre: float = 1.0) -> Points:
    """Noise-free points: seven sizes around the best (times ``off_centre``) of every budget and
    architecture."""
    rows: list[tuple[float, ...]] = []
    for budget, flops in enumerate(np.geomspace(FIRST_BUDGET, LAST_BUDGET, num_budgets)):
        for loops, wide in ARCHITECTURES[law_name]:
            best = _best_params(flops, loops, wide)
            for place, factor in enumerate(off_centre * np.geomspace(0.25, 4.0, 7)):
                params = best * factor
                tokens = flops / (6 * params * (0.1 + 0.9 * ((1 - wide) * loops + wide)))
                rows.append((budget, place % num_seeds, loops, wide, params, tokens, flops))
    budgets, seeds, num_loops, wides, sizes, num_tokens, budget_flops = np.array(rows).T
    columns = {
        "params": sizes,
        "params_once": 0.1 * sizes,
        "params_deep": 0.9 * sizes * (1 - wides),
        "params_wide": 0.9 * sizes * wides,
        "num_loops": num_loops,
        "tokens": num_tokens,
        "flops": budget_flops,
    }
    return Points(
        columns=columns,
        losses=np.asarray(law_named(law_name).loss(columns, TRUTH)),
        weights=np.ones_like(sizes),
        loss_std=None,
        budgets=budgets.astype(np.int64),
        budget_source="the design",
        clusters={"data_seed": seeds.astype(np.int64)} if num_seeds > 1 else {},
        row_numbers=np.arange(1, len(sizes) + 1, dtype=np.int64),
        num_table_rows=len(sizes),
    )


def _best_params(flops: float, loops: int, wide: float) -> float:
    """The best size of a grid, by the law across arms."""
    params = np.geomspace(1e6, 1e12, 2000)
    cost = 0.1 + 0.9 * ((1 - wide) * loops + wide)
    columns = {
        "params_once": 0.1 * params,
        "params_deep": 0.9 * params * (1 - wide),
        "params_wide": 0.9 * params * wide,
        "num_loops": np.full_like(params, loops),
        "tokens": flops / (6 * params * cost),
    }
    losses = law_named("compute-capacity").loss(columns, TRUTH)
    return float(params[np.argmin(losses)])


def noise(points: Points, shared: float, generator: np.random.Generator) -> FloatArray:
    """Noise of the log losses (n,), ``shared`` of its variance common to the runs of a group."""
    (labels,) = points.shared_noise.values()
    common = generator.normal(size=int(labels.max()) + 1)[labels]
    own = generator.normal(size=points.num_rows)
    return np.asarray(NOISE * (np.sqrt(shared) * common + np.sqrt(1.0 - shared) * own))


def measured(law_name: str, outer: FloatArray, flops: float) -> dict[str, FloatArray]:
    """Exponents and shapes, and a, and the loss at ``flops`` where the law has one, for (R, P)."""
    law = law_named(law_name)
    values = {name: outer[:, place] for place, name in enumerate(law.parameters)}
    derived = derived_quantities(law, values, at_flops=(flops,), at_losses=())
    wanted = {q.name: np.asarray(q.values) for q in derived if q.name in ("a", "loss")}
    return {name: values[name] for name in law.nonlinear} | wanted


def measure(law_name: str, num_budgets: int, shared: float, options: Any) -> list[dict[str, Any]]:
    """One cell: per kind, coverage and median half-width over the ideal, by quantity."""
    points, law = design(law_name, num_budgets, options.seeds), law_named(law_name)
    generator, estimator = np.random.default_rng(SEED), Estimator()
    truth = np.array([[TRUTH[name] for name in law.parameters]])
    target = 10.0 * LAST_BUDGET
    true = measured(law_name, truth, target)
    estimates: dict[str, list[float]] = {name: [] for name in true}
    ends: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for sweep in range(options.sweeps):
        losses = points.losses * np.exp(noise(points, shared, generator))
        noisy = replace(points, losses=losses)
        surface = noisy.surface(law)
        inner = minimise(surface, surface.inner(truth), noisy.batch(on_logs=True), estimator).inner[
            0
        ]
        here = measured(law_name, surface.outer(inner)[None], target)
        for name, values in here.items():
            estimates[name].append(float(values[0]))
        for kind in KINDS:
            found = resample(
                noisy, surface, inner, estimator, kind=kind, num=options.resamples, seed=sweep
            )
            draws = measured(law_name, found.outer, target)
            for name, values in here.items():
                pair = found.interval(float(values[0]), draws[name], positive=name == "loss")
                ends.setdefault((kind, name), []).append(pair or (np.nan, np.nan))
    return [
        {
            "law": law_name,
            "budgets": num_budgets,
            "shared": shared,
            "seeds": options.seeds,
            "kind": kind,
            **_summary(true, estimates, {n: e for (k, n), e in ends.items() if k == kind}),
        }
        for kind in KINDS
    ]


def _summary(
    true: Mapping[str, FloatArray],
    estimates: Mapping[str, list[float]],
    ends: Mapping[str, list[tuple[float, float]]],
) -> dict[str, dict[str, float]]:
    coverage, widths = {}, {}
    for name, pairs in ends.items():
        low, high = np.array(pairs).T
        coverage[name] = 100.0 * float(np.mean((low <= true[name][0]) & (true[name][0] <= high)))
        ideal = 1.96 * float(np.std(estimates[name]))
        widths[name] = float(np.nanmedian(0.5 * (high - low))) / ideal
    return {"coverage_percent": coverage, "width_over_ideal": widths}


def table(rows: list[dict[str, Any]]) -> str:
    """One line per cell and kind: coverage in percent, and the width over the ideal."""
    lines = []
    for row in rows:
        cells = "  ".join(
            f"{name} {row['coverage_percent'][name]:5.1f} ({row['width_over_ideal'][name]:.2f})"
            for name in row["coverage_percent"]
        )
        head = f"{row['law']:<16} {row['budgets']} budgets, {row['seeds']} seeds, shared "
        lines.append(f"{head}{row['shared']:<4g} {row['kind']:<10} {cells}")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Measure all cells and print the table."""
    options = parse_options(NoiseCoverageOptions, argv, verb="benchmark noise_coverage")
    laws = (options.law,) if options.law else tuple(ARCHITECTURES)
    rows: list[dict[str, Any]] = []
    for law_name in laws:
        for num_budgets in (options.budgets,) if options.budgets else BUDGETS:
            for shared in SHARES if options.shared is None else (options.shared,):
                rows += measure(law_name, num_budgets, shared, options)
                talk(table(rows[-len(KINDS) :]))
    if options.out is not None:
        options.out.write_text(json.dumps({"truth": TRUTH, "noise": NOISE, "rows": rows}, indent=1))
    if options.json:
        print_json({"rows": rows})
    else:
        print(table(rows))
    return 0


if __name__ == "__main__":
    start_again_on_one_thread("experiments.benchmarks.laws.noise_coverage", sys.argv[1:])
    sys.exit(main(sys.argv[1:]))
