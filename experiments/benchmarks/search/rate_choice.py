"""What does the rate that a search has chosen cost, where the best one moves against the rule?

Sweeps of arms over the budgets of a truth are simulated; after some numbers of trials an arm and
budget, the configuration that is recommended is asked what its rate loses to the best one of its
shape, in standard deviations of the seed noise. Beside it, at the same shapes: the stage that was
there before (the best of a list at the smallest budget, carried over by the rule), and the rule.

    python -m experiments.benchmarks.search.rate_choice --seeds 20
    python -m experiments.benchmarks.search.rate_choice --truth FILE.toml --json
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments.benchmarks.search.simulated_search import (
    answer_to,
    benchmark_experiment,
    points_of,
    record_of_answer,
    simulated_ground,
)
from experiments.benchmarks.search.truth import Truth, ask, best_rate, load_truth
from experiments.command import print_json, talk
from search.asked.experiment import Experiment
from search.belief.rate_standing import rate_standings
from search.belief.rates import RATE, rate_model
from search.propose.cells import at_rate
from search.propose.contract import first_of
from search.propose.proposer import SweepProposer
from search.propose.tuning import choose_value
from search.record.trial import Proposal, family_of
from search.record.trial_records import TrialRecord, loss_of
from spaces.errors import RequestError

RATE_TRUTH = Path(__file__).with_name("rate_truth.toml")

FIRST_RATES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the rule's rate that each arm begins with."""

BAR = 1.25
"""Seed noises that the chosen rate may cost in the median."""

CHOICES = ("trained", "believed", "stage", "rule")
"""The recommended run's own rate; what the model would choose for it now; the former stage; 1 x."""


@dataclass(frozen=True)
class Options:
    """Measure what chosen rates cost."""

    truth: Path = RATE_TRUTH
    """The truth file."""
    seeds: int = 20
    """Simulated sweeps."""
    first_seed: int = 0
    """Seed of the first."""
    arms: tuple[str, ...] = ("dual", "standard")
    """Arms of a sweep."""
    trials: tuple[int, ...] = (8, 32)
    """Trials an arm and budget after which it is asked."""
    jobs: int = max(1, (os.cpu_count() or 1) - 1)
    """Processes."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one choice of a rate costs at one arm, budget and number of trials."""

    seed: int
    trials: int
    """An arm and budget."""
    arm: str
    train_flops: float
    choice: str
    noises: float
    """Nats lost to the best rate of the shape, over the seed noise there."""


def simulate_rates(
    truth: Truth, arms: Sequence[str], *, seed: int, trials: Sequence[int]
) -> list[Cost]:
    """One simulated sweep, asked after each number of trials an arm and budget."""
    sizes = [count * len(arms) * len(truth.train_flops) for count in trials]
    experiment = tuned_experiment(truth, arms, seed=seed, trials=max(sizes))
    proposer, noise = (
        SweepProposer(experiment, simulated_ground(truth)),
        np.random.default_rng(seed),
    )
    records: list[TrialRecord] = []
    costs: list[Cost] = []
    while (proposal := first_of(proposer.next(records))) is not None:
        outcome, _ = answer_to(truth, proposal.arm, proposal, noise)
        records.append(record_of_answer(proposal, outcome, number=len(records)))
        if len(records) in sizes:
            count = trials[sizes.index(len(records))]
            costs += _costs(truth, experiment, records, seed=seed, trials=count)
    return costs


def tuned_experiment(truth: Truth, arms: Sequence[str], *, seed: int, trials: int) -> Experiment:
    """The truth's question, with arms tuned at their own rates."""
    asked = benchmark_experiment(truth, arms[0], search={}, seed=seed)
    changes = {
        "arms": tuple(arms),
        "trials": trials,
        "tuning": {"learning_rate_multipliers": FIRST_RATES},
    }
    axes = asked.axes.model_dump() | {RATE: (1.0,)}
    return Experiment.model_validate(asked.model_dump() | changes | {"axes": axes})


