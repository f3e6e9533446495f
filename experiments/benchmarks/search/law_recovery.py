"""Do sweeps for a law give the planted law back, in intervals that hold it as often as they say?

Losses of a compute-capacity law stand in for training, with noise of a run's own and noise that the
runs of one budget and data order share. Every sweep is driven by the proposer that a real one has:
``goal`` is `search.goal = "law"` with a fixed number of trials, ``until`` is ``sweep --until``, its
interval taken where it stopped, which is when it happened to be narrow.

    python -m experiments.benchmarks.search.law_recovery --sweeps 300
    python -m experiments.benchmarks.search.law_recovery --sweeps 300 --until "phi +- 0.06"
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any

import numpy as np
import polars as pl
import tyro

from analysis.fit.fit_result import Fit
from analysis.points.sweep_frame import frame_of
from analysis.sweep.sweep_fit import fit_sweep
from experiments.answering import MakeProposer, answers
from experiments.benchmarks.search.simulated_search import record_of_answer
from experiments.command import print_json, talk
from runners.driver import SweepSummary
from search.asked.experiment import Experiment
from search.design.law_model import LawModel
from search.design.question import parse_question
from search.design.sweep_runs import law_runs
from search.propose.cells import Ground
from search.propose.contract import Done, Proposed
from search.propose.proposer import SweepProposer
from search.record.trial import Outcome, Proposal
from search.record.trial_records import TrialRecord

TRUTH = {"alpha": 0.45, "beta": 0.3, "phi": 0.5, "omega": 0.7}
LAW = LawModel(
    log_size=math.log(1e5),
    log_tokens=math.log(3e5),
    values={"E": 2.0, "A": 0.7, "B": 0.9, **TRUTH},
)
WANTED = ("phi", "omega", "alpha", "beta")
BAR = ("phi", "omega")
COVERED, MOST_REFUSED = (0.92, 0.98), 0.10

GROUND = Ground(
    text_fingerprint="simulated",
    vocab_size=256,
    num_validation_sequences=10**6,
    precision="float32",
)


@dataclass(frozen=True)
class Options:
    """Plant a law, sweep for it, and count how often its interval holds."""

    sweeps: int = 300
    """Simulated sweeps."""
    trials: int = 110
    """Of each sweep; with ``--until`` at most so many."""
    own: float = 0.004
    """Standard deviation of the log loss of a run."""
    shared: float = 0.002
    """Of what runs of one budget and data order share."""
    until: str | None = None
    """A question, as of ``sweep --until``."""
    first_seed: int = 0
    jobs: int = os.cpu_count() or 1
    """Processes."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print one JSON document on standard output and nothing else there."""


def planted_experiment(trials: int, seed: int) -> Experiment:
    """Five budgets, dual, loop and standard."""
    fields: dict[str, Any] = {
        "name": "recovery",
        "trials": trials,
        "arms": ["standard", "loop", "dual"],
        "budget": {"train_flops": [1e11, 2e11, 4e11, 8e11, 1.6e12]},
        "axes": {
            "num_loops": [1, 2, 4],
            "wide_multiplier": [2, 4],
            "num_layers": [2, 3],
            "d_model": [16, 24, 32, 48, 64, 96, 128, 192, 256],
        },
        "architecture": {"head_dim": 8, "context_length": 32},
        "training": {"batch_tokens": 256, "batch_reference_flops": 2e9, "eval_sequences": 8},
        "search": {"goal": "law", "sampler": "random"},
        "seeds": {"search": seed},
    }
    return Experiment.model_validate(fields)


@dataclass
class SimulatedSweep:
    """Records of one sweep, trained by the planted law."""

    seed: int
    own: float
    shared: float
    records: list[TrialRecord] = field(default_factory=list)

    def loss(self, proposal: Proposal) -> float:
        """Nats; noise of its own by its place, and that of its budget and data order."""
        (exact,) = LAW.losses(law_runs([proposal], across_arms=True))
        flops = int(proposal.budget.train_flops or 0)
        order = (self.seed, flops, proposal.config.data_seed)
        common = np.random.default_rng(order).normal()
        mine = np.random.default_rng((self.seed, len(self.records))).normal()
        return float(exact * np.exp(self.own * mine + self.shared * common))

    def train(self, proposer: SweepProposer) -> SweepSummary:
        """All that a proposer asks for."""
        while isinstance(found := proposer.next(self.records), Proposed):
            for proposal in found.proposals:
                loss = self.loss(proposal)
                outcome = Outcome(status="complete", loss_nats=loss, bits_per_byte=loss)
                record = record_of_answer(proposal, outcome, number=len(self.records))
                self.records.append(record)
        return SweepSummary(stopped_by=found.why if isinstance(found, Done) else None)

    def frame(self) -> pl.DataFrame:
        """Of its results."""
        return frame_of(self.records)


def recovered(options: Options, seed: int) -> dict[str, Any]:
    """One sweep: estimates, intervals, and how many trials it took."""
    asked = planted_experiment(options.trials, seed)
    sweep = SimulatedSweep(seed, options.own, options.shared)
    if options.until is None:
        sweep.train(SweepProposer(asked, GROUND))
    else:

        def train(make: MakeProposer) -> SweepSummary:
            return sweep.train(make(asked, GROUND))

        for _ in answers(parse_question(options.until), train=train, results=sweep.frame):
            pass
    law = fit_sweep(sweep.frame()).capacity
    assert law is not None
    return {"seed": seed, "trials": len(sweep.records), "law": _told(law)}


def _told(law: Fit) -> dict[str, Any]:
    return {name: (law.parameters[name], law.interval(name)) for name in WANTED}


def summary(found: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of every parameter: coverage among those told, refusals, half-width and its ideal."""
    return {name: _of_one(name, [each["law"][name] for each in found]) for name in WANTED}


def _of_one(name: str, pairs: list[Any]) -> dict[str, float]:
    told = [(value, *interval) for value, interval in pairs if value is not None and interval]
    value, low, high = np.array(told).T
    return {
        "covered": float(np.mean((low <= TRUTH[name]) & (TRUTH[name] <= high))),
        "refused": 1 - len(told) / len(pairs),
        "half_width": float(np.median(high - low)) / 2,
        "ideal": 1.96 * float(value.std()),
        "bias": float(value.mean()) - TRUTH[name],
    }


def line_of(name: str, row: Mapping[str, float]) -> str:
    """One line of the table, and whether the bar is met."""
    low, high = COVERED
    met = low <= row["covered"] <= high and row["refused"] <= MOST_REFUSED
    verdict = "" if name not in BAR else "  met" if met else "  MISSED"
    return (
        f"{name:<6} covered {row['covered']:6.1%}, refused {row['refused']:5.1%}, half-width "
        f"{row['half_width']:.3f} (ideal {row['ideal']:.3f}), bias {row['bias']:+.3f}{verdict}"
    )


def main() -> int:
    """All sweeps, and the bars."""
    options = tyro.cli(Options, prog="law_recovery")
    seeds = range(options.first_seed, options.first_seed + options.sweeps)
    found = []
    with ProcessPoolExecutor(options.jobs) as pool:
        for each in pool.map(partial(recovered, options), seeds):
            found.append(each)
            talk(f"sweep {each['seed']}: {each['trials']} trials")
    rows = summary(found)
    if options.json:
        print_json({"summary": rows, "sweeps": found})
        return 0
    trials = np.mean([each["trials"] for each in found])
    print(f"{len(found)} sweeps of {trials:.0f} trials ({options.until or 'goal = law'})")
    print("\n".join(line_of(name, row) for name, row in rows.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
