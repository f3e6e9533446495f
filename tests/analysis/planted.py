"""Tables whose law is known, because it was planted."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from analysis.laws.law import FloatArray
from analysis.laws.law_registry import law_named

CHINCHILLA = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
CAPACITY = {
    "E": 1.57,
    "A": 28.0,
    "B": 916.0,
    "alpha": 0.199,
    "beta": 0.369,
    "phi": 0.459,
    "omega": 0.6,
}


def with_losses(
    law: str,
    columns: Mapping[str, FloatArray],
    values: Mapping[str, float],
    noise: float,
    seed: int,
) -> pl.DataFrame:
    """A table of ``columns`` and the law's losses with log-normal noise."""
    exact = np.asarray(law_named(law).loss(columns, values))
    rough = np.random.default_rng(seed).normal(size=len(exact)) * noise
    return pl.DataFrame({**columns, "loss": exact * np.exp(rough)})


def ratio_columns(
    ratios: tuple[float, ...] = (10, 20, 40), num_sizes: int = 14
) -> dict[str, FloatArray]:
    """Sizes from 1e7 to 1e10 at several tokens per parameter."""
    params = np.repeat(np.geomspace(1e7, 1e10, num_sizes), len(ratios))
    return {"params": params, "tokens": params * np.tile(np.array(ratios, float), num_sizes)}


def chinchilla_table(noise: float = 0.003, seed: int = 0, **changes: float) -> pl.DataFrame:
    """42 rows, D/N 10, 20 and 40."""
    return with_losses("chinchilla", ratio_columns(), {**CHINCHILLA, **changes}, noise, seed)


def budget_table(noise: float = 0.003, seed: int = 0, num_sizes: int = 7) -> pl.DataFrame:
    """Six budgets with sizes around each optimum."""
    from analysis.laws.derived_quantities import optimal_params

    flops = np.repeat(np.geomspace(1e18, 3e20, 6), num_sizes)
    spread = np.tile(np.geomspace(1 / 6, 6, num_sizes), 6)
    params = np.asarray(optimal_params(CHINCHILLA, flops)) * spread
    columns = {"params": params, "tokens": flops / (6 * params), "flops": flops}
    return with_losses("chinchilla", columns, CHINCHILLA, noise, seed)


ARCHITECTURES = [(k, wide) for k in (1, 2, 4) for wide in (0.0, 0.3, 0.6, 0.85)] + [
    (1, 1.0),
    (8, 0.0),
]
"""Fourteen pairs of loops K and share of the layer parameters on the wide path."""


def capacity_columns(*, tokens_solved: bool) -> dict[str, FloatArray]:
    """Fourteen architectures at two budgets.

    Either tokens are solved at D/N 10, 20 and 40, or every budget has one number of tokens and the
    feed-forward sizes are solved.
    """
    rows = []
    for flops, one_tokens in ((1e19, 1.2e9), (1e20, 4e9)):
        for loops, wide in ARCHITECTURES:
            per_param = (1 - wide) * loops + wide
            for ratio in (10.0, 20.0, 40.0) if tokens_solved else (0.0,):
                params = (
                    np.sqrt(flops / (6 * ratio * per_param))
                    if tokens_solved
                    else flops / (6 * one_tokens * per_param)
                )
                tokens = ratio * params if tokens_solved else one_tokens
                layers = 0.98 * params
                rows.append(
                    (0.02 * params, layers * (1 - wide), layers * wide, float(loops), tokens)
                )
    names = ("params_once", "params_deep", "params_wide", "num_loops", "tokens")
    return dict(zip(names, np.array(rows).T.copy(), strict=True))


def loop_frontier(num_budgets: int = 6) -> dict[str, FloatArray]:
    """Loss-optimal sizes and tokens of looped models, K = 1, 2, 4, 8, at every budget."""
    law, rows = law_named("loop-power"), []
    deep = np.geomspace(1e6, 1e11, 100_001)
    for flops in np.geomspace(1e18, 1e21, num_budgets):
        for loops in (1.0, 2.0, 4.0, 8.0):
            once = 0.15 * deep
            columns = {
                "params_once": once,
                "params_deep": deep,
                "num_loops": np.full_like(deep, loops),
                "tokens": flops / (6 * (once + loops * deep)),
            }
            best = int(np.argmin(law.loss(columns, CAPACITY)))
            rows.append([columns[role][best] for role in law.roles])
    return dict(zip(law.roles, np.array(rows).T.copy(), strict=True))
