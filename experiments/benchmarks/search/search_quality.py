"""How near to the best configuration does a search come, and what does it waste on the way?

A simulated pool stands in for training: a truth file says what every configuration would have
lost. Contenders search each budget of the truth; their recommendation's true loss, above that of
the best feasible point of the whole grid, is the regret, in standard deviations of the seed noise.

    python -m experiments.benchmarks.search.search_quality --seeds 20 --json
    python -m experiments.benchmarks.search.search_quality --contenders ours-tpe --out part1.json
    python -m experiments.benchmarks.search.search_quality --merge part*.json --figure out.png
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import tyro

from experiments.benchmarks.search.simulated_search import SIZES, Checkpoint, Contender, simulate
from experiments.benchmarks.search.truth import DEFAULT_TRUTH, Truth, load_truth, optimum
from experiments.command import print_json, talk
from spaces.errors import RequestError

DEFAULT_CONTENDER: Contender = "ours-tpe"
"""What a sweep uses unless its experiment says otherwise; the bars are held to it."""

DRAWN_FLOOR = 0.01
"""Regret below which the figure, whose axis is logarithmic, draws this."""

GP: tuple[Contender, ...] = ("ours-gp", "stock-gp")


@dataclass(frozen=True)
class Options:
    """Compare searches on a truth in closed form."""

    truth: Path = DEFAULT_TRUTH
    """The truth file."""
    seeds: int = 20
    """Runs of each contender."""
    first_seed: int = 0
    """Seed of the first run, to cut a long benchmark into parts."""
    trials: int = 256
    """Trials per budget; sizes up to it are reported."""
    gp_trials: int = 64
    """The same for Optuna's GP, whose asks take tenths of a second each."""
    contenders: tuple[Contender, ...] = get_args(Contender)
    """Who searches."""
    arm: str = "dual"
    """The arm whose space is searched."""
    jobs: int = max(1, (os.cpu_count() or 1) - 1)
    """Processes."""
    out: Path | None = None
    """Where to write this part, for --merge."""
    merge: tuple[Path, ...] = ()
    """Parts to report together, instead of running."""
    figure: Path | None = None
    """Where to draw regret over trials."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One contender at one number of trials per budget, over seeds and budgets."""

    contender: str
    trials: int
    seeds: int
    regret_median: float
    """In standard deviations of the seed noise."""
    regret_quartiles: tuple[float, float]
    """25 % and 75 %."""
    regret_median_by_budget: tuple[float, ...]
    infeasible: float
    """Share of failed trials."""
    infeasible_after_16: float | None
    """The same after the first 16 of each budget; None where no trial is."""
    duplicates: int
    """Of all seeds."""
    train_flops: float
    """Mean per seed."""


def run(options: Options) -> dict[str, Any]:
    """Run, or merge, and return the document that is printed."""
    truth = load_truth(options.truth)
    if options.merge:
        rows = _merged(options.merge, truth, options.arm)
    else:
        rows = _run_all(truth, options)
        if options.out is not None:
            part = {"truth": truth.model_dump(mode="json"), "arm": options.arm, "rows": rows}
            options.out.write_text(json.dumps(part), encoding="utf-8")
    summaries = summarise(rows)
    if options.figure is not None:
        draw(summaries, options.figure)
    return {
        "truth": str(options.truth),
        "arm": options.arm,
        "optima": [
            {"train_flops": flops, **asdict(optimum(truth, options.arm, flops))}
            for flops in truth.train_flops
        ],
        "results": [asdict(each) for each in summaries],
        "bars": bars(summaries),
    }


def _run_all(truth: Truth, options: Options) -> list[dict[str, Any]]:
    jobs = [
        (contender, seed)
        for seed in range(options.first_seed, options.first_seed + options.seeds)
        for contender in options.contenders
    ]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(max_workers=options.jobs, initializer=_one_thread) as pool:
        running = [
            pool.submit(
                simulate,
                truth,
                options.arm,
                contender,
                seed=seed,
                trials=min(options.trials, options.gp_trials)
                if contender in GP
                else options.trials,
            )
            for contender, seed in jobs
        ]
        for (contender, seed), future in zip(jobs, running, strict=True):
            rows += [_row(contender, seed, each) for each in future.result()]
            talk(f"{contender}, seed {seed}: done")
    return rows


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _row(contender: Contender, seed: int, checkpoint: Checkpoint) -> dict[str, Any]:
    return {"contender": contender, "seed": seed, **asdict(checkpoint)}


def _merged(paths: Sequence[Path], truth: Truth, arm: str) -> list[dict[str, Any]]:
    """Rows of several parts; `RequestError` where one is of another truth or arm."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        part = json.loads(path.read_text(encoding="utf-8"))
        if part["truth"] != truth.model_dump(mode="json") or part["arm"] != arm:
            raise RequestError(f"{path} was run on another truth or arm than the one named")
        rows += part["rows"]
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> list[Summary]:
    """One summary per contender and size, over seeds and budgets."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["contender"], row["trials"]].append(row)
    return [_summary(*key, groups[key]) for key in sorted(groups)]


