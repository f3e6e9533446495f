"""Which trial next? A pure function of the experiment and of what is known.

Arms are tuned first where the experiment asks for it. Then cells (one arm at one budget) take
turns: the one with the fewest trials is next. Each starts with its baselines, then its sampler
proposes; a proposal whose identity is known already, that no shape can meet or that breaks a known
limit is passed over for the sampler's next. The last trials check the tuned rates at the largest
budget and repeat the leaders with other seeds.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence

from search.baselines import baselines
from search.caps import committed_flops, flops_cap_reached
from search.cells import (
    Cell,
    cell_axes,
    cell_of,
    changed_fields,
    require_within_limits,
    resolve,
)
from search.cells import Ground as Ground
from search.choice import FAILED_STATES, any_failed, around_leaders, choose
from search.denoised import ArmModels, is_pending
from search.experiment import Experiment
from search.ledger import TrialRecord
from search.limits import graded_limits
from search.replicates import next_replicate, owed_replicates
from search.settings import Sampler
from search.stages import EdgeCheck, Stage, TunedArm, edge_checks, tune
from search.study import CHOOSING_SAMPLERS, AxisValue, CellStudy, Observation
from search.trial import Proposal, Purpose, SearchArm
from search.tuning import RATE, STEP_SCALE, possible_rates, transferred
from spaces.errors import InfeasibleError, RequestError

MAX_ASKS = 200
"""Points asked of a sampler before the grid is searched instead."""

MAX_ADAPTIVE_ASKS = 40
"""The same for samplers that use results, whose asks are slow."""

CAREFUL_CANDIDATES = 16
"""Random points of the start-up among which one is chosen that is unlikely to fail, once any
trial of the arm has failed."""

OFF_BUDGET_EXCESS = 1.0
"""What a sampler is told of a point that no size or number of tokens brings onto the budget."""

MAX_GRID = 20_000
"""Points of a cell's grid that are looked at for one that is new and feasible."""


