"""How many FLOPs does a designed sequence of runs save against a grid, at equal error of a law?

A law of the kind that a real grid of small models followed stands in for training. The grid holds
six budgets over two orders of magnitude, seven sizes from 1/4 to 4 times the best one, and K = 1,
2, 4, 8, as far as a law may use the runs. Ours begins with sizes at the two cheapest budgets and
the expected best one at the next two, then adds what tells most of phi, omega and alpha for its
cost, fitting its belief again after every run; a fifth goes where no run is. Both are fitted by the
same estimator, and their errors are against the truth.

``--misspecified`` gives the wide path's term another exponent, so that it is 10 % off the law at
the smallest and the largest model.

    python -m experiments.benchmarks.search.design_efficiency --seeds 20
    python -m experiments.benchmarks.search.design_efficiency --seeds 20 --misspecified
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.points.checked_points import Points
from analysis.solve.solving import solve
from experiments.command import print_json, talk
from search.design.information import COST_EXPONENT, Design, Noise, next_run, slope_of
from search.design.law_model import (
    FloatArray,
    LawModel,
    LawRuns,
    fitted_model,
)
from search.limits.law_rows import why_not_for_laws

BUDGETS = tuple(float(budget) for budget in np.geomspace(1e13, 1e15, 6))
SIZES = tuple(float(size) for size in np.geomspace(0.25, 4, 7))
LOOPS = (1, 2, 4, 8)
WIDE_SHARES = (0.0, 0.35, 0.7)
"""Of the layers' parameters; the grid takes them in turn along sizes and loops."""
TOKENS_PER_PARAMETER = 20.0
"""At the expected best size."""
VOCABULARY, LAYERS = 2048, 4
"""As in the real grid: they set what embedding and head cost a small model."""

TRUTH = {"E": 2.19, "alpha": 0.46, "beta": 0.139, "phi": 0.86, "omega": 2.29}
"""The standard arm of the real grid (alpha, beta, E); phi and omega of a real sweep across arms."""
PARTS = {"A": 0.45, "B": 1.0}
"""Nats of each term at `CENTRE`: 3.6 nats in all, as the real grid has them."""
CENTRE = {"log_size": float(np.log(1e6)), "log_tokens": float(np.log(2e7))}
NOISE = Noise(own=0.005, shared=0.002)
"""The real grid's: residuals .5 %, and what runs of one budget and data order share."""

WANTED = ("phi", "omega", "alpha")
CHECKPOINTS = (0.1, 0.2, 0.3333)
"""FLOPs over the grid's at which ours is fitted; the last is the bar's."""
MISFIT = 0.10
"""Of the wide path's worth, at the smallest and the largest model."""


@dataclass(frozen=True)
class Options:
    """Compare a designed sequence of runs with a grid, on a law in closed form."""

    seeds: int = 20
    """Pairs of runs."""
    cost_exponent: float = COST_EXPONENT
    """A run's worth is divided by its FLOPs to this power."""
    misspecified: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Whether the wide path's term has another exponent than the fitted law's."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document on standard output and nothing else there."""


def shape(budget: float, size: float, loops: int, wide_share: float) -> tuple[float, ...] | None:
    """A row of `LawRuns` at a multiple of the expected best size; None where no law may use it."""
    params = size * (budget / (6 * TOKENS_PER_PARAMETER)) ** 0.5
    width = (params / (12 * LAYERS)) ** 0.5
    head = VOCABULARY * width
    wide = wide_share * params
    deep = params - wide
    tokens = budget / (6 * (loops * deep + wide + head))
    if why_not_for_laws(params=params + 2 * head, tokens=tokens, epochs=None) is not None:
        return None
    return (2 * LAYERS * width, deep, wide, float(loops), tokens, budget)


def runs_of(rows: list[tuple[float, ...]]) -> LawRuns:
    """Rows of `shape` as runs of one data order."""
    once, deep, wide, loops, tokens, flops = np.array(rows).T
    return LawRuns(
        params_once=once,
        params_deep=deep,
        params_wide=wide,
        num_loops=loops,
        tokens=tokens,
        costs=flops,
        orders=tuple((float(row[5]), 0) for row in rows),
    )


