"""Which trial next in one cell? Its baselines, then the best of what a sampler proposes."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping

from search.asked.experiment import Experiment
from search.asked.settings import Sampler
from search.belief.arm_models import ArmModels
from search.belief.rates import MOST_SHARED_NATS, RATE, RateModel, shared_rate_nats
from search.limits.feasibility import graded_limits
from search.limits.law_rows import why_no_law_uses
from search.propose.acquisition import any_failed, around_leaders, choose
from search.propose.baselines import baselines
from search.propose.cells import (
    Cell,
    Ground,
    at_rate,
    cell_axes,
    cell_of,
    require_within_limits,
    resolve,
)
from search.propose.coverage import (
    SIZES,
    at_size,
    covers,
    missing_sizes,
    spread,
)
from search.propose.samplers import CHOOSING_SAMPLERS, CellStudy, Observation
from search.propose.tuning import STEP_SCALE
from search.propose.tuning_stages import TunedArm
from search.record.ledger import TrialRecord
from search.record.trial import FAILED_STATES, Proposal, Purpose
from search.record.trial_records import is_pending, loss_of
from spaces.axes import AxisValue
from spaces.errors import InfeasibleError
from spaces.parameters import count_parameters

MAX_ASKS = 200
"""Points asked of a sampler before the grid is searched instead."""

MAX_ADAPTIVE_ASKS = 40
"""The same for samplers that use results, whose asks are slow."""

CAREFUL_CANDIDATES = 16
"""Random points of the start-up among which one is chosen that is unlikely to fail, once any
trial of the arm has failed."""

OFF_BUDGET_EXCESS = 1.0
"""What a sampler is told of a point that no size or number of tokens brings onto the budget."""

MOST_TOKENS_PER_PARAMETER = 400.0
"""A shape that would see more is far from any budget's best, and is not trained on."""
MAX_GRID = 20_000
"""Points of a cell's grid that are looked at for one that is new and feasible."""