class Proposer:
    """Proposes the trials of one experiment on one ground."""

    def __init__(self, experiment: Experiment, ground: Ground) -> None:
        """Raises `RequestError` where the validation text is shorter than what is measured on."""
        wanted, exists = experiment.training.eval_sequences, ground.num_validation_sequences
        if wanted > exists:
            raise RequestError(
                f"training.eval_sequences is {wanted}, but the validation text holds {exists} "
                f"sequences of {experiment.architecture.context_length} tokens; lower it or raise "
                f"text.validation_fraction"
            )
        self.experiment = experiment
        self.ground = ground
        self.stopped_by: str | None = None
        """The cap that the last `next` stopped at."""
        self.cells = [
            Cell(arm=arm, budget=budget)
            for budget in experiment.budget.budgets()
            for arm in experiment.arms
        ]
        self._models = ArmModels()
        self._exhausted: set[Cell] = set()
        self._excesses: dict[str, float] = {}
        self._why_not: dict[Cell, str] = {}
        self._baselines: dict[tuple[Cell, tuple[object, ...]], list[Proposal]] = {}

    def next(self, records: Sequence[TrialRecord], *, foresee: bool = False) -> Proposal | None:
        """The next trial, or None: the sweep has all it asks for or all there is, must wait for
        results that decide what comes, or has reached a cap (`stopped_by`).

        ``foresee`` does not wait: it proposes as if what is open turned out as the defaults.
        Raises `RequestError` where no cell of the experiment admits a single trial.
        """
        self.stopped_by = None
        counted = [record for record in records if record.set_aside is None]
        if len(counted) >= self.experiment.trials:
            return None
        known = {record.config_hash for record in records}
        proposal = self._by_stage(counted, known, foresee)
        if proposal is None:
            return None
        limits = self.experiment.limits
        if limits.max_flops is not None:
            committed, cost = committed_flops(records), float(proposal.train_flops)
            self.stopped_by = flops_cap_reached(limits, committed, cost)
        return None if self.stopped_by else proposal

    def depends_on_results(self, proposal: Proposal, records: Sequence[TrialRecord]) -> bool:
        """Whether results still to come would change what is proposed after these records."""
        if proposal.purpose == "replicate":
            return True
        settings = self.experiment.search
        tuned = self.experiment.tuning.learning_rate_multipliers
        if proposal.purpose == "tuning":
            largest = max(cell.train_flops for cell in self.cells)
            checks = cell_of(proposal).train_flops == largest and len(self.cells) > 1
            return checks or bool(self.experiment.tuning.step_scale_inits)
        if tuned:
            return True
        cell = cell_of(proposal)
        before = sum(cell_of(record.proposal) == cell for record in records)
        adapts = settings.sampler in CHOOSING_SAMPLERS and proposal.purpose == "search"
        return adapts and before >= settings.startup_trials

    def why_set_aside(self, record: TrialRecord) -> str | None:
        """Why a recorded trial is no part of the experiment as it is now; None if it is."""
        proposal = record.proposal
        cell = cell_of(proposal)
        if cell not in self.cells:
            return f"{cell.arm} at {cell.budget.train_flops:.3g} FLOPs is no longer asked for"
        allowed = self._allowed_values(cell.arm)
        for name, value in proposal.axes.items():
            if value not in allowed.get(name, ()):
                return f"axes.{name} no longer holds {value}"
        try:
            again = self.resolve(
                cell,
                proposal.axes,
                purpose=proposal.purpose,
                init_seed=proposal.config.init_seed,
                data_seed=proposal.config.data_seed,
            )
        except InfeasibleError as error:
            return f"it no longer fits: {error}"
        if again.config_hash == proposal.config_hash:
            return None
        return "changed since: " + ", ".join(changed_fields(proposal.config, again.config))

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

    # Stages

    def _by_stage(
        self, records: list[TrialRecord], known: set[str], foresee: bool
    ) -> Proposal | None:
        tuned: dict[SearchArm, TunedArm] = {}
        for arm in self.experiment.arms:
            stage = self._tune(arm, records)
            if stage.proposal is not None:
                return stage.proposal
            if stage.tuned is not None:
                tuned[arm] = stage.tuned
            elif foresee:
                tuned[arm] = TunedArm()
        left = self.experiment.trials - len(records)
        checks, repeats = self._owed(records, tuned)
        if left <= len(checks) + len(repeats):
            return self._last_stage(records, known, checks, repeats)
        standing_in = foresee and any(is_pending(record) for record in records)
        found = self._search(records, known, tuned, standing_in)
        if found is None and len(self._exhausted) == len(self.cells):
            return self._last_stage(records, known, checks, repeats)
        return found

    def _tune(self, arm: SearchArm, records: list[TrialRecord]) -> Stage:
        settings = self.experiment.tuning
        if not settings.learning_rate_multipliers:
            return Stage(tuned=TunedArm())
        axes = cell_axes(self.experiment, arm)
        start = self._tuning_start(arm, axes)
        if start is None:
            return Stage(tuned=TunedArm())

        def at(point: dict[str, AxisValue]) -> Proposal | None:
            return self._try(cell_of(start), dict(start.axes) | point, purpose="tuning")

        return tune(settings, at, records, has_step_scale=STEP_SCALE in axes)

    def _tuning_start(
        self, arm: SearchArm, axes: Mapping[str, tuple[AxisValue, ...]]
    ) -> Proposal | None:
        """The arm's baseline at the smallest budget that has one."""
        mine = [cell for cell in self.cells if cell.arm == arm]
        for cell in sorted(mine, key=lambda cell: cell.train_flops):
            for proposal in self._cell_baselines(cell, axes):
                return proposal
        return None

    def _owed(
        self, records: list[TrialRecord], tuned: Mapping[SearchArm, TunedArm]
    ) -> tuple[list[EdgeCheck], list[float]]:
        """Checks of tuned rates at the largest budget, and replicates, that are still to come."""
        budgets = sorted({cell.train_flops for cell in self.cells})
        checks = edge_checks(self.experiment.tuning, tuned, records, largest=budgets[-1])
        per_budget = self.experiment.search.replicates_per_budget
        return checks, owed_replicates(records, budgets, per_budget=per_budget)

    def _last_stage(
        self,
        records: list[TrialRecord],
        known: set[str],
        checks: list[EdgeCheck],
        repeats: list[float],
    ) -> Proposal | None:
        for check in checks:
            leader = check.leader.proposal
            point = dict(leader.axes) | {RATE: check.multiplier}
            proposal = self._try(cell_of(leader), point, purpose="tuning")
            if proposal is not None and proposal.config_hash not in known:
                return proposal
        for budget in repeats:
            found = next_replicate(records, budget, leaders=self.experiment.search.leaders)
            if found is None:
                continue
            original, number = found
            config, cell = original.proposal.config, cell_of(original.proposal)
            for seed in itertools.count(number):
                proposal = resolve(
                    self.experiment,
                    self.ground,
                    cell,
                    original.proposal.axes,
                    purpose="replicate",
                    init_seed=config.init_seed + seed,
                    data_seed=config.data_seed + seed,
                )
                if proposal.config_hash not in known:
                    return proposal
        return None

    # Search

    def _search(
        self,
        records: list[TrialRecord],
        known: set[str],
        tuned: Mapping[SearchArm, TunedArm],
        standing_in: bool,
    ) -> Proposal | None:
        """The next trial of the cell with the fewest; ``standing_in`` for one that results still
        to come would decide, a random point is good enough."""
        sampler = self.experiment.search.sampler
        if standing_in and sampler in CHOOSING_SAMPLERS:
            sampler = "random"
        by_cell: dict[Cell, list[TrialRecord]] = {cell: [] for cell in self.cells}
        for record in records:
            by_cell[cell_of(record.proposal)].append(record)
        ready = [cell for cell in self.cells if cell.arm in tuned and cell not in self._exhausted]
        for cell in sorted(ready, key=lambda cell: len(by_cell[cell])):
            proposal = self._propose(
                cell, records, by_cell[cell], known, tuned=tuned[cell.arm], sampler=sampler
            )
            if proposal is not None:
                return proposal
            self._exhausted.add(cell)
        if not records and self._why_not:
            reasons = sorted(set(self._why_not.values()))
            raise RequestError(f"no trial fits this experiment: {reasons[0]}")
        return None

    def _propose(
        self,
        cell: Cell,
        records: list[TrialRecord],
        mine: list[TrialRecord],
        known: set[str],
        *,
        tuned: TunedArm,
        sampler: Sampler,
    ) -> Proposal | None:
        """The cell's baseline, or the best of its candidates that are new and feasible."""
        axes = self._axes(cell.arm, tuned)
        for proposal in self._cell_baselines(cell, axes):
            if proposal.config_hash not in known:
                return proposal
        settings = self.experiment.search
        models = sampler == "tpe" and settings.candidates > 1
        past_startup = len(mine) >= settings.startup_trials
        model = self._models.model(cell.arm, records) if models and past_startup else None
        careful = models and model is None and any_failed(records, cell)
        wanted = 1 if model is None else settings.candidates
        wanted = CAREFUL_CANDIDATES if careful else wanted
        found = self._sampled(cell, axes, mine, known, sampler=sampler, wanted=wanted)
        if model is not None:
            seed = f"{self._seed(cell)}/{len(mine)}"
            near = around_leaders(axes, cell, records, seed=seed)
            found |= self._feasible(cell, near, known)
        if not found:
            return next(iter(self._feasible(cell, _grid(axes), known, limit=1).values()), None)
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
        seen = {frozenset(record.proposal.axes.items()) for record in mine}
        asks = MAX_ADAPTIVE_ASKS if sampler in CHOOSING_SAMPLERS else MAX_ASKS
        for _ in range(MAX_GRID if sampler == "grid" else asks):
            point = study.ask()
            if point is None or len(found) == wanted:
                break
            if frozenset(point.items()) in seen:
                continue
            try:
                proposal = resolve(self.experiment, self.ground, cell, point, purpose="search")
            except InfeasibleError as error:
                self._why_not[cell] = str(error)
                study.refuse(OFF_BUDGET_EXCESS)
                continue
            excess = self._excess(proposal)
            if excess > 0:
                study.refuse(excess)
            elif proposal.config_hash not in known:
                found[proposal.config_hash] = proposal
        return found

    def _feasible(
        self,
        cell: Cell,
        points: Iterator[dict[str, AxisValue]],
        known: set[str],
        *,
        limit: int = MAX_GRID,
    ) -> dict[str, Proposal]:
        """Proposals at points that are new and feasible, by configuration hash."""
        found: dict[str, Proposal] = {}
        for point in itertools.islice(points, MAX_GRID):
            proposal = self._try(cell, point, purpose="search")
            if proposal is not None and proposal.config_hash not in known:
                found[proposal.config_hash] = proposal
                if len(found) == limit:
                    break
        return found

    def _try(
        self, cell: Cell, axes: Mapping[str, AxisValue], *, purpose: Purpose
    ) -> Proposal | None:
        """The proposal at a point of the axes; None, and the reason kept, where none fits."""
        try:
            return self.resolve(cell, axes, purpose=purpose)
        except InfeasibleError as error:
            self._why_not[cell] = str(error)
            return None

    def _excess(self, proposal: Proposal) -> float:
        """How far a proposal lies beyond the known limits, ln(value / limit); negative within."""
        key = proposal.config_hash
        if key not in self._excesses:
            limits, least = self.experiment.limits, self.experiment.training.min_steps
            grades = graded_limits(limits, proposal.config, min_steps=least)
            self._excesses[key] = max(grades.values())
        return self._excesses[key]

    # Axes

    def _axes(self, arm: SearchArm, tuned: TunedArm) -> dict[str, tuple[AxisValue, ...]]:
        """The arm's axes, around what was tuned."""
        axes = cell_axes(self.experiment, arm)
        axes[RATE] = transferred(axes[RATE], tuned.learning_rate_multiplier)
        if tuned.step_scale_init is not None:
            axes[STEP_SCALE] = (tuned.step_scale_init,)
        return axes

    def _allowed_values(self, arm: SearchArm) -> dict[str, set[AxisValue]]:
        """What a recorded trial's axes may hold."""
        axes = cell_axes(self.experiment, arm)
        allowed: dict[str, set[AxisValue]] = {name: set(values) for name, values in axes.items()}
        settings = self.experiment.tuning
        if settings.learning_rate_multipliers:
            allowed[RATE] |= possible_rates(settings, axes[RATE])
            if STEP_SCALE in allowed:
                allowed[STEP_SCALE] |= set(settings.step_scale_inits)
        return allowed

    def _cell_baselines(
        self, cell: Cell, axes: Mapping[str, tuple[AxisValue, ...]]
    ) -> list[Proposal]:
        key = (cell, tuple(axes.items()))
        if key not in self._baselines:
            self._baselines[key] = baselines(
                cell.arm, axes, lambda point: self._try(cell, point, purpose="baseline")
            )
        return self._baselines[key]

    def _seed(self, cell: Cell) -> int:
        text = f"{self.experiment.seeds.search}/{cell.arm}/{cell.budget}"
        return zlib.crc32(text.encode())


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
