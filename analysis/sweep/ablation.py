"""What does each choice of an ablation do? Losses and routes beside the base, seed by seed.

A difference is that of two runs with the same seeds, so that what a seed does to both is none. Its
interval is Student's over seeds; which differences are told apart is corrected for how many are
looked at (Holm 1979, Scand. J. Stat. 6, 65).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from search.asked.experiment import Experiment
from search.propose.ablation import AS_IT_IS, base_point, varied
from search.propose.cells import cell_axes
from search.record.ledger import Ledger
from search.record.numbers import outcome_numbers
from search.record.trial_records import TrialRecord, loss_of
from spaces.errors import RequestError
from spaces.shown import Block, Shown, Table

ROUTES = ("mean_gate_entropy_nats", "mean_deep_share", "collapsed_layers_share")
"""What is shown of routes besides the loss, as means over layers and seeds."""

LEVEL = 0.05
"""Over all variants together."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One choice, over its seeds."""

    arm: str
    train_flops: float
    varied: str
    """The axis and its value; the base is as it is."""
    num_seeds: int
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
    return ablation_of(Experiment.model_validate_json(sweep.experiment_json), records)


def ablation_of(experiment: Experiment, records: Sequence[TrialRecord]) -> Ablation:
    """The same from records. Raises `RequestError` without a result of a base."""
    groups: dict[tuple[str, float, str], dict[int, TrialRecord]] = {}
    for record in records:
        if record.is_result and record.set_aside is None:
            arm, budget = record.proposal.arm, float(record.proposal.budget.train_flops or 0)
            base = base_point(arm, cell_axes(experiment, arm))
            key = (arm, budget, varied(record.proposal.axes, base))
            groups.setdefault(key, {})[record.proposal.config.data_seed] = record
    if not any(what == AS_IT_IS for *_, what in groups):
        raise RequestError(
            f"{experiment.name} has no result of the base that choices are set beside; an ablation "
            f'is a sweep with search.goal = "ablation" (as gate_ablation)'
        )
    order = sorted(groups, key=lambda key: (key[0], key[1], key[2] != AS_IT_IS))
    rows = [_variant(*key, groups[key], groups.get((*key[:2], AS_IT_IS), {})) for key in order]
    told = _told_apart([p for _, p in rows])
    variants = [
        Variant(**(vars(row) | {"differs": None if p is None else is_told}))
        for (row, p), is_told in zip(rows, told, strict=True)
    ]
    return Ablation(name=experiment.name, variants=tuple(variants))


def _variant(
    arm: str,
    budget: float,
    what: str,
    mine: Mapping[int, TrialRecord],
    base: Mapping[int, TrialRecord],
) -> tuple[Variant, float | None]:
    """A row, and the chance of such a difference where there is none."""
    common = [] if what == AS_IT_IS else sorted(mine.keys() & base.keys())
    differences = [loss_of(mine[seed]) - loss_of(base[seed]) for seed in common]
    mean = fmean(differences) if differences else None
    interval, chance = _interval(differences)
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
        loss_nats=fmean(loss_of(record) for record in mine.values()),
        num_pairs=len(common),
        difference_nats=mean,
        interval=interval,
        differs=None,
        routes=routes,
    )
    return row, chance


def _interval(differences: Sequence[float]) -> tuple[tuple[float, float] | None, float | None]:
    """Student's interval of the mean, and the two-sided chance of one as far from 0."""
    from scipy.stats import t

    if len(differences) < 2:
        return None, None
    mean, freedom = fmean(differences), len(differences) - 1
    error = stdev(differences) / math.sqrt(len(differences))
    half = float(t.ppf(0.975, freedom)) * error
    chance = 0.0 if error == 0 else float(2 * t.sf(abs(mean) / error, freedom))
    return (mean - half, mean + half), 1.0 if mean == 0 else chance


def _told_apart(chances: Sequence[float | None]) -> list[bool]:
    """Holm's step-down over those that have one."""
    ranked = sorted((p, place) for place, p in enumerate(chances) if p is not None)
    told = [False] * len(chances)
    for rank, (chance, place) in enumerate(ranked):
        if chance * (len(ranked) - rank) > LEVEL:
            break
        told[place] = True
    return told
