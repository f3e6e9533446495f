"""What does a sweep that also serves laws pay, in the best configuration that it finds?

The simulated search of `search_quality`, twice with every seed: once with ``search.goal = "best"``,
once with ``"both"``. The cost is the paired difference of the regrets of what is recommended, in
standard deviations of the seed noise at the optimum.

    python -m experiments.benchmarks.search.goal_cost --seeds 40
    python -m experiments.benchmarks.search.goal_cost --seeds 40 \
        --truth experiments/benchmarks/search/search_truth_other.toml
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from experiments.benchmarks.search.simulated_search import simulate
from experiments.benchmarks.search.truth import DEFAULT_TRUTH, load_truth
from experiments.command import print_json, talk
from spaces.errors import RequestError

BARS = {"search_truth": 0.1, "search_truth_other": 0.4}
"""The most that the mean paired difference may be at the last checkpoint, by truth file."""


@dataclass(frozen=True)
class Options:
    """Compare the two goals on a truth in closed form."""

    truth: Path = DEFAULT_TRUTH
    """The truth file."""
    seeds: int = 40
    """Pairs of runs."""
    first_seed: int = 0
    """Seed of the first pair, to cut a long benchmark into parts."""
    trials: int = 64
    """Trials per budget."""
    arm: str = "dual"
    """The arm whose space is searched."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document on standard output and nothing else there."""


def run(options: Options) -> dict[str, Any]:
    """Run every pair; the document holds all differences, (seeds, budgets) by checkpoint."""
    truth = load_truth(options.truth)
    differences: dict[int, list[list[float]]] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        runs = [
            simulate(truth, options.arm, contender, seed=seed, trials=options.trials)
            for contender in ("ours-best", "ours-tpe")
        ]
        for best, both in zip(*runs, strict=True):
            pairs = zip(best.regrets, both.regrets, strict=True)
            differences.setdefault(best.trials, []).append([b - a for a, b in pairs])
        last = differences[max(differences)]
        talk(f"seed {seed}: mean of {len(last)} pairs {np.mean(last):+.3f}")
    return {
        "truth": options.truth.stem,
        "arm": options.arm,
        "bar": BARS.get(options.truth.stem),
        "results": [_summary(trials, found) for trials, found in sorted(differences.items())],
        "differences": differences,
    }


def _summary(trials: int, differences: list[list[float]]) -> dict[str, float]:
    """Over seeds and budgets; the error of the mean is over seeds, whose budgets are one run."""
    by_seed = np.mean(differences, axis=1)
    return {
        "trials": trials,
        "seeds": len(by_seed),
        "mean": float(by_seed.mean()),
        "standard_error": float(by_seed.std(ddof=1) / np.sqrt(len(by_seed)))
        if len(by_seed) > 1
        else float("nan"),
        "median": float(np.median(differences)),
    }


def main() -> None:
    """Entry point."""
    try:
        options = tyro.cli(Options, prog="goal_cost")
        document = run(options)
    except RequestError as error:
        sys.exit(f"goal_cost: {error}")
    if options.json:
        print_json(document)
        return
    print(f"{document['truth']}, {document['arm']}: regret with goal both less that with goal best")
    for each in document["results"]:
        print(
            f"{each['trials']:>4} trials a budget, {each['seeds']} seeds: mean {each['mean']:+.3f} "
            f"± {each['standard_error']:.3f}, median {each['median']:+.3f}"
        )
    if document["bar"] is not None:
        met = "met" if document["results"][-1]["mean"] <= document["bar"] else "MISSED"
        print(f"{met}: mean at the last checkpoint, at most {document['bar']:g}")


if __name__ == "__main__":
    main()
