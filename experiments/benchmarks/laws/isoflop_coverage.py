"""What does the interval of the iso-FLOP exponent cover, and how wide is it? Pooled, and by minima.

    python -m experiments.benchmarks.laws.isoflop_coverage [--sweeps 400] [--off-centre 1.6]

The sweeps of `noise_coverage`: sizes from 1/4 to 4 x the best of every budget (all times
``off-centre``), a share of the variance common to a budget. Coverage is of the nominal 95 %
interval, widths are medians over the ideal of the pooled estimates, bias is of the mean estimate.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.isoflop.isoflop_fit import IsoflopMethod, size_line_of
from experiments.benchmarks.laws.noise_coverage import (
    BUDGETS,
    SEED,
    SHARES,
    TRUTH,
    design,
    noise,
)
from experiments.benchmarks.laws.one_thread import start_again_on_one_thread
from experiments.command import parse_options, print_json, talk

METHODS: tuple[IsoflopMethod, ...] = ("pooled", "parabola")
TRUE_A = TRUTH["beta"] / (TRUTH["alpha"] + TRUTH["beta"])


@dataclass(frozen=True)
class IsoflopCoverageOptions:
    """Measure coverage and width of the exponent of N* over simulated sweeps."""

    sweeps: int = 400
    """Simulated sweeps per cell."""
    off_centre: float = 1.0
    """Sizes are this times those around the best."""
    json: bool = False
    """Print one JSON document."""


def measure(num_budgets: int, shared: float, options: IsoflopCoverageOptions) -> dict[str, Any]:
    """One cell: per method, coverage in percent, width over the ideal, bias and refusals."""
    points = design("chinchilla", num_budgets, 1, off_centre=options.off_centre)
    generator = np.random.default_rng(SEED)
    found: dict[str, list[tuple[float, float, float]]] = {method: [] for method in METHODS}
    for _ in range(options.sweeps):
        noisy = replace(points, losses=points.losses * np.exp(noise(points, shared, generator)))
        for method in METHODS:
            line = size_line_of(noisy, method)
            if line is not None:
                found[method].append((line.exponent, *line.exponent_interval))
    ideal = 1.96 * float(np.std([each[0] for each in found["pooled"]]))
    cells = {method: _cell(np.array(rows), ideal, options) for method, rows in found.items()}
    return {"budgets": num_budgets, "shared": shared, "methods": cells}


def _cell(
    rows: np.ndarray[Any, Any], ideal: float, options: IsoflopCoverageOptions
) -> dict[str, float]:
    value, low, high = rows.T
    return {
        "coverage_percent": 100.0 * float(np.mean((low <= TRUE_A) & (high >= TRUE_A))),
        "width_over_ideal": float(np.median(high - low)) / 2 / ideal,
        "bias": float(value.mean()) - TRUE_A,
        "refused_percent": 100.0 * (1 - len(rows) / options.sweeps),
    }


def line_of(cell: dict[str, Any]) -> str:
    """One line of the table."""
    parts = [
        f"{method} {each['coverage_percent']:5.1f} ({each['width_over_ideal']:.2f}) bias "
        f"{each['bias']:+.3f} refused {each['refused_percent']:.1f} %"
        for method, each in cell["methods"].items()
    ]
    return f"{cell['budgets']} budgets, shared {cell['shared']:<4g} {'   '.join(parts)}"


def main(argv: list[str]) -> int:
    """Measure all cells and print the table."""
    options = parse_options(IsoflopCoverageOptions, argv, verb="benchmark isoflop_coverage")
    cells = []
    for num_budgets in BUDGETS:
        for shared in SHARES:
            cells.append(measure(num_budgets, shared, options))
            talk(line_of(cells[-1]))
    if options.json:
        print_json({"cells": cells})
    return 0


if __name__ == "__main__":
    start_again_on_one_thread("experiments.benchmarks.laws.isoflop_coverage", sys.argv[1:])
    sys.exit(main(sys.argv[1:]))
