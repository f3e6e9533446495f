"""Which change of an experiment is the cheapest that is expected to make its laws stand?

Tried are sizes chosen for laws, narrower and wider models, more trials, further budgets and more
text, alone and together. What each would run is approximated by the sizes that a sweep for a law
begins with, without its rounds for rates and without what its design adds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analysis.sweep.expectations import WIDE, LawExpectation, expectations
from search.asked.experiment import Experiment
from search.limits.law_rows import MOST_EPOCHS
from search.propose.candidates import MOST_REPEATS
from search.propose.cell_search import CellSearch
from search.propose.cells import Cell, Ground
from search.propose.coverage import SIZES, SIZES_BETWEEN, log_size
from search.propose.tuning_stages import TunedArm
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord, planned_record

TIMES_TRIALS = (1.0, 2.0, 4.0)
"""Of the experiment's own that are tried."""

WIDTHS = (0.25, 0.5, 1.5, 2.0)
"""Of the smallest (below one) and largest width, what the axis is offered besides."""

MARGIN = 0.9
"""Of `WIDE`: what a plan then says of the changed experiment was up to 9 % wider."""

NARROWEST_HEAD = 8
"""Channels; narrower models have narrower heads."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """An experiment that was changed, and what is expected of it."""

    changes: tuple[str, ...]
    """In the experiment's own words; empty for the experiment as it is, run for its laws."""
    experiment: Experiment
    """As changed."""
    trials: int
    train_flops: float
    """Of all its trials, recorded ones included."""
    laws: tuple[LawExpectation, ...]

    @property
    def standing(self) -> tuple[str, ...]:
        """Of which arms the laws are expected to stand, with the margin that the approximation
        asks for."""
        return tuple(
            law.family
            for law in self.laws
            if law.expected and max(each.relative for each in law.expected) <= MARGIN * WIDE
        )

    @property
    def settles(self) -> bool:
        """Whether every law is expected to stand."""
        return bool(self.laws) and len(self.standing) == len(self.laws)

    @property
    def nearest(self) -> float:
        """Of the law that is nearest to standing, the largest relative half-width."""
        widths = [max(each.relative for each in law.expected) for law in self.laws if law.expected]
        return min(widths, default=math.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "changes": list(self.changes),
            "standing": list(self.standing),
            "trials": self.trials,
            "train_flops": self.train_flops,
        }


def smallest_change(
    experiment: Experiment, ground: Ground, records: Sequence[TrialRecord]
) -> Change | None:
    """The cheapest change that is expected to make most laws stand; where none stands by any, the
    one that comes nearest; None where no change can be made.

    ``records``: what is done; it counts with what comes.
    """
    done = [record for record in records if record.is_result]
    kinds = _kinds(experiment, ground, keeps_heads=bool(done))
    largest = [kind.with_trials(max(TIMES_TRIALS), experiment, done) for kind in kinds]
    if ground.num_train_tokens is not None and not any(each.settles for each in largest):
        unlimited = replace(ground, num_train_tokens=None)
        kinds += _kinds(experiment, unlimited, keeps_heads=bool(done))
        largest += [
            kind.with_trials(max(TIMES_TRIALS), experiment, done)
            for kind in kinds
            if kind.ground is unlimited
        ]
    most = max((len(each.standing) for each in largest), default=0)
    if not most:
        return min(largest, key=lambda each: (each.nearest, each.train_flops), default=None)
    best = min(
        (each for each in largest if len(each.standing) == most),
        key=lambda each: each.train_flops,
    )
    for kind, at_most in zip(kinds, largest, strict=True):
        if len(at_most.standing) < most:
            continue
        for times in TIMES_TRIALS[:-1]:
            if kind.train_flops(times, experiment, done) >= best.train_flops:
                break
            fewer = kind.with_trials(times, experiment, done)
            if len(fewer.standing) == most:
                best = fewer
                break
    return best


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """An experiment with other axes, budgets or text, and all that it could run for its laws."""

    words: tuple[str, ...]
    experiment: Experiment
    ground: Ground
    runs: tuple[Proposal, ...]
    """In their order."""

    def _first(
        self, times: float, asked: Experiment, done: Sequence[TrialRecord]
    ) -> list[Proposal]:
        """What so many times the trials asked for leave for a law besides what is done."""
        changed = self._of_size(times, asked)
        replicates = changed.replicates_per_budget * len(changed.budget.train_flops)
        return list(self.runs[: max(0, changed.trials - len(done) - replicates)])

    def _of_size(self, times: float, asked: Experiment) -> Experiment:
        return self.experiment.model_copy(update={"trials": round(times * asked.trials)})

    def train_flops(self, times: float, asked: Experiment, done: Sequence[TrialRecord]) -> float:
        """Of all its trials, with so many times those asked for."""
        proposals = [each.proposal for each in done] + self._first(times, asked, done)
        return float(sum(each.train_flops for each in proposals))

    def with_trials(self, times: float, asked: Experiment, done: Sequence[TrialRecord]) -> Change:
        """The change with so many times the trials asked for, and what is expected of it."""
        runs, changed = self._first(times, asked, done), self._of_size(times, asked)
        words = self.words + ((f"trials = {changed.trials}",) if times > 1 else ())
        if self.ground.num_train_tokens is None:
            tokens = math.ceil(max((run.config.tokens for run in runs), default=0) / MOST_EPOCHS)
            words += (f"a text of at least {tokens:.3g} tokens",)
        records = [*done, *(planned_record(run, number=n) for n, run in enumerate(runs, len(done)))]
        tokens_there = self.ground.num_train_tokens
        laws = expectations(records, num_train_tokens=tokens_there) if records else []
        return Change(
            changes=words,
            experiment=changed,
            trials=len(records),
            train_flops=self.train_flops(times, asked, done),
            laws=tuple(laws),
        )