def _summary(contender: str, trials: int, rows: list[dict[str, Any]]) -> Summary:
    regrets = np.array([row["regrets"] for row in rows])
    low, middle, high = np.quantile(regrets, [0.25, 0.5, 0.75])
    after_16 = [row["infeasible_after_16"] for row in rows]
    settled = [share for share in after_16 if share is not None]
    return Summary(
        contender=contender,
        trials=trials,
        seeds=len(rows),
        regret_median=float(middle),
        regret_quartiles=(float(low), float(high)),
        regret_median_by_budget=tuple(np.median(regrets, axis=0).tolist()),
        infeasible=float(np.mean([row["infeasible"] for row in rows])),
        infeasible_after_16=float(np.mean(settled)) if settled else None,
        duplicates=sum(row["duplicates"] for row in rows),
        train_flops=float(np.mean([row["train_flops"] for row in rows])),
    )


def bars(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    """What the default must reach, what it reached, and whether that is enough."""
    by = {(each.contender, each.trials): each for each in summaries}
    ours = {size: by.get((DEFAULT_CONTENDER, size)) for size in SIZES}
    found: list[dict[str, Any]] = []

    def hold(bar: str, value: float, limit: float) -> None:
        found.append({"bar": bar, "value": value, "limit": limit, "met": value <= limit})

    stock = by.get(("stock-tpe", 64))
    if (at_64 := ours[64]) and stock:
        half = stock.regret_median / 2
        hold("median regret at 64 trials, half of stock TPE's", at_64.regret_median, half)
    if at_128 := ours[128]:
        hold("median regret at 128 trials, one seed sd", at_128.regret_median, 1.0)
    largest = next((each for size in reversed(SIZES) if (each := ours[size])), None)
    if largest is not None:
        count = largest.trials
        share = largest.infeasible_after_16
        if share is not None:
            hold(f"infeasible after the first 16, of {count} trials", share, 0.05)
        hold(f"duplicates in {count} trials", largest.duplicates, 0)
    return found


def draw(summaries: Sequence[Summary], path: Path) -> None:
    """Median regret and its quartiles over trials per budget, one line per contender."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for contender in get_args(Contender):
        mine = [each for each in summaries if each.contender == contender]
        if not mine:
            continue
        sizes = [each.trials for each in mine]
        ours = contender == DEFAULT_CONTENDER
        (line,) = axes.plot(
            sizes,
            [max(each.regret_median, DRAWN_FLOOR) for each in mine],
            marker="o",
            linewidth=2.5 if ours else 1.2,
            linestyle="--" if contender.startswith("stock") else "-",
            label=contender + (" (default)" if ours else ""),
        )
        low = [max(each.regret_quartiles[0], DRAWN_FLOOR) for each in mine]
        high = [max(each.regret_quartiles[1], DRAWN_FLOOR) for each in mine]
        axes.fill_between(sizes, low, high, alpha=0.12, color=line.get_color())
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.annotate("one seed standard deviation", (66, 0.72), fontsize=8, color="grey")
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.minorticks_off()
    axes.set_xlabel("trials per budget")
    axes.set_ylabel("regret in seed standard deviations")
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def print_document(document: dict[str, Any]) -> None:
    """The table and the bars, for a person."""
    print("regret in seed standard deviations, median over seeds and budgets")
    print(
        f"{'contender':<12}{'seeds':>6}{'trials':>7}{'median':>9}{'quartiles':>16}{'failed':>8}"
        f"{'after 16':>10}{'twice':>7}{'FLOPs a seed':>14}"
    )
    for each in document["results"]:
        low, high = each["regret_quartiles"]
        after_16 = each["infeasible_after_16"]
        print(
            f"{each['contender']:<12}{each['seeds']:>6}{each['trials']:>7}"
            f"{each['regret_median']:>9.2f}{f'{low:.2f} to {high:.2f}':>16}"
            f"{each['infeasible']:>8.1%}{'-' if after_16 is None else f'{after_16:.1%}':>10}"
            f"{each['duplicates']:>7}{each['train_flops']:>14.3g}"
        )
    for bar in document["bars"]:
        met = "met" if bar["met"] else "MISSED"
        print(f"{met}: {bar['bar']}: {bar['value']:.3g} (at most {bar['limit']:.3g})")


def main() -> None:
    """Entry point."""
    try:
        options = tyro.cli(Options, prog="search_quality")
        document = run(options)
    except RequestError as error:
        sys.exit(f"search_quality: {error}")
    if options.json:
        print_json(document)
    else:
        print_document(document)


if __name__ == "__main__":
    main()