class CellSearch:
    """Proposes the trials of one cell at a time; what it remembers only saves time."""

    def __init__(self, experiment: Experiment, ground: Ground) -> None:
        self.experiment = experiment
        self.ground = ground
        self.why_not: dict[Cell, str] = {}
        """Why the last point of a cell that did not fit did not."""
        self._models = ArmModels()
        self._excesses: dict[str, float] = {}
        self._budgets = experiment.budget.budgets()
        self._sizes: dict[tuple[object, ...], Proposal | None] = {}
        self._spreads: dict[tuple[object, ...], list[Proposal]] = {}
        self._known_baselines: dict[tuple[Cell, tuple[object, ...]], list[Proposal]] = {}

    def resolve(
        self,
        cell: Cell,
        axes: Mapping[str, AxisValue],
        *,
        purpose: Purpose,
        init_seed: int | None = None,
        data_seed: int | None = None,
    ) -> Proposal:
        """Axis values to a configuration within the limits. Raises `InfeasibleError`."""
        proposal = resolve(
            self.experiment,
            self.ground,
            cell,
            axes,
            purpose=purpose,
            init_seed=init_seed,
            data_seed=data_seed,
        )
        require_within_limits(self.experiment, proposal)
        return proposal

    def baseline(
        self,
        cell: Cell,
        mine: list[TrialRecord],
        known: set[str],
        *,
        tuned: TunedArm,
        rates: RateModel | None,
    ) -> Proposal | None:
        """The next of the cell's baselines, at the rate believed best; None where all are known.

        A baseline is a shape: it is known at whatever rate it was trained, and where another arm of
        the family has asked for the same.
        """
        tried = {_shape(record.proposal.axes) for record in mine}
        for shape in self.baselines(cell, self.axes_around(cell.arm, tuned)):
            if _shape(shape.axes) not in tried:
                proposal = self._at_best_rate(shape, rates)
                if proposal.config_hash not in known:
                    return proposal
        return None

    def covering(
        self,
        cell: Cell,
        records: list[TrialRecord],
        mine: list[TrialRecord],
        known: set[str],
        *,
        tuned: TunedArm,
        rates: RateModel | None,
    ) -> Proposal | None:
        """A size that a law needs of the cell and that no trial has; None where all are there.

        Of a sweep that looks for the best as well, at most half of the cell's trials. Where budgets
        share trunks, a shape that was trained at a smaller one is as good as another and cheaper.
        """
        goal, trials = self.experiment.search.goal, self.experiment.trials
        each = trials / (len(self.experiment.budget.train_flops) * len(self.experiment.arms))
        if goal == "best" or (goal == "both" and len(mine) >= each / 2):
            return None
        axes = self.axes_around(cell.arm, tuned)
        for size in missing_sizes([record.proposal for record in mine], SIZES):
            if self.experiment.budget.trunk:
                longer = self._longer(cell, records, known, any_seed=False)
                branch = next((each for each in longer if covers(each, size)), None)
                if branch is not None:
                    return branch
            key = (cell, size, *sorted(axes.items()))
            if key not in self._sizes:
                self._sizes[key] = at_size(
                    size,
                    axes,
                    lambda point: self.attempt(cell, point, purpose="search"),
                    turn=self._budgets.index(cell.budget) + SIZES.index(size),
                    num_train_tokens=self.ground.num_train_tokens,
                )
            found = self._sizes[key]
            proposal = found and self._at_best_rate(found, rates)
            if proposal is not None and proposal.config_hash not in known:
                return proposal
        return None

    def spread(self, cell: Cell, *, tuned: TunedArm, rates: RateModel | None) -> list[Proposal]:
        """Shapes of all sizes that a law may use, with all values of the other axes in turn."""
        axes = self.axes_around(cell.arm, tuned)
        key = (cell, *sorted(axes.items()))
        if key not in self._spreads:
            self._spreads[key] = spread(
                axes,
                lambda point: self.attempt(cell, point, purpose="search"),
                num_train_tokens=self.ground.num_train_tokens,
            )
        return [self._at_best_rate(shape, rates) for shape in self._spreads[key]]

    def branch(
        self, cell: Cell, records: list[TrialRecord], known: set[str], *, foresee: bool
    ) -> Proposal | None:
        """A trial of a smaller budget trained on: the one of the lowest loss that this cell lacks.

        It costs the tokens beyond its trunk alone. ``foresee`` takes trials that wait for results.
        """
        done = [each for each in records if each.is_result or (foresee and is_pending(each))]
        return next(self._longer(cell, done, known), None)

    def _longer(
        self, cell: Cell, records: list[TrialRecord], known: set[str], *, any_seed: bool = True
    ) -> Iterator[Proposal]:
        """Trials of smaller budgets at this one, the lowest loss first, where they are new.

        Shapes that would see more than `MOST_TOKENS_PER_PARAMETER`, or for which one rate might
        cost too much, are left where they are. Without ``any_seed`` none is a replicate.
        """
        smaller = [
            record
            for record in records
            if record.proposal.arm == cell.arm
            and cell_of(record.proposal).train_flops < cell.train_flops
            and (is_pending(record) or record.is_result)
            and (any_seed or record.proposal.purpose != "replicate")
        ]
        shortest: dict[tuple[object, ...], int] = {}
        for record in smaller:
            trunk, tokens = _branch(record.proposal), record.proposal.config.tokens
            shortest[trunk] = min(shortest.get(trunk, tokens), tokens)
        for record in sorted(smaller, key=_loss_or_last):
            config, purpose = record.proposal.config, record.proposal.purpose
            try:
                longer = self.resolve(
                    cell,
                    record.proposal.axes,
                    purpose="replicate" if purpose == "replicate" else "search",
                    init_seed=config.init_seed,
                    data_seed=config.data_seed,
                )
            except InfeasibleError as error:
                self.why_not[cell] = str(error)
                continue
            tokens = longer.config.tokens
            parameters = count_parameters(longer.config.architecture).total
            costs = shared_rate_nats(tokens / shortest[_branch(record.proposal)])
            is_near = tokens <= MOST_TOKENS_PER_PARAMETER * parameters
            if is_near and costs <= MOST_SHARED_NATS and longer.config_hash not in known:
                yield longer

    def propose(
        self,
        cell: Cell,
        records: list[TrialRecord],
        mine: list[TrialRecord],
        known: set[str],
        *,
        tuned: TunedArm,
        rates: RateModel | None,
        sampler: Sampler,
    ) -> Proposal | None:
        """The best of the sampler's candidates that are new and feasible."""
        axes = self.axes_around(cell.arm, tuned)
        settings = self.experiment.search
        models = sampler == "tpe" and settings.candidates > 1
        past_startup = len(mine) >= settings.startup_trials
        model = self._models.model(cell.arm, records) if models and past_startup else None
        careful = models and model is None and any_failed(records, cell)
        wanted = 1 if model is None else settings.candidates
        wanted = CAREFUL_CANDIDATES if careful else wanted
        found = self._sampled(cell, axes, mine, known, rates=rates, sampler=sampler, wanted=wanted)
        if model is not None:
            seed = f"{self._seed(cell)}/{len(mine)}"
            near = around_leaders(axes, cell, records, seed=seed)
            found |= self._feasible(cell, near, known, rates=rates)
        if not found:
            grid = self._feasible(cell, _grid(axes), known, rates=rates, limit=1)
            return next(iter(grid.values()), None)
        if model is None and not careful:
            return next(iter(found.values()))
        return choose(list(found.values()), cell, records, model=model, models=self._models)

    def _sampled(
        self,
        cell: Cell,
        axes: Mapping[str, tuple[AxisValue, ...]],
        mine: list[TrialRecord],
        known: set[str],
        *,
        rates: RateModel | None,
        sampler: Sampler,
        wanted: int,
    ) -> dict[str, Proposal]:
        """New and feasible proposals of the sampler, by configuration hash."""
        settings = self.experiment.search
        study = CellStudy(
            axes,
            [_observe(record, self._excess(record.proposal)) for record in mine],
            sampler=sampler,
            startup_trials=settings.startup_trials,
            seed=self._seed(cell),
        )
        found: dict[str, Proposal] = {}
        seen = {_point(record.proposal.axes, rates) for record in mine}
        asks = MAX_ADAPTIVE_ASKS if sampler in CHOOSING_SAMPLERS else MAX_ASKS
        for _ in range(MAX_GRID if sampler == "grid" else asks):
            point = study.ask()
            if point is None or len(found) == wanted:
                break
            if _point(point, rates) in seen:
                continue
            try:
                proposal = resolve(self.experiment, self.ground, cell, point, purpose="search")
            except InfeasibleError as error:
                self.why_not[cell] = str(error)
                study.refuse(OFF_BUDGET_EXCESS)
                continue
            proposal = self._at_best_rate(proposal, rates)
            excess = self._excess(proposal)
            if excess > 0:
                study.refuse(excess)
            elif self._is_wanted(proposal, known):
                found[proposal.config_hash] = proposal
        return found

    def _is_wanted(self, proposal: Proposal, known: set[str]) -> bool:
        """Whether a proposal is new and, in a sweep for laws alone, of use to them."""
        if proposal.config_hash in known:
            return False
        tokens = self.ground.num_train_tokens
        return self.experiment.search.goal != "law" or (
            why_no_law_uses(proposal.config, num_train_tokens=tokens) is None
        )

    def _feasible(
        self,
        cell: Cell,
        points: Iterator[dict[str, AxisValue]],
        known: set[str],
        *,
        rates: RateModel | None,
        limit: int = MAX_GRID,
    ) -> dict[str, Proposal]:
        """Proposals at points that are new and feasible, by configuration hash."""
        found: dict[str, Proposal] = {}
        for point in itertools.islice(points, MAX_GRID):
            proposal = self.attempt(cell, point, purpose="search")
            proposal = proposal and self._at_best_rate(proposal, rates)
            if proposal is not None and self._is_wanted(proposal, known):
                found[proposal.config_hash] = proposal
                if len(found) == limit:
                    break
        return found

    def attempt(
        self, cell: Cell, axes: Mapping[str, AxisValue], *, purpose: Purpose
    ) -> Proposal | None:
        """The proposal at a point of the axes; None, and the reason kept, where none fits."""
        try:
            return self.resolve(cell, axes, purpose=purpose)
        except InfeasibleError as error:
            self.why_not[cell] = str(error)
            return None

    def _excess(self, proposal: Proposal) -> float:
        """How far a proposal lies beyond the known limits, ln(value / limit); negative within."""
        key = proposal.config_hash
        if key not in self._excesses:
            limits, least = self.experiment.limits, self.experiment.training.min_steps
            grades = graded_limits(limits, proposal.config, min_steps=least)
            self._excesses[key] = max(grades.values())
        return self._excesses[key]

    def _at_best_rate(self, proposal: Proposal, rates: RateModel | None) -> Proposal:
        """The proposal at the rate believed best for its shape, where arms are tuned."""
        if rates is None:
            return proposal
        return at_rate(self.experiment, proposal, rates.at(proposal).multiplier)

    def axes_around(self, arm: str, tuned: TunedArm) -> dict[str, tuple[AxisValue, ...]]:
        """The arm's axes, around what was tuned: a tuned arm's rate is no axis of its search."""
        axes = cell_axes(self.experiment, arm)
        if tuned.tuned:
            axes[RATE] = (1.0,)
        if tuned.step_scale_init is not None:
            axes[STEP_SCALE] = (tuned.step_scale_init,)
        return axes

    def baselines(self, cell: Cell, axes: Mapping[str, tuple[AxisValue, ...]]) -> list[Proposal]:
        key = (cell, tuple(axes.items()))
        if key not in self._known_baselines:
            self._known_baselines[key] = baselines(
                cell.arm, axes, lambda point: self.attempt(cell, point, purpose="baseline")
            )
        return self._known_baselines[key]

    def _seed(self, cell: Cell) -> int:
        text = f"{self.experiment.seeds.search}/{cell.arm}/{cell.budget}"
        return zlib.crc32(text.encode())