def grid() -> LawRuns:
    """Every budget, size and K that a law may use; shares of the wide path in turn."""
    places = itertools.product(enumerate(BUDGETS), enumerate(SIZES), enumerate(LOOPS))
    rows = [
        shape(budget, size, loops, WIDE_SHARES[(b + s + k) % len(WIDE_SHARES)])
        for (b, budget), (s, size), (k, loops) in places
    ]
    return runs_of([row for row in rows if row is not None])


def candidates() -> LawRuns:
    """What ours chooses from: the grid's budgets, sizes and K, with every share."""
    places = itertools.product(BUDGETS, SIZES, LOOPS, WIDE_SHARES)
    rows = [shape(*place) for place in places]
    return runs_of([row for row in rows if row is not None])


def true_model() -> LawModel:
    """The truth."""
    return LawModel(**CENTRE, values={**TRUTH, **PARTS})


def _bent(runs: LawRuns) -> LawRuns:
    """The wide path's worth with another exponent: right at the middle of the grid's sizes."""
    total = runs.params_deep + runs.params_wide
    edges = [size * (budget / (6 * TOKENS_PER_PARAMETER)) ** 0.5 for budget, size in EDGES]
    low, high = (float(edge) for edge in np.log(edges))
    along = (np.log(total) - (low + high) / 2) / ((high - low) / 2)
    return replace(runs, params_wide=runs.params_wide * (1 + MISFIT) ** along)


EDGES = ((BUDGETS[0], SIZES[0]), (BUDGETS[-1], SIZES[-1]))


class Simulation:
    """One seed's noise: the run of a shape and data order has one loss, whoever asks for it."""

    def __init__(self, seed: int, *, misspecified: bool) -> None:
        self._chance = np.random.default_rng(seed)
        self._shared: dict[tuple[float, int], float] = {}
        self._misspecified = misspecified

    def loss(self, run: LawRuns) -> float:
        """Of one run, nats."""
        bent = _bent(run) if self._misspecified else run
        (order,) = run.orders
        if order not in self._shared:
            self._shared[order] = float(self._chance.normal() * NOISE.shared)
        rough = self._chance.normal() * NOISE.own + self._shared[order]
        return float(true_model().losses(bent)[0] * np.exp(rough))


def estimate(runs: LawRuns, losses: FloatArray) -> dict[str, float]:
    """The compute-capacity law by least squares of logs, as `fit` has it."""
    points = Points(
        columns={
            "params_once": runs.params_once,
            "params_deep": runs.params_deep,
            "params_wide": runs.params_wide,
            "num_loops": runs.num_loops,
            "tokens": runs.tokens,
            "flops": runs.costs,
        },
        losses=losses,
        weights=np.ones(len(runs)),
        loss_std=None,
        budgets=None,
        budget_source=None,
        row_numbers=np.arange(1, len(runs) + 1),
        num_table_rows=len(runs),
        own_count=True,
    )
    found = solve(points, law_named("compute-capacity"), Estimator(name="log-mse"))
    return {name: found.optimum[name] for name in WANTED}


def first_runs(offered: LawRuns) -> list[int]:
    """Where ours begins: sizes at the two cheapest budgets, loops and shares in turn, and the
    expected best one at the next two."""
    chosen = []
    for turn, size in enumerate((1.0, 4.0, 0.25, 2.0, 0.5, 1.0, 2.0, 0.5)):
        chosen.append(_nearest(offered, BUDGETS[turn % 2], size, turn))
    return [*chosen, *(_nearest(offered, budget, 1.0, 0) for budget in BUDGETS[2:4])]


def _nearest(offered: LawRuns, budget: float, size: float, turn: int) -> int:
    params = size * (budget / (6 * TOKENS_PER_PARAMETER)) ** 0.5
    far = np.abs(np.log((offered.params_deep + offered.params_wide) / params))
    far = far + 10 * (offered.costs != budget)
    far = far + 0.01 * (offered.num_loops != LOOPS[turn % len(LOOPS)])
    share = offered.params_wide / (offered.params_deep + offered.params_wide)
    return int((far + 0.01 * np.abs(share - WIDE_SHARES[turn % len(WIDE_SHARES)])).argmin())


