"""Which trial next? A pure function of the experiment and of what is known.

Arms are tuned first where the experiment asks for it. Then cells (one arm at one budget) take
turns: the one with the fewest trials is next. Each starts with its baselines; two of each budget
are repeated at once, so that its noise is known. Then a cell tries another rate where the best one
is uncertain and that may cost, or its sampler proposes; a proposal whose identity is known already,
that no shape can meet or that breaks a known limit is passed over for the sampler's next. The last
trials check the rates of the leaders at the largest budget and repeat the leaders with other seeds.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from search.asked.experiment import Experiment
from search.belief.rates import RATE, RateModel, RateModels
from search.design.question import GapQuestion, Question
from search.limits.caps import (
    committed_flops,
    flops_cap_reached,
    hours_cap_reached,
    spent_hours,
    why_not_start,
)
from search.propose.ablation import ablation_points
from search.propose.candidates import new_shapes, repeats
from search.propose.cell_search import CellSearch
from search.propose.cells import (
    Cell,
    cell_axes,
    cell_of,
    changed_fields,
    resolve,
)
from search.propose.cells import Ground as Ground
from search.propose.contract import Capped, Done, Next, Proposed, RunDesign, Waiting
from search.propose.gap_design import GapDesign
from search.propose.law_design import LawDesign
from search.propose.pruning import may_prune, why_prune
from search.propose.rate_trials import next_rate_trial
from search.propose.replicates import first_replicate, next_replicate, owed_replicates
from search.propose.samplers import CHOOSING_SAMPLERS
from search.propose.tuning import STEP_SCALE
from search.propose.tuning_stages import Stage, TunedArm, edge_checks, tune
from search.record.ledger import TrialRecord
from search.record.trial import Proposal
from search.record.trial_records import is_pending
from spaces.axes import AxisValue
from spaces.errors import InfeasibleError, RequestError


class SweepProposer:
    """Proposes the trials of one experiment on one ground."""

    def __init__(
        self, experiment: Experiment, ground: Ground, *, question: Question | None = None
    ) -> None:
        """With a question, the sweep is for it and ends once it is answered.

        Raises `RequestError` where the validation text is shorter than what is measured on, or the
        experiment's law cannot answer the question.
        """
        wanted, exists = experiment.training.eval_sequences, ground.num_validation_sequences
        if wanted > exists:
            raise RequestError(
                f"training.eval_sequences is {wanted}, but the validation text holds {exists} "
                f"sequences of {experiment.architecture.context_length} tokens; lower it or raise "
                f"text.validation_fraction"
            )
        self.experiment = experiment
        self.ground = ground
        self.cells = [
            Cell(arm=arm, budget=budget)
            for budget in experiment.budget.budgets()
            for arm in experiment.arms
        ]
        self._search = CellSearch(experiment, ground)
        self._design = run_design(experiment, ground, question)
        self._is_for_law = experiment.search.goal == "law" or question is not None
        self._rates = RateModels()
        self._tuning: dict[tuple[object, ...], Proposal | None] = {}
        self._exhausted: set[Cell] = set()

    def next(
        self, records: Sequence[TrialRecord], *, at_most: int = 1, foresee: bool = False
    ) -> Next:
        """What comes after these records: one trial at a time.

        Raises `RequestError` where no cell of the experiment admits a single trial.
        """
        counted = [record for record in records if record.set_aside is None]
        if len(counted) >= self.experiment.trials:
            return Done()
        enough = _why_enough(self._design, counted, foresee=foresee)
        if enough is not None:
            return Done(why=enough)
        known = {record.config_hash for record in counted}
        proposal = self._by_stage(counted, known, foresee)
        if proposal is None:
            if any(is_pending(record) for record in counted):
                return Waiting()
            return Done(why=self._why_no_more(len(counted)))
        limits = self.experiment.limits
        if limits.max_flops is not None:
            committed, cost = committed_flops(records), float(proposal.train_flops)
            why = flops_cap_reached(limits, committed, cost)
            if why is not None:
                return Capped(why)
        return Proposed((proposal,))

    def baselines(self, cell: Cell) -> list[Proposal]:
        """What a cell starts with, around the rule's own rates; empty where no shape fits."""
        return self._search.baselines(cell, cell_axes(self.experiment, cell.arm))

    def _why_no_more(self, count: int) -> str:
        """Why fewer trials than asked for exist."""
        reasons = sorted(set(self._search.why_not.values()))
        because = f" (the last that did not fit: {reasons[0]})" if reasons else ""
        return (
            f"{count} of {self.experiment.trials} trials: no further configuration of these axes "
            f"is new and fits its budget{because}"
        )

    def why_prune(self, running: TrialRecord, records: Sequence[TrialRecord]) -> str | None:
        """Why a running trial should end now, by the experiment's rule."""
        return why_prune(self.experiment, running, records)

    def may_prune(self, proposal: Proposal) -> bool:
        """Whether the experiment's rule may end a trial early."""
        return may_prune(self.experiment, proposal)

    def why_not_start(self, proposal: Proposal, records: Sequence[TrialRecord]) -> str | None:
        """The cap of FLOPs that a trial would exceed, besides what runs."""
        return why_not_start(self.experiment.limits, records, proposal)

    def why_stop(self, records: Sequence[TrialRecord], *, now: float) -> str | None:
        """The cap of worker-hours, once it is reached."""
        return hours_cap_reached(self.experiment.limits, spent_hours(records, now=now))

    def depends_on_results(self, proposal: Proposal, records: Sequence[TrialRecord]) -> bool:
        """Whether results still to come would change what is proposed after these records."""
        if self.experiment.search.goal == "ablation":
            return False
        if proposal.purpose == "replicate":
            return True
        settings = self.experiment.search
        tuned = self.experiment.tuning.learning_rate_multipliers
        if proposal.purpose == "tuning":
            return not self._tunes_a_rate(proposal)
        if tuned:
            return True
        cell = cell_of(proposal)
        before = sum(
            cell_of(record.proposal) == cell for record in records if record.set_aside is None
        )
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
            if name in allowed and value not in allowed[name]:
                return f"axes.{name} no longer holds {value}"
        repeats = proposal.purpose == "replicate"  # which has seeds of its own
        try:
            again = self._search.resolve(
                cell,
                proposal.axes,
                purpose=proposal.purpose,
                init_seed=proposal.config.init_seed if repeats else None,
                data_seed=proposal.config.data_seed if repeats else None,
            )
        except InfeasibleError as error:
            return f"it no longer fits: {error}"
        if again.config_hash == proposal.config_hash:
            return None
        return "changed since: " + ", ".join(changed_fields(proposal.config, again.config))

    # Stages

    def _by_stage(
        self, records: list[TrialRecord], known: set[str], foresee: bool
    ) -> Proposal | None:
        if self.experiment.search.goal == "ablation":
            return self._next_of_ablation(known)
        tuned: dict[str, TunedArm] = {}
        for arm in dict.fromkeys(cell.arm for cell in self.cells if self._design.needs(cell)):
            stage = self._tune(arm, records, foresee)
            if stage.proposal is not None:
                return stage.proposal
            if stage.tuned is not None:
                tuned[arm] = stage.tuned
        left = self.experiment.trials - len(records)
        checks, repeats = self._owed(records, tuned)
        if left <= len(checks) + len(repeats):
            return self._last_stage(records, known, checks, repeats)
        standing_in = foresee and any(is_pending(record) for record in records)
        found = self._start_cells(records, known, tuned)
        found = found or self._cover_cells(records, known, tuned)
        found = found or self._search_cells(records, known, tuned, standing_in)
        if found is None and len(self._exhausted) == len(self.cells):
            return self._last_stage(records, known, checks, repeats)
        return found

    def _next_of_ablation(self, known: set[str]) -> Proposal | None:
        """The next variant that is new, seed by seed."""
        found = [
            (cell, point)
            for cell in self.cells
            for point in ablation_points(cell.arm, cell_axes(self.experiment, cell.arm))
        ]
        shapes = [self._search.attempt(cell, point, purpose="search") for cell, point in found]
        there = [shape for shape in shapes if shape is not None]
        if not there:
            raise RequestError(
                f"no trial fits this experiment: {next(iter(self._search.why_not.values()))}"
            )
        again = (self._in_order(shape, n) for n in itertools.count(1) for shape in there)
        return next(each for each in itertools.chain(there, again) if each.config_hash not in known)

    def _tune(self, arm: str, records: list[TrialRecord], foresee: bool) -> Stage:
        settings = self.experiment.tuning
        if not settings.learning_rate_multipliers:
            return Stage(tuned=TunedArm())
        axes = cell_axes(self.experiment, arm)
        start = self._tuning_start(arm, axes)
        if start is None:
            return Stage(tuned=TunedArm())

        def at(point: dict[str, AxisValue]) -> Proposal | None:
            key = (arm, *point.items())
            if key not in self._tuning:
                axes = dict(start.axes) | point
                self._tuning[key] = self._search.attempt(cell_of(start), axes, purpose="tuning")
            return self._tuning[key]

        own = start.axes.get(STEP_SCALE)
        step_scale_init = None if own is None else float(own)
        return tune(settings, at, records, step_scale_init=step_scale_init, foresee=foresee)

    def _tunes_a_rate(self, proposal: Proposal) -> bool:
        """Whether it is of the first stage of its arm's tuning, which no result decides."""
        start = self._tuning_start(proposal.arm, cell_axes(self.experiment, proposal.arm))
        return start is not None and (
            cell_of(start) == cell_of(proposal)
            and dict(start.axes) | {RATE: proposal.axes[RATE]} == proposal.axes
        )

    def _tuning_start(self, arm: str, axes: Mapping[str, tuple[AxisValue, ...]]) -> Proposal | None:
        """The arm's baseline at the smallest budget that has one."""
        mine = [cell for cell in self.cells if cell.arm == arm]
        for cell in sorted(mine, key=lambda cell: cell.train_flops):
            for proposal in self._search.baselines(cell, axes):
                return proposal
        return None

    def _owed(
        self, records: list[TrialRecord], tuned: Mapping[str, TunedArm]
    ) -> tuple[list[Proposal], list[float]]:
        """Checks of tuned rates at the largest budget, and replicates, that are still to come."""
        budgets = sorted({cell.train_flops for cell in self.cells})
        tuning = self.experiment.tuning
        arms = [arm for arm, choice in tuned.items() if choice.tuned and tuning.check_largest]
        checks = edge_checks(
            self._beside_leader,
            arms,
            records,
            largest=budgets[-1],
            starts=self._starts(),
        )
        per_budget = self.experiment.replicates_per_budget
        return checks, owed_replicates(records, budgets, per_budget=per_budget)

    def _beside_leader(
        self, leader: TrialRecord, values: Mapping[str, AxisValue]
    ) -> Proposal | None:
        """A leader with other values of what is tuned."""
        point = dict(leader.proposal.axes) | dict(values)
        return self._search.attempt(cell_of(leader.proposal), point, purpose="tuning")

    def _starts(self) -> list[float]:
        """Starts of the step scales that are tried: those of the tuning and the axis's own."""
        tried = self.experiment.tuning.step_scale_inits
        own = self.experiment.axes.step_scale_init
        return sorted({*tried, *map(float, own)}) if tried else []

    def _last_stage(
        self,
        records: list[TrialRecord],
        known: set[str],
        checks: list[Proposal],
        repeats: list[float],
    ) -> Proposal | None:
        for check in checks:
            return check
        for budget in repeats:
            found = next_replicate(records, budget, leaders=self.experiment.search.leaders)
            if found is not None:
                return self._repeat(*found, known)
        return None

    def _repeat(self, original: TrialRecord, number: int, known: set[str]) -> Proposal:
        """A trial again, with the first seeds from a number on that are new."""
        again = (self._in_order(original.proposal, seed) for seed in itertools.count(number))
        return next(each for each in again if each.config_hash not in known)

    def _in_order(self, shape: Proposal, number: int) -> Proposal:
        """A shape with seeds so many beyond its own."""
        return resolve(
            self.experiment,
            self.ground,
            cell_of(shape),
            shape.axes,
            purpose="replicate",
            init_seed=shape.config.init_seed + number,
            data_seed=shape.config.data_seed + number,
        )

    # Search

    def _cover_cells(
        self, records: list[TrialRecord], known: set[str], tuned: Mapping[str, TunedArm]
    ) -> Proposal | None:
        """Where budgets share trunks: the sizes of the smaller budgets first, which larger ones
        train on."""
        if not self.experiment.budget.trunk:
            return None
        by_cell = self._by_cell(records)
        ready = sorted(
            self._ready(tuned), key=lambda cell: (cell.train_flops, _turns(by_cell[cell]))
        )
        for cell in ready:
            mine, choice = by_cell[cell], tuned[cell.arm]
            rates = self._rates_of(cell, records, choice)
            found = self._search.covering(cell, records, mine, known, tuned=choice, rates=rates)
            if found is not None:
                return found
        return None

    def _start_cells(
        self, records: list[TrialRecord], known: set[str], tuned: Mapping[str, TunedArm]
    ) -> Proposal | None:
        """The first baseline of a cell that has none; then, a budget's first replicates."""
        by_cell = self._by_cell(records)
        for cell in self._ready(tuned):
            if not _turns(by_cell[cell]):
                found = self._baseline(cell, records, by_cell[cell], known, tuned[cell.arm])
                if found is not None:
                    return found
        per_budget = self.experiment.replicates_per_budget
        for budget in sorted({cell.train_flops for cell in self._ready(tuned)}):
            repeat = first_replicate(records, budget, per_budget=per_budget)
            if repeat is not None:
                return self._repeat(*repeat, known)
        return None

    def _search_cells(
        self,
        records: list[TrialRecord],
        known: set[str],
        tuned: Mapping[str, TunedArm],
        standing_in: bool,
    ) -> Proposal | None:
        """The next trial of the cell with the fewest; ``standing_in`` for one that results still
        to come would decide, a random point is good enough."""
        sampler = self.experiment.search.sampler
        if standing_in and sampler in CHOOSING_SAMPLERS:
            sampler = "random"
        by_cell = self._by_cell(records)
        for cell in sorted(self._ready(tuned), key=lambda cell: _turns(by_cell[cell])):
            mine, choice = by_cell[cell], tuned[cell.arm]
            rates = self._rates_of(cell, records, choice)
            proposal = self._rate_trial(mine, known, rates) or self._search.covering(
                cell, records, mine, known, tuned=choice, rates=rates
            )
            if proposal is not None:
                return proposal
            if self._is_for_law:
                continue
            proposal = (
                self._search.baseline(cell, mine, known, tuned=choice, rates=rates)
                or (
                    self._search.branch(cell, records, known, foresee=standing_in)
                    if self.experiment.budget.trunk
                    else None
                )
                or self._search.propose(
                    cell, records, mine, known, tuned=choice, rates=rates, sampler=sampler
                )
            )
            if proposal is not None:
                return proposal
            self._exhausted.add(cell)
        if self._is_for_law:
            designed = self._by_design(records, known, tuned)
            if designed is not None:
                return designed
            self._exhausted.update(self.cells)
        if not records and self._search.why_not:
            reasons = sorted(set(self._search.why_not.values()))
            raise RequestError(f"no trial fits this experiment: {reasons[0]}")
        return None

    def _by_design(
        self, records: list[TrialRecord], known: set[str], tuned: Mapping[str, TunedArm]
    ) -> Proposal | None:
        """The run of any cell that tells most of what is asked for its cost."""
        shapes = [
            shape
            for cell in self._ready(tuned)
            for shape in self._search.spread(
                cell, tuned=tuned[cell.arm], rates=self._rates_of(cell, records, tuned[cell.arm])
            )
        ]
        offered = new_shapes(shapes, records)
        offered += repeats(records, lambda first, number: self._repeat(first, number, known))
        found = self._design.choose(records, offered)
        if found is None or found.purpose == "replicate":
            return found
        orders = [found, *self._in_other_orders(found, records, known)]
        return self._design.choose(records, orders) or found

    def _in_other_orders(
        self, shape: Proposal, records: list[TrialRecord], known: set[str]
    ) -> list[Proposal]:
        """A new shape in the further data orders that its budget has, so that what one order does
        to all losses is not all that a law rests on."""
        first = shape.config.data_seed
        mine = [each.proposal for each in records if cell_of(each.proposal).budget == shape.budget]
        orders = sorted({each.config.data_seed - first for each in mine} - {0})
        again = (self._in_order(shape, number) for number in orders if number > 0)
        return [each for each in again if each.config_hash not in known]

    def _by_cell(self, records: list[TrialRecord]) -> dict[Cell, list[TrialRecord]]:
        by_cell: dict[Cell, list[TrialRecord]] = {cell: [] for cell in self.cells}
        for record in records:
            by_cell[cell_of(record.proposal)].append(record)
        return by_cell

    def _ready(self, tuned: Mapping[str, TunedArm]) -> list[Cell]:
        """Cells that may be searched."""
        return [
            cell
            for cell in self.cells
            if cell.arm in tuned and cell not in self._exhausted and self._design.needs(cell)
        ]

    # Rates

    def _baseline(
        self,
        cell: Cell,
        records: list[TrialRecord],
        mine: list[TrialRecord],
        known: set[str],
        choice: TunedArm,
    ) -> Proposal | None:
        rates = self._rates_of(cell, records, choice)
        return self._search.baseline(cell, mine, known, tuned=choice, rates=rates)

    def _rates_of(
        self, cell: Cell, records: list[TrialRecord], choice: TunedArm
    ) -> RateModel | None:
        """What is believed of an arm's rates, where it is tuned."""
        return self._rates.of(cell.arm, records) if choice.tuned else None

    def _rate_trial(
        self, mine: list[TrialRecord], known: set[str], rates: RateModel | None
    ) -> Proposal | None:
        """Another rate for a cell's leader, where it is worth a run."""

        def at(proposal: Proposal, multiplier: float) -> Proposal | None:
            point = dict(proposal.axes) | {RATE: multiplier}
            found = self._search.attempt(cell_of(proposal), point, purpose="tuning")
            return None if found is None or found.config_hash in known else found

        return None if rates is None else next_rate_trial(rates, mine, at)

    # Axes

    def _allowed_values(self, arm: str) -> dict[str, set[AxisValue]]:
        """What a recorded trial's axes may hold."""
        axes = cell_axes(self.experiment, arm)
        allowed: dict[str, set[AxisValue]] = {name: set(values) for name, values in axes.items()}
        settings = self.experiment.tuning
        if settings.learning_rate_multipliers:
            del allowed[RATE]  # any multiple may be chosen
            if STEP_SCALE in allowed:
                allowed[STEP_SCALE] |= set(settings.step_scale_inits)
        return allowed


def run_design(experiment: Experiment, ground: Ground, question: Question | None) -> RunDesign:
    """What chooses the runs for a question, or for all shapes of the law.

    Raises `RequestError` where the experiment cannot answer the question.
    """
    if isinstance(question, GapQuestion):
        return GapDesign(experiment, ground, question)
    return LawDesign(experiment, ground, question)


def _why_enough(design: RunDesign, records: Sequence[TrialRecord], *, foresee: bool) -> str | None:
    """That a design's question is answered by these results, in words; None while it is not."""
    question = design.question
    if question is None:
        return None
    width = design.half_width(records, foresee=foresee)
    if width > question.half_width:
        return None
    return f"{question} is reached: its 95 % interval is expected to be ± {width:.3g}"


def _turns(records: list[TrialRecord]) -> int:
    """How often a cell has had its turn; tuning took none."""
    return sum(record.proposal.purpose != "tuning" for record in records)
