"""Which of several candidates is worth its FLOPs? The one that is expected to improve most.

Candidates come from Optuna's sampler and from steps around the leaders; the surrogate of the arm,
which has seen all budgets, weighs expected improvement with the chance that the trial fails.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from search.belief.arm_models import ArmModels
from search.belief.gaussian_process import (
    Floats,
    Surrogate,
    expected_improvement,
    failure_probability,
)
from search.propose.cells import Cell, cell_of
from search.record.ledger import TrialRecord
from search.record.trial import FAILED_STATES, Proposal
from search.record.trial_records import loss_of
from spaces.axes import AxisValue

NUM_LEADERS = 4
"""Best results of the cell, and the best of every other budget, whose surroundings are tried."""

STEPS_PER_LEADER = 10
"""Points tried around each."""

CAUTIOUS_CHANCE, BOLD_CHANCE = 0.05, 0.4
"""Candidates likelier to fail than this are left out where there are others: the second where none
of the arm's last trials failed, because the best often lies close to a wall."""

BOLD_AFTER = 25
"""Trials without a failure after which one may be risked: at most 4 % then fail."""


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
    model: Surrogate | None,
    models: ArmModels,
) -> Proposal:
    """The candidate of the highest expected improvement times its chance to train.

    Without a model, the first that is not likely to fail.
    """
    raw = models.features(candidates)
    arm = [record for record in records if record.proposal.arm == cell.arm]
    chance = _failure_chance(arm, raw, models)
    score = np.log1p(-np.minimum(chance, 1 - 1e-9))
    if model is None:
        score = -np.arange(len(candidates), dtype=np.float64)
    else:
        mine = [r.proposal for r in arm if r.is_result and cell_of(r.proposal) == cell]
        mean, deviation = model.predict(raw)
        best = float(np.min(model.predict(models.features(mine))[0] if mine else mean))
        score = score + expected_improvement(mean, deviation, best)
    last = sorted(arm, key=lambda record: record.number)[-BOLD_AFTER:]
    bold = model is not None and not any(record.state in FAILED_STATES for record in last)
    limit = max(BOLD_CHANCE if bold else CAUTIOUS_CHANCE, float(np.min(chance)))
    return candidates[int(np.argmax(np.where(chance <= limit, score, -np.inf)))]


def any_failed(records: Sequence[TrialRecord], cell: Cell) -> bool:
    """Whether a trial of the cell's arm failed by what it is."""
    return any(r.proposal.arm == cell.arm and r.state in FAILED_STATES for r in records)


def _failure_chance(arm: list[TrialRecord], raw: Floats, models: ArmModels) -> Floats:
    """Of candidates (rows), given how the arm's trials ended."""
    ended = [r for r in arm if r.set_aside is None and (r.is_result or r.state in FAILED_STATES)]
    if not ended:
        return np.zeros(len(raw))
    seen = models.features([record.proposal for record in ended])
    return failure_probability(seen, [not record.is_result for record in ended], raw)