def designed(
    simulation: Simulation, stops: list[float], *, cost_exponent: float
) -> list[tuple[LawRuns, FloatArray]]:
    """Rows of ours at every number of FLOPs, one run after another."""
    offered = candidates()
    runs = offered.taken(first_runs(offered))
    losses = [simulation.loss(runs.taken([place])) for place in range(len(runs))]
    times = np.zeros(len(offered), dtype=int)
    model: LawModel | None = None
    found: list[tuple[LawRuns, FloatArray]] = []
    while len(found) < len(stops):
        model = fitted_model(runs, np.array(losses), noise=NOISE.own, start=model)
        left = stops[-1] - runs.costs.sum()
        paid = [place for place in range(len(offered)) if offered.costs[place] <= left]
        some = _in_new_orders(offered, times).taken(paid)
        place = _next(runs, some, model, cost_exponent) if paid else None
        after = runs if place is None else runs.joined(some.taken([place]))
        while len(found) < len(stops) and (place is None or after.costs.sum() > stops[len(found)]):
            found.append((runs, np.array(losses)))
        if place is not None:
            times[paid[place]] += 1
            losses.append(simulation.loss(some.taken([place])))
            runs = after
    return found


def _in_new_orders(offered: LawRuns, times: NDArray[np.int64]) -> LawRuns:
    """A candidate that ran is offered again in another data order."""
    pairs = zip(offered.orders, times, strict=True)
    return replace(offered, orders=tuple((budget, seed + int(t)) for (budget, seed), t in pairs))


def _next(runs: LawRuns, offered: LawRuns, model: LawModel, cost_exponent: float) -> int:
    design = Design(model=model, runs=runs, noise=NOISE)
    slopes = np.stack([slope_of(name) / model.values[name] for name in WANTED])
    return next_run(design, offered, slopes, number=len(runs), cost_exponent=cost_exponent)


def run(options: Options) -> dict[str, Any]:
    """All seeds; root mean square errors of every parameter, relative, and the bars."""
    whole = grid()
    flops = float(whole.costs.sum())
    errors: dict[str, list[dict[str, float]]] = {}
    counts: dict[str, list[int]] = {}
    for seed in range(options.seeds):
        simulation = Simulation(seed, misspecified=options.misspecified)
        losses = np.array([simulation.loss(whole.taken([row])) for row in range(len(whole))])
        rows = {"grid": (whole, losses)}
        stops = [share * flops for share in CHECKPOINTS]
        for share, ours in zip(
            CHECKPOINTS,
            designed(simulation, stops, cost_exponent=options.cost_exponent),
            strict=True,
        ):
            rows[f"designed, {share:.2f} of its FLOPs"] = ours
        for name, (runs, measured) in rows.items():
            found = estimate(runs, measured)
            errors.setdefault(name, []).append({n: found[n] / TRUTH[n] - 1 for n in WANTED})
            counts.setdefault(name, []).append(len(runs))
        talk(f"seed {seed}: done")
    results = [
        {
            "design": name,
            "runs": float(np.mean(counts[name])),
            **{n: float(np.sqrt(np.mean([each[n] ** 2 for each in found]))) for n in WANTED},
        }
        for name, found in errors.items()
    ]
    document = {"options": asdict(options), "grid_flops": flops, "results": results}
    return document | {"bars": bars(results)}


def bars(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """With a third of the grid's FLOPs, no parameter's error is larger than the grid's."""
    whole, last = results[0], results[-1]
    return [
        {"bar": name, "value": last[name], "limit": whole[name], "met": last[name] <= whole[name]}
        for name in WANTED
    ]


def main() -> None:
    """Entry point."""
    options = tyro.cli(Options, prog="design_efficiency")
    document = run(options)
    if options.json:
        print_json(document)
        return
    print(
        f"root mean square relative error of {options.seeds} seeds; the grid costs "
        f"{document['grid_flops']:.3g} FLOPs"
    )
    print(f"{'design':<30}{'runs':>7}" + "".join(f"{name:>10}" for name in WANTED))
    for each in document["results"]:
        errors = "".join(f"{each[name]:>10.1%}" for name in WANTED)
        print(f"{each['design']:<30}{each['runs']:>7.0f}{errors}")
    for bar in document["bars"]:
        met = "met" if bar["met"] else "MISSED"
        print(
            f"{met}: {bar['bar']} with a third of the grid's FLOPs: {bar['value']:.2%} (at most "
            f"{bar['limit']:.2%})"
        )


if __name__ == "__main__":
    main()
