"""Which of several candidates is worth its FLOPs? The one that is expected to improve most.

Candidates come from Optuna's sampler and from steps around the leaders; the surrogate of the arm,
which has seen all budgets, weighs expected improvement with the chance that the trial fails.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from search.cells import Cell, cell_of
from search.denoised import ArmModels, loss_of
from search.ledger import TrialRecord
from search.study import AxisValue
from search.surrogate import Surrogate, expected_improvement, failure_probability
from search.trial import Proposal

NUM_LEADERS = 4
"""Best results of the cell, and the best of every other budget, whose surroundings are tried."""

STEPS_PER_LEADER = 10
"""Points tried around each."""

MAX_FAILURE_CHANCE = 0.05
"""Candidates likelier to fail than this are left out where there are others."""

FAILED_STATES = ("diverged", "out_of_memory", "failed")


def around_leaders(
    axes: Mapping[str, tuple[AxisValue, ...]],
    cell: Cell,
    records: Sequence[TrialRecord],
    *,
    seed: str,
) -> Iterator[dict[str, AxisValue]]:
    """Points one or two steps from the leaders along one to three axes; the leaders of other
    budgets themselves first (what lower budgets learnt is where a larger one starts)."""
    chance = random.Random(seed)
    free = [name for name, values in axes.items() if len(values) > 1]
    mine, others = (
        [point for each in group if (point := _onto(axes, each)) is not None]
        for group in _leaders(cell, records)
    )
    yield from (dict(point) for point in others)
    for point in [*mine, *others]:
        for _ in range(STEPS_PER_LEADER if free else 0):
            moved = dict(point)
            for name in chance.sample(free, min(len(free), chance.randint(1, 3))):
                values = axes[name]
                index = values.index(moved[name]) + chance.choice((-2, -1, 1, 2))
                moved[name] = values[min(max(index, 0), len(values) - 1)]
            yield moved


def _onto(
    axes: Mapping[str, tuple[AxisValue, ...]], point: Mapping[str, AxisValue]
) -> dict[str, AxisValue] | None:
    """The point with fixed axes as they are now; None where a free axis no longer has its value."""
    if any(point.get(name) not in values for name, values in axes.items() if len(values) > 1):
        return None
    return {name: point[name] if len(values) > 1 else values[0] for name, values in axes.items()}


def _leaders(
    cell: Cell, records: Sequence[TrialRecord]
) -> tuple[list[dict[str, AxisValue]], list[dict[str, AxisValue]]]:
    """Axes of the best results: of the cell, and of the arm's other budgets."""
    results = sorted(
        (record for record in records if record.is_result and record.proposal.arm == cell.arm),
        key=lambda record: (loss_of(record), record.number),
    )
    mine = [dict(r.proposal.axes) for r in results if cell_of(r.proposal) == cell]
    others: dict[float, dict[str, AxisValue]] = {}
    for record in results:
        other = cell_of(record.proposal)
        if other != cell:
            others.setdefault(other.train_flops, dict(record.proposal.axes))
    return mine[:NUM_LEADERS], list(others.values())


def choose(
    candidates: Sequence[Proposal],
    cell: Cell,
    records: Sequence[TrialRecord],
    *,
    model: Surrogate,
    models: ArmModels,
) -> Proposal:
    """The candidate of the highest expected improvement times its chance to train."""
    raw = models.features(candidates)
    arm = [record for record in records if record.proposal.arm == cell.arm]
    results = [record for record in arm if record.is_result]
    seen = [record.proposal for record in results if cell_of(record.proposal) == cell]
    mean, deviation = model.predict(raw)
    best = float(np.min(model.predict(models.features(seen))[0] if seen else mean))
    ended = [r for r in arm if r.set_aside is None and (r.is_result or r.state in FAILED_STATES)]
    failed = [not record.is_result for record in ended]
    chance = failure_probability(
        models.features([record.proposal for record in ended]), failed, raw
    )
    score = expected_improvement(mean, deviation, best) + np.log1p(-np.minimum(chance, 1 - 1e-9))
    limit = max(MAX_FAILURE_CHANCE, float(np.min(chance)))
    return candidates[int(np.argmax(np.where(chance <= limit, score, -np.inf)))]