def _branch(proposal: Proposal) -> tuple[object, ...]:
    """What a trial has in common with those of its trunk."""
    config = proposal.config
    return (frozenset(proposal.axes.items()), config.init_seed, config.data_seed)


def _loss_or_last(record: TrialRecord) -> float:
    """The loss; of a trial without one, more than any."""
    return loss_of(record) if record.is_result else math.inf


def _shape(axes: Mapping[str, AxisValue]) -> frozenset[tuple[str, AxisValue]]:
    """A point without what tuning sets."""
    return frozenset((k, value) for k, value in axes.items() if k not in (RATE, STEP_SCALE))


def _point(
    axes: Mapping[str, AxisValue], rates: RateModel | None
) -> frozenset[tuple[str, AxisValue]]:
    """A point; without its rate where that is chosen for it."""
    return frozenset((k, value) for k, value in axes.items() if rates is None or k != RATE)


def _observe(record: TrialRecord, excess: float) -> Observation:
    """A record as the study sees it."""
    axes, outcome = record.proposal.axes, record.outcome
    if record.is_result and outcome is not None:
        return Observation(axes=axes, loss=outcome.loss_nats, excess=excess)
    if record.state == "pruned":
        curve = {p.step: p.val_loss_nats for p in record.curve if p.val_loss_nats is not None}
        return Observation(axes=axes, loss=None, excess=excess, pruned_losses=curve)
    failure = _severity(record) if record.state in FAILED_STATES else -1.0
    return Observation(axes=axes, loss=None, excess=excess, failure=failure)


def _severity(record: TrialRecord) -> float:
    """How badly a trial failed: 2 at its first step, near 1 at its last."""
    done = record.outcome.steps if record.outcome else 0
    return 2.0 - min(1.0, done / record.proposal.config.num_steps)


def _grid(axes: Mapping[str, tuple[AxisValue, ...]]) -> Iterator[dict[str, AxisValue]]:
    """The grid in an order that spreads: a stride coprime to its size."""
    sizes = [len(values) for values in axes.values()]
    total = math.prod(sizes)
    stride = next(s for s in range(int(total * 0.618) or 1, total + 2) if math.gcd(s, total) == 1)
    for step in range(total):
        position, point = step * stride % total, {}
        for (name, values), size in zip(axes.items(), sizes, strict=True):
            position, index = divmod(position, size)
            point[name] = values[index]
        yield point