def _costs(
    truth: Truth,
    experiment: Experiment,
    records: list[TrialRecord],
    *,
    seed: int,
    trials: int,
) -> Iterator[Cost]:
    by_hash = {record.config_hash: record.proposal for record in records}
    for standing in rate_standings(records):
        proposal = by_hash[standing.config_hash]
        believed = rate_model(family_of(standing.arm), records).at(proposal).multiplier
        multipliers = (standing.multiplier, believed, _staged(standing.arm, records), 1.0)
        for choice, multiplier in zip(CHOICES, multipliers, strict=True):
            yield Cost(
                seed=seed,
                trials=trials,
                arm=standing.arm,
                train_flops=standing.train_flops,
                choice=choice,
                noises=_noises_lost(truth, at_rate(experiment, proposal, multiplier)),
            )


def _staged(arm: str, records: Sequence[TrialRecord]) -> float:
    """The multiple that the former stage chose: the best of the list at the smallest budget."""
    stage = [record for record in records if record.proposal.purpose == "tuning"]
    first = next(record for record in stage if record.proposal.arm == arm)
    shape = dict(first.proposal.axes) | {RATE: 0}
    losses = {
        float(record.proposal.axes[RATE]): loss_of(record) if record.is_result else None
        for record in stage
        if record.proposal.arm == arm
        and record.proposal.budget == first.proposal.budget
        and dict(record.proposal.axes) | {RATE: 0} == shape
        and record.proposal.axes[RATE] in FIRST_RATES
    }
    choice = choose_value(losses, logarithmic=True)
    return 1.0 if choice is None else choice.value


def _noises_lost(truth: Truth, proposal: Proposal) -> float:
    """What a proposal's rate costs, over the seed noise at its shape's best rate."""
    flops = proposal.budget.train_flops
    assert flops is not None
    points = points_of(proposal)
    answer = ask(truth, proposal.arm, flops, points)
    best = best_rate(truth, proposal.arm, points, tokens=answer.tokens)
    lost = truth.loss.lr_weight * np.log10(points.learning_rate / best) ** 2
    noise = truth.loss.noise_fraction * (answer.loss - lost - truth.loss.irreducible)
    return float(lost / noise)


def summarise(costs: Sequence[Cost]) -> list[dict[str, float | int | str]]:
    """Median and 90 % quantile over seeds, arms and budgets, of each choice and number of trials;
    then by arm and budget."""
    groups: dict[tuple[int, str, str], list[float]] = defaultdict(list)
    for cost in costs:
        groups[cost.trials, "all", cost.choice].append(cost.noises)
        where = f"{cost.arm} {cost.train_flops:.0e}"
        groups[cost.trials, where, cost.choice].append(cost.noises)
    return [
        {
            "trials": trials,
            "where": where,
            "choice": choice,
            "median": float(np.median(values)),
            "p90": float(np.quantile(values, 0.9)),
            "count": len(values),
        }
        for (trials, where, choice), values in groups.items()
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit code 1 where the bar is missed."""
    options = tyro.cli(Options, args=argv, description=__doc__)
    try:
        truth = load_truth(options.truth)
    except RequestError as error:
        talk(f"error: {error}")
        return 2
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    costs: list[Cost] = []
    with ProcessPoolExecutor(options.jobs) as pool:
        jobs = [
            pool.submit(simulate_rates, truth, options.arms, seed=seed, trials=options.trials)
            for seed in seeds
        ]
        for done, job in enumerate(jobs, start=1):
            costs += job.result()
            talk(f"{done}/{len(jobs)} sweeps")
    rows = summarise(costs)
    met = all(
        float(row["median"]) <= BAR
        for row in rows
        if row["where"] == "all" and row["choice"] == "trained"
    )
    if options.json:
        print_json({"rows": rows, "bar": BAR, "met": met, "costs": [asdict(c) for c in costs]})
    else:
        _print(rows)
        print(f"bar, median of all at most {BAR} seed noises: {'met' if met else 'missed'}")
    return 0 if met else 1


def _print(rows: Sequence[dict[str, float | int | str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="cost of the chosen rate in seed noises: median (90 %)", title_justify="left"
    )
    for column in ("trials", "where", *CHOICES):
        table.add_column(column, justify="left" if column == "where" else "right")
    cells = {(r["trials"], r["where"], r["choice"]): r for r in rows}
    for trials, where in dict.fromkeys((r["trials"], r["where"]) for r in rows):
        found = [cells[trials, where, choice] for choice in CHOICES]
        shown = [f"{r['median']:.2f} ({r['p90']:.2f})" for r in found]
        table.add_row(str(trials), str(where), *shown)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    sys.exit(main())
