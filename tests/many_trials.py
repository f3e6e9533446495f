"""A ledger of many trials in little time: every axis drawn, losses of a law, nothing trained."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from search.asked.experiment import Experiment
from search.propose.cells import Cell, resolve
from search.record.ledger_rows import queue_trial
from search.record.ledger_schema import ATTEMPTS, OUTCOMES
from search.record.trial import Proposal, Purpose
from spaces.arms.contract import find_arm
from spaces.errors import InfeasibleError
from spaces.identity import canonical_json
from spaces.parameters import count_parameters
from tests.sweeps import GROUND, complete_outcome, open_ledger, toy_experiment

NUM_SEEDS = 4
"""Of each configuration: the first and its replicates."""


def many_experiment() -> Experiment:
    """Four budgets, three arms, and more shapes than anybody tries."""
    return toy_experiment(
        name="many",
        trials=100_000,
        arms=["dual", "wide", "standard"],
        budget={"train_flops": [4e10, 8e10, 1.6e11, 3.2e11]},
        axes={
            "num_loops": [1, 2, 3, 4],
            "wide_multiplier": [2, 3, 4, 5, 6, 7, 8],
            "deep_multiplier": [2, 8 / 3, 3, 4],
            "num_layers": [1, 2, 3, 4, 5, 6],
            "d_model": list(range(16, 144, 16)),
            "learning_rate_multiplier": [0.5, 0.7, 1.0, 1.4, 2.0],
        },
    )


def many_trials(home: Path, count: int) -> Experiment:
    """Fill the ledger of a home with a sweep of so many results."""
    experiment = many_experiment()
    ledger = open_ledger(home, experiment)
    with ledger._writing() as connection:
        for number, (proposal, loss) in zip(range(count), _results(experiment), strict=False):
            queue_trial(connection, experiment.name, proposal, takes_pruned=True)
            outcome = complete_outcome(proposal, loss_nats=loss)
            now = time.time()
            attempt = {
                "sweep": experiment.name,
                "config_hash": proposal.config_hash,
                "number": 1,
                "state": "complete",
                "started_at": now - 2,
                "ended_at": now,
                "step": outcome.steps,
                "spent_flops": float(proposal.train_flops),
                "curve_json": json.dumps([asdict(point) for point in outcome.curve]),
            }
            connection.execute(insert(ATTEMPTS).values(id=number + 1, **attempt))
            result = {"config_hash": proposal.config_hash, "attempt_id": number + 1}
            text = {"outcome_json": canonical_json(outcome), "accepted_at": now}
            connection.execute(insert(OUTCOMES).values(**result, **text))
        connection.exec_driver_sql("UPDATE trials SET state = 'complete'")
    ledger.close()
    return experiment


def _results(experiment: Experiment) -> Iterator[tuple[Proposal, float]]:
    """Proposals that are new, and what they might have measured."""
    chance, known = random.Random(0), set()
    cells = [
        Cell(arm=arm, budget=budget)
        for arm in experiment.arms
        for budget in experiment.budget.budgets()
    ]
    for cell, axes, purpose, seed in _asked(experiment, cells, chance):
        try:
            proposal = resolve(
                experiment, GROUND, cell, axes, purpose=purpose, init_seed=seed, data_seed=seed
            )
        except InfeasibleError:
            continue
        if proposal.config_hash not in known:
            known.add(proposal.config_hash)
            yield proposal, _loss(proposal) + chance.gauss(0, 0.01)


def _asked(
    experiment: Experiment, cells: list[Cell], chance: random.Random
) -> Iterator[tuple[Cell, dict[str, Any], Purpose, int]]:
    """Every arm tuned at its smallest budget, then points of the axes, each with several seeds."""
    for cell in cells[:: len(experiment.budget.train_flops)]:
        point = _drawn(experiment, cell, chance)
        for rate in experiment.axes.learning_rate_multiplier:
            yield cell, point | {"learning_rate_multiplier": rate}, "tuning", 0
    while True:
        cell = chance.choice(cells)
        point = _drawn(experiment, cell, chance)
        for seed in range(NUM_SEEDS):
            yield cell, point, "replicate" if seed else "search", seed


def _drawn(experiment: Experiment, cell: Cell, chance: random.Random) -> dict[str, Any]:
    axes = find_arm(cell.arm).axes["tokens"]
    return {axis.name: chance.choice(experiment.axes.values_of(axis)) for axis in axes}


def _loss(proposal: Proposal) -> float:
    """Chinchilla's law, and a valley in the learning rate."""
    size = count_parameters(proposal.config.architecture).total
    rate = math.log(float(proposal.axes["learning_rate_multiplier"]))
    return 1.7 + 20 * size**-0.34 + 40 * proposal.config.tokens**-0.28 + 0.05 * rate**2
