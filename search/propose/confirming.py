"""Which shapes could an arm have at a larger budget? Its widths and depths; the rest as it leads.

A law knows sizes and tokens and nothing of loops or ratios, so those stay as they are in the arm's
best configuration at the sweep's largest budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from search.asked.experiment import Experiment
from search.belief.rate_standing import established, examined_budgets
from search.belief.rates import RateModels
from search.limits.law_rows import why_no_law_uses
from search.propose.cells import (
    Cell,
    Ground,
    at_rate,
    cell_axes,
    cell_of,
    require_within_limits,
    resolve,
)
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord, loss_of
from spaces.errors import InfeasibleError, RequestError


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The shapes of one depth that a law may choose from."""

    num_layers: int
    shapes: tuple[Proposal, ...]
    """By width, narrowest first."""


def leaders(records: Sequence[TrialRecord]) -> dict[str, Proposal]:
    """Of every family, its best configuration at the largest budget where it has a result."""
    counted = [record for record in records if record.set_aside is None]
    found: dict[str, TrialRecord] = {}
    for record in established(counted).values():
        before = found.get(record.proposal.family)
        if before is None or _standing(record) > _standing(before):
            found[record.proposal.family] = record
    return {family: record.proposal for family, record in sorted(found.items())}


def _standing(record: TrialRecord) -> tuple[float, float]:
    return cell_of(record.proposal).train_flops, -loss_of(record)


def require_larger(
    experiment: Experiment, records: Sequence[TrialRecord], flops: float, *, num_seeds: int
) -> None:
    """Raise `RequestError` where no forecast at these FLOPs would be one."""
    if num_seeds < 1:
        raise RequestError(f"--confirm-seeds takes a whole number from 1, got {num_seeds}")
    if experiment.budget.solve != "tokens":
        raise RequestError(
            f"--confirm chooses a shape and solves for its tokens, which needs budget.solve = "
            f"'tokens', got {experiment.budget.solve!r}"
        )
    budgets = [cell_of(r.proposal).train_flops for r in records if r.is_result]
    if not budgets:
        raise RequestError(
            f"--confirm predicts from results, but sweep {experiment.name!r} has none yet; run "
            f"`isoflop sweep` without it first"
        )
    if not flops > max(budgets):
        raise RequestError(
            f"--confirm takes more FLOPs than the largest budget that has results, "
            f"{max(budgets):.4g}, got {flops:.4g}"
        )


def candidates(
    experiment: Experiment,
    ground: Ground,
    leader: Proposal,
    flops: float,
) -> list[Candidates]:
    """Shapes on the budget's surface that fit the limits and that a law may describe, by depth."""
    cell = Cell(arm=leader.arm, budget=replace(leader.budget, train_flops=flops))
    axes = cell_axes(experiment, leader.arm)
    found = []
    for depth in axes.get("num_layers", (leader.axes.get("num_layers", 1),)):
        shapes = []
        for width in axes.get("d_model", (leader.axes["d_model"],)):
            point = leader.axes | {"num_layers": depth, "d_model": width}
            try:
                shape = resolve(experiment, ground, cell, point, purpose="search")
                require_within_limits(experiment, shape)
            except InfeasibleError:
                continue
            if why_no_law_uses(shape.config, num_train_tokens=ground.num_train_tokens) is None:
                shapes.append(shape)
        if shapes:
            shapes.sort(key=lambda shape: shape.config.architecture.d_model)
            found.append(Candidates(num_layers=int(depth), shapes=tuple(shapes)))
    return found


def at_best_rate(
    experiment: Experiment, shape: Proposal, records: Sequence[TrialRecord]
) -> Proposal:
    """A shape at the rate believed best for it; where rates were not examined, at its leader's."""
    counted = [record for record in records if record.set_aside is None]
    results = [record for record in counted if record.is_result]
    if shape.family not in examined_budgets(results):
        return shape
    belief = RateModels().of(shape.arm, counted).at(shape)
    return at_rate(experiment, shape, belief.multiplier)
