"""Are two arms that are the same function called a tie, and is a true difference called?

One arm of a truth is searched under two names; what the second loses is raised by so many seed
deviations. The noise of a run has a part of its own and one that all runs on its data order share.
The verdict is that of the leaderboard (`search.belief.gaps`) at the largest budget.

    python -m experiments.benchmarks.search.planted_ties --sweeps 400
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from experiments.benchmarks.search.rate_choice import RATE_TRUTH, tuned_experiment
from experiments.benchmarks.search.simulated_search import (
    points_of,
    record_of_answer,
    simulated_ground,
)
from experiments.benchmarks.search.truth import Truth, ask, failure_of, load_truth
from experiments.command import print_json, talk
from search.belief.gaps import ArmGap, arm_gaps
from search.propose.contract import first_of
from search.propose.proposer import SweepProposer
from search.record.trial import Outcome, Proposal
from search.record.trial_records import TrialRecord
from spaces.arms.registry import ArmFile, load_arm_file

TIES, POWER = (0.92, 0.98), 0.8
"""Shares of ties among equal arms, and the least share of true differences called."""

TWIN = ArmFile(
    name="isoflop_arms_twin",
    text="from spaces.arms.standard import Standard\n\n\n"
    'class Twin(Standard):\n    name = "twin"\n\n\nTWIN = Twin()\n',
)
"""The standard arm under another name, and of a family of its own."""


@dataclass(frozen=True)
class Options:
    """Count verdicts on planted gaps."""

    truth: Path = RATE_TRUTH
    """The truth file."""
    sweeps: int = 400
    """Simulated sweeps of each gap."""
    gaps: tuple[float, ...] = (0.0, 3.0)
    """Seed deviations by which the second arm is worse."""
    trials: int = 24
    """Trials an arm and budget."""
    shared: float = 0.5
    """Share of the noise's variance that runs on one data order have in common."""
    jobs: int = os.cpu_count() or 1
    """Processes."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document on standard output and nothing else there."""


def simulate_gap(
    truth: Truth, gap: float, *, seed: int, trials: int, shared: float
) -> ArmGap | None:
    """One sweep of both names; the verdict at the largest budget."""
    load_arm_file(TWIN)
    arms = ("standard", "twin")
    budgets = truth.train_flops[-2:]
    asked = tuned_experiment(
        truth.model_copy(update={"train_flops": budgets}),
        arms,
        seed=seed,
        trials=trials * len(arms) * len(budgets),
    )
    proposer = SweepProposer(asked, simulated_ground(truth))
    records: list[TrialRecord] = []
    while (proposal := first_of(proposer.next(records))) is not None:
        outcome = _answer(truth, proposal, gap, seed=seed, shared=shared)
        records.append(record_of_answer(proposal, outcome, number=len(records)))
    return next((each for each in arm_gaps(records) if each.train_flops == budgets[-1]), None)


def _answer(truth: Truth, proposal: Proposal, gap: float, *, seed: int, shared: float) -> Outcome:
    """What training would have said; luck is a function of the run and of its data order."""
    flops = proposal.budget.train_flops
    assert flops is not None
    answer = ask(truth, "standard", flops, points_of(proposal))
    failure = failure_of(truth, answer)
    if failure is not None:
        return Outcome(status=failure, reason="simulated")
    config = proposal.config
    run = np.random.default_rng([seed, int(config.config_hash, 16)]).normal()
    order = np.random.default_rng([seed, config.data_seed, int(math.log2(flops) * 1e6)]).normal()
    luck = math.sqrt(shared) * order + math.sqrt(1 - shared) * run
    worse = gap if proposal.arm == "twin" else 0.0
    loss = float(answer.loss + answer.noise * (luck + worse))
    return Outcome(status="complete", loss_nats=loss, bits_per_byte=loss)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; exit code 1 where a bar is missed."""
    options = tyro.cli(Options, args=argv, description=__doc__)
    truth = load_truth(options.truth)
    rows = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for gap in options.gaps:
            jobs = [
                pool.submit(
                    simulate_gap,
                    truth,
                    gap,
                    seed=seed,
                    trials=options.trials,
                    shared=options.shared,
                )
                for seed in range(options.sweeps)
            ]
            found = []
            for done, job in enumerate(jobs, start=1):
                found.append(job.result())
                if done % 50 == 0:
                    talk(f"gap {gap:g}: {done}/{len(jobs)} sweeps")
            rows.append(_row(gap, [each for each in found if each is not None]))
    if options.json:
        print_json({"rows": rows})
    for row in () if options.json else rows:
        print(
            f"gap of {row['gap']:g} seed deviations: tie {row['tie']:.1%}, called rightly "
            f"{row['right']:.1%}, wrongly {row['wrong']:.1%}, unknown {row['unknown']:.1%} of "
            f"{row['sweeps']:g}; median half-width {row['half_width']:.4f} nats"
        )
    return 0 if all(map(_met, rows)) else 1


def _row(gap: float, found: Sequence[ArmGap]) -> dict[str, float]:
    count = len(found)
    called = [each for each in found if each.verdict == "better"]
    right = sum(each.better == "standard" for each in called) if gap else 0
    widths = [each.half_width_nats for each in found if each.half_width_nats is not None]
    return {
        "gap": gap,
        "sweeps": count,
        "tie": sum(each.verdict == "tie" for each in found) / count,
        "right": right / count,
        "wrong": (len(called) - right) / count,
        "unknown": sum(each.verdict == "unknown" for each in found) / count,
        "half_width": float(np.median(widths)) if widths else math.nan,
    }


def _met(row: dict[str, float]) -> bool:
    if row["gap"] == 0:
        return TIES[0] <= row["tie"] <= TIES[1]
    return row["gap"] < 3 or row["right"] >= POWER


if __name__ == "__main__":
    sys.exit(main())