def _kinds(experiment: Experiment, ground: Ground, *, keeps_heads: bool) -> list[_Kind]:
    """The experiment run for its laws, as it is and with other widths and budgets."""
    shapes: dict[tuple[object, ...], list[Proposal]] = {}
    found = []
    for widths, budgets in itertools.product(
        _widths(experiment, keeps_heads), _budgets(experiment)
    ):
        changes: dict[str, Any] = {"search": {"goal": "law"}}
        words: tuple[str, ...] = () if experiment.search.goal == "law" else ('search.goal = "law"',)
        for said, change in (widths, budgets):
            words += said
            changes = _merged(changes, change)
        try:
            changed = Experiment.model_validate(_merged(experiment.model_dump(), changes))
        except ValueError:  # what another setting forbids is no change to offer
            continue
        most = round(max(TIMES_TRIALS) * experiment.trials)
        runs = tuple(itertools.islice(_first_runs(changed, ground, shapes), most))
        found.append(_Kind(words=words, experiment=changed, ground=ground, runs=runs))
    return found


def _merged(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with others put in, level by level."""
    merged = dict(fields)
    for name, value in changes.items():
        inner = merged.get(name)
        if isinstance(value, dict) and isinstance(inner, dict):
            merged[name] = _merged(inner, value)
        else:
            merged[name] = value
    return merged


def _widths(
    experiment: Experiment, keeps_heads: bool
) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """The axis as it is, and with narrower and wider models."""
    own = sorted(experiment.axes.d_model)
    head = experiment.architecture.head_dim
    narrowest = max(NARROWEST_HEAD, int(own[0] * min(WIDTHS)))
    new_head = head
    while not keeps_heads and new_head > NARROWEST_HEAD and new_head > narrowest:
        new_head //= 2
    offered = {
        max(1, round((own[0] if times < 1 else own[-1]) * times / new_head)) * new_head
        for times in WIDTHS
    } - set(own)
    if not offered:
        return [((), {})]
    words = f"axes.d_model also with {', '.join(map(str, sorted(offered)))}"
    change: dict[str, Any] = {"axes": {"d_model": sorted({*own, *offered})}}
    if new_head == head:
        return [((), {}), ((words,), change)]
    change["architecture"] = {"head_dim": new_head}
    return [((), {}), ((words, f"architecture.head_dim = {new_head}"), change)]


def _budgets(experiment: Experiment) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """The budgets as they are, with smaller ones, with a larger one, and with one on each side."""
    own = sorted(map(float, experiment.budget.train_flops))
    low, high = own[0], own[-1]
    further = [(low / 2,), (low / 4, low / 2), (2 * high,), (low / 2, 2 * high)]
    return [((), {})] + [
        (
            (f"budget.train_flops also with {', '.join(f'{flops:.3g}' for flops in more)}",),
            {"budget": {"train_flops": sorted([*own, *more])}},
        )
        for more in further
    ]


def _first_runs(
    experiment: Experiment, ground: Ground, shapes: dict[tuple[object, ...], list[Proposal]]
) -> Iterator[Proposal]:
    """The sizes that a sweep for a law begins with, in turn over its cells; then its other shapes;
    then all of them in further data orders.

    ``shapes`` holds what was found of a cell, under all that decides it.
    """
    search = CellSearch(experiment, ground)
    by_cell: list[list[Proposal]] = []
    for budget in experiment.budget.budgets():
        for arm in experiment.arms:
            cell = Cell(arm=arm, budget=budget)
            turn = round(2 * math.log2(cell.train_flops))  # the same whatever budgets are beside
            axes = search.axes_around(arm, TunedArm())
            key = (cell, *sorted(axes.items()), experiment.architecture.head_dim)
            if key not in shapes:
                offered = search.spread(cell, tuned=TunedArm(), rates=None)
                shapes[key] = _sizes_first(offered, (*SIZES, *SIZES_BETWEEN), turn)
            by_cell.append(shapes[key])
    rows = itertools.chain.from_iterable(itertools.zip_longest(*by_cell))
    runs = [run for run in rows if run is not None]
    yield from runs
    for number in range(1, MOST_REPEATS + 1):
        for run in runs:
            yield _reordered(run, number)


def _reordered(run: Proposal, number: int) -> Proposal:
    """A run in another data order."""
    return replace(run, config=replace(run.config, data_seed=run.config.data_seed + number))


def _sizes_first(offered: Sequence[Proposal], sizes: Sequence[float], turn: int) -> list[Proposal]:
    """One shape of every size, its other axes in turn; then all others."""
    near: dict[float, list[Proposal]] = {size: [] for size in sizes}
    for each in offered:
        nearest = min(sizes, key=lambda size: abs(log_size(each) - math.log(size)))
        near[nearest].append(each)
    first = [mine[(turn + place) % len(mine)] for place, mine in enumerate(near.values()) if mine]
    return first + [each for each in offered if each not in first]


def change_in_words(change: Change, train_flops: float) -> str:
    """The change, what it costs, and what it is beside; ``train_flops`` of the plan as it is."""
    words = "; ".join(change.changes) or 'its runs chosen by size (search.goal = "law")'
    cost = f"{change.trials} trials, {change.train_flops:.3g} training FLOPs"
    if change.standing:
        whose = "every law" if change.settles else "most laws"
        return (
            f"the cheapest change that is expected to make {whose} stand "
            f"({', '.join(change.standing)}): {words}: {cost} (this plan: {train_flops:.3g})"
        )
    return (
        f"no change of sizes, trials (up to {max(TIMES_TRIALS):g} x), text or budgets is "
        f"expected to make any law stand; nearest comes {words}: {cost}, one law with half-widths "
        f"up to {change.nearest:.0%}"
    )
