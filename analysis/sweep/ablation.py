"""What does each choice of an ablation do? Losses and routes beside the base, seed by seed.

A difference is that of two runs with the same seeds, so that what a seed does to both is none. Its
interval is Student's over seeds; which differences are told apart is corrected for how many are
looked at (Holm 1979, Scand. J. Stat. 6, 65).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import ValidationError

from analysis.solve.told_apart import LEVEL, Mean, mean_of, told_apart
from search.asked.experiment import Experiment, describe_errors
from search.propose.ablation import AS_IT_IS, base_point, varied
from search.propose.cells import cell_axes
from search.record.ledger import Ledger
from search.record.numbers import outcome_numbers
from search.record.trial import FAILED_STATES
from search.record.trial_records import TrialRecord, loss_of
from spaces.errors import RequestError
from spaces.shown import Block, Shown, Table

ROUTES = ("mean_gate_entropy_nats", "mean_deep_share", "collapsed_layers_share")
"""What is shown of routes besides the loss, as means over layers and seeds."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One choice, over its seeds."""

    arm: str
    train_flops: float
    varied: str
    """The axis and its value; the base is as it is."""
    num_seeds: int
    """With a result."""
    num_failed: int
    """Seeds whose run diverged or failed."""
    loss_nats: float
    """Mean over seeds."""
    num_pairs: int
    """Seeds that the base has, too."""
    difference_nats: float | None
    """Loss less the base's, mean over these; None of the base, and without a common seed."""
    interval: tuple[float, float] | None
    """95 %; None with fewer than two common seeds."""
    differs: bool | None
    """Whether it is told apart from the base, corrected over all variants."""
    routes: Mapping[str, float]
    """`ROUTES`, where the model routes."""


@dataclass(frozen=True, kw_only=True)
class Ablation(Shown):
    """All variants of a sweep, the base of each arm and budget first."""

    name: str
    variants: tuple[Variant, ...]

    def blocks(self) -> list[Block]:
        """One row a variant."""
        return [
            Table(
                caption=f"{self.name}: each choice beside the base, by the same seeds; 95 %, "
                f"* told apart at {LEVEL:.0%} over all rows",
                columns=(
                    "arm",
                    "budget (FLOPs)",
                    "choice",
                    "seeds",
                    "loss (nats)",
                    "less base",
                    "interval",
                    "gate entropy",
                    "deep share",
                    "collapsed",
                ),
                rows=tuple(
                    (
                        each.arm,
                        each.train_flops,
                        each.varied + ("*" if each.differs else ""),
                        each.num_seeds,
                        each.loss_nats,
                        each.difference_nats,
                        each.interval and f"{each.interval[0]:+.4f} to {each.interval[1]:+.4f}",
                        *(each.routes.get(name) for name in ROUTES),
                    )
                    for each in self.variants
                ),
            )
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {"experiment": self.name, "variants": [asdict(each) for each in self.variants]}


def ablation(name: str, home: Path) -> Ablation:
    """The ablation of a sweep in a home.

    Raises `RequestError` where the sweep is none, or has no result.
    """
    with contextlib.closing(Ledger(home)) as ledger:
        sweep = ledger.sweep(name)
        records = ledger.trials(name)
    try:
        experiment = Experiment.model_validate_json(sweep.experiment_json)
    except ValidationError as error:
        where = f"the experiment of {name} in the ledger"
        raise RequestError(describe_errors(error, where=where)) from None
    return ablation_of(experiment, records)


def ablation_of(experiment: Experiment, records: Sequence[TrialRecord]) -> Ablation:
    """The same from records. Raises `RequestError` for another sweep, and without a result of a
    base."""
    if experiment.search.goal != "ablation":
        raise RequestError(
            f"{experiment.name} changes several choices at once; an ablation is a sweep with "
            f'search.goal = "ablation" (as gate_ablation)'
        )
    groups: dict[tuple[str, float, str], dict[int, TrialRecord]] = {}
    failed: Counter[tuple[str, float, str]] = Counter()
    for record in records:
        if record.set_aside is None:
            arm, budget = record.proposal.arm, float(record.proposal.budget.train_flops or 0)
            base = base_point(arm, cell_axes(experiment, arm))
            key = (arm, budget, varied(record.proposal.axes, base))
            failed[key] += record.state in FAILED_STATES
            if record.is_result:
                groups.setdefault(key, {})[record.proposal.config.data_seed] = record
    if not any(what == AS_IT_IS for *_, what in groups):
        raise RequestError(
            f"{experiment.name} has no result of the base that choices are set beside yet; "
            f"`isoflop status {experiment.name}` says what became of it"
        )
    order = sorted(groups, key=lambda key: (key[0], key[1], key[2] != AS_IT_IS))
    bases = {key[:2]: groups[key] for key in order if key[2] == AS_IT_IS}
    rows = [_variant(key, groups[key], bases.get(key[:2], {}), failed[key]) for key in order]
    told = told_apart([difference for _, difference in rows])
    variants = [replace(row, differs=differs) for (row, _), differs in zip(rows, told, strict=True)]
    return Ablation(name=experiment.name, variants=tuple(variants))


def _variant(
    key: tuple[str, float, str],
    mine: Mapping[int, TrialRecord],
    base: Mapping[int, TrialRecord],
    num_failed: int,
) -> tuple[Variant, Mean | None]:
    """A row, and its difference to the base."""
    arm, budget, what = key
    common = [] if what == AS_IT_IS else sorted(mine.keys() & base.keys())
    differences = [loss_of(mine[seed]) - loss_of(base[seed]) for seed in common]
    difference = mean_of(differences) if differences else None
    numbers = [outcome_numbers(record.outcome) for record in mine.values()]
    routes = {
        name: fmean(each[name] for each in numbers)
        for name in ROUTES
        if all(name in each for each in numbers)
    }
    row = Variant(
        arm=arm,
        train_flops=budget,
        varied=what,
        num_seeds=len(mine),
        num_failed=num_failed,
        loss_nats=fmean(loss_of(record) for record in mine.values()),
        num_pairs=len(common),
        difference_nats=None if difference is None else difference.value,
        interval=None if difference is None else difference.interval,
        differs=None,
        routes=routes,
    )
    return row, difference
