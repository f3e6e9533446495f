"""Which trial next? A pure function of the experiment and of what is known.

A *cell* is one arm at one budget; it has its own study. Cells take turns: the one with the fewest
trials is next. Each cell starts with its baselines, then its sampler proposes; a proposal whose
identity is known already, or that no shape can meet, is passed over for the sampler's next.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import get_args

from search.experiment import Experiment
from search.ledger import TrialRecord
from search.recipe import recipe
from search.study import AxisValue, Observation, candidates
from search.trial import Precision, Proposal, Purpose, SearchArm, TrialConfig
from spaces.architecture import UNIT_STEP_SCALE_INIT, Arm, CommonFields
from spaces.budget import Axes, Axis, Budget, axes_of, solve
from spaces.errors import InfeasibleError, RequestError
from spaces.parameters import count_parameters

MAX_REPEATS = 40
"""Proposals of a sampler that may be known or infeasible before the grid is searched."""

MAX_GRID = 20_000
"""Points of a cell's grid that are looked at for one that is new and feasible."""

BASELINE_TOKENS_PER_PARAMETER = 20.0
"""The compute-optimal ratio of Hoffmann et al. (arXiv 2203.15556), where a baseline stands."""

_SHAPE = ("num_layers", "d_model")

SHAPE_AXES: tuple[Axis, ...] = get_args(Axis)
"""The axes that the solver turns into a shape; the others are choices of training."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a proposal rests on besides the experiment: the text as prepared, and the precision."""

    text_fingerprint: str
    """Identity of corpus, split and tokenizer."""
    vocab_size: int
    """Symbols of the tokenizer."""
    num_validation_sequences: int
    """Validation windows of the experiment's context length that exist."""
    precision: Precision
    """Arithmetic of the workers' device, where the experiment leaves it open."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm at one budget."""

    arm: SearchArm
    budget: Budget


def cell_of(proposal: Proposal) -> Cell:
    """The cell that a proposal belongs to."""
    return Cell(arm=proposal.arm, budget=proposal.budget)


def model_arm(arm: SearchArm) -> Arm:
    """The architecture's arm; the unrolled family is of the standard arm."""
    return "standard" if arm == "unrolled" else arm


def cell_axes(experiment: Experiment, arm: SearchArm) -> dict[str, tuple[AxisValue, ...]]:
    """The axes that an arm has, with the experiment's values; axes it lacks are absent."""
    names: list[str] = list(axes_of(model_arm(arm), experiment.budget.solve))
    if arm == "unrolled":
        names.insert(0, "num_loops")
    names.append("learning_rate_multiplier")
    if arm in ("dual", "loop", "wide"):
        names.append("step_scale_init")
    if arm == "dual":
        names.append("gate_mode")
    axes: dict[str, tuple[AxisValue, ...]] = {
        name: tuple(getattr(experiment.axes, name)) for name in names
    }
    if arm == "unrolled":
        axes["num_loops"] = tuple(k for k in experiment.axes.num_loops if k > 1) or (1,)
    return axes


def resolve(
    experiment: Experiment,
    ground: Ground,
    cell: Cell,
    axes: dict[str, AxisValue],
    *,
    purpose: Purpose,
    init_seed: int | None = None,
    data_seed: int | None = None,
) -> Proposal:
    """Axis values to a configuration on the budget. Raises `InfeasibleError`."""
    shape = {name: axes[name] for name in SHAPE_AXES if name in axes}
    if cell.arm == "unrolled":
        shape["num_layers"] = int(shape["num_layers"]) * int(shape.pop("num_loops"))
    fixed = experiment.architecture
    solution = solve(
        cell.budget,
        arm=model_arm(cell.arm),
        mode=experiment.budget.solve,
        axes=Axes(**shape),  # type: ignore[arg-type]
        common=CommonFields(
            head_dim=fixed.head_dim,
            context_length=fixed.context_length,
            vocab_size=ground.vocab_size,
            gate_mode=axes.get("gate_mode", "independent"),  # type: ignore[arg-type]
            loop_output=fixed.loop_output,
            wide_attention=fixed.wide_attention,
            qk_norm=fixed.qk_norm,
            rope_base=fixed.rope_base,
            norm_epsilon=fixed.norm_epsilon,
            step_scale_init=float(axes.get("step_scale_init", UNIT_STEP_SCALE_INIT)),
            gate_bias_init=fixed.gate_bias_init,
        ),
        ffn_multiple=fixed.ffn_multiple,
    )
    training = recipe(
        experiment.training,
        arm=cell.arm,
        architecture=solution.architecture,
        train_flops=float(solution.train_flops),
        tokens=solution.tokens,
        multiplier=float(axes["learning_rate_multiplier"]),
        precision=ground.precision,
    )
    config = TrialConfig(
        architecture=solution.architecture,
        tokens=solution.tokens,
        training=training,
        text_fingerprint=ground.text_fingerprint,
        eval_sequences=experiment.training.eval_sequences,
        eval_points=experiment.training.eval_points,
        init_seed=experiment.seeds.init if init_seed is None else init_seed,
        data_seed=experiment.seeds.data if data_seed is None else data_seed,
    )
    if config.num_steps < experiment.training.min_steps:
        raise InfeasibleError(
            f"a trial needs at least {experiment.training.min_steps} steps, but {config.tokens} "
            f"tokens give {config.num_steps}; use a larger budget or a smaller shape"
        )
    return Proposal(
        config=config,
        arm=cell.arm,
        budget=cell.budget,
        axes=axes,
        purpose=purpose,
        nominal_alpha=solution.nominal_alpha,
        attained_alpha=solution.attained_alpha,
    )


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
        self.cells = [
            Cell(arm=arm, budget=budget)
            for budget in experiment.budget.budgets()
            for arm in experiment.arms
        ]
        self._exhausted: set[Cell] = set()
        self._why_not: dict[Cell, str] = {}
        self._known_baselines: dict[Cell, list[Proposal]] = {}

    def next(self, records: Sequence[TrialRecord]) -> Proposal | None:
        """The next trial, or None when the sweep has all it asks for or all there is.

        Raises `RequestError` where no cell of the experiment admits a single trial.
        """
        counted = [record for record in records if record.set_aside is None]
        if len(counted) >= self.experiment.trials:
            return None
        known = {record.config_hash for record in records}
        by_cell: dict[Cell, list[TrialRecord]] = {cell: [] for cell in self.cells}
        for record in counted:
            by_cell[cell_of(record.proposal)].append(record)
        for cell in sorted(self.cells, key=lambda cell: len(by_cell[cell])):
            if cell in self._exhausted:
                continue
            proposal = self._propose(cell, by_cell[cell], known)
            if proposal is not None:
                return proposal
            self._exhausted.add(cell)
        if not counted:
            reasons = sorted(set(self._why_not.values()))
            raise RequestError(f"no trial fits this experiment: {reasons[0]}")
        return None

    def depends_on_results(self, proposal: Proposal, records: Sequence[TrialRecord]) -> bool:
        """Whether the sampler would use results of the cell to propose after these records."""
        cell = cell_of(proposal)
        before = sum(cell_of(record.proposal) == cell for record in records)
        search = self.experiment.search
        adapts = search.sampler in ("tpe", "gp") and proposal.purpose == "search"
        return adapts and before >= search.startup_trials

    def why_set_aside(self, record: TrialRecord) -> str | None:
        """Why a recorded trial is no part of the experiment as it is now; None if it is."""
        proposal = record.proposal
        cell = cell_of(proposal)
        if cell not in self.cells:
            return f"{cell.arm} at {cell.budget.train_flops:.3g} FLOPs is no longer asked for"
        axes = cell_axes(self.experiment, cell.arm)
        for name, value in proposal.axes.items():
            if value not in axes.get(name, ()):
                return f"axes.{name} no longer holds {value}"
        try:
            again = resolve(
                self.experiment,
                self.ground,
                cell,
                dict(proposal.axes),
                purpose=proposal.purpose,
                init_seed=proposal.config.init_seed,
                data_seed=proposal.config.data_seed,
            )
        except InfeasibleError as error:
            return f"it no longer fits: {error}"
        if again.config_hash == proposal.config_hash:
            return None
        return "changed since: " + ", ".join(changed_fields(proposal.config, again.config))

    def _propose(
        self, cell: Cell, records: Sequence[TrialRecord], known: set[str]
    ) -> Proposal | None:
        """The first of the cell's candidates that is new and on the budget."""
        for proposal in self._baselines(cell):
            if proposal.config_hash not in known:
                return proposal
        axes = cell_axes(self.experiment, cell.arm)
        search = self.experiment.search
        sampled = candidates(
            axes,
            [_observe(record) for record in records],
            sampler=search.sampler,
            startup_trials=search.startup_trials,
            seed=self._seed(cell, len(records)),
        )
        ways = itertools.chain(
            itertools.islice(sampled, MAX_REPEATS), itertools.islice(_grid(axes), MAX_GRID)
        )
        for value in ways:
            proposal = self._resolve(cell, value, purpose="search")
            if proposal is not None and proposal.config_hash not in known:
                return proposal
        return None

    def _resolve(
        self, cell: Cell, axes: dict[str, AxisValue], *, purpose: Purpose
    ) -> Proposal | None:
        """The proposal at a point of the axes; None, and the reason kept, where none fits."""
        try:
            return resolve(self.experiment, self.ground, cell, axes, purpose=purpose)
        except InfeasibleError as error:
            self._why_not[cell] = str(error)
            return None

    def _baselines(self, cell: Cell) -> list[Proposal]:
        """What a cell starts with: the shape nearest to 20 tokens per parameter.

        Axes other than the shape stand in their middle. The standard arm starts with three depths:
        the nearest one, the least and the greatest, each with its nearest width.
        """
        if cell in self._known_baselines:
            return self._known_baselines[cell]
        axes = cell_axes(self.experiment, cell.arm)
        middle = {name: values[len(values) // 2] for name, values in axes.items()}
        shapes = [
            dict(zip(_SHAPE, point, strict=True))
            for point in itertools.product(*(axes.get(name, (None,)) for name in _SHAPE))
        ]
        resolved = [
            self._resolve(
                cell, middle | {k: v for k, v in shape.items() if v is not None}, purpose="baseline"
            )
            for shape in shapes
        ]
        ordered = sorted((each for each in resolved if each is not None), key=_distance_to_ratio)
        chosen = ordered[:1]
        if cell.arm == "standard":
            for depth in (axes["num_layers"][0], axes["num_layers"][-1]):
                at_depth = [each for each in ordered if each.axes["num_layers"] == depth]
                chosen += [each for each in at_depth[:1] if each not in chosen]
        self._known_baselines[cell] = chosen
        return chosen

    def _seed(self, cell: Cell, count: int) -> int:
        text = f"{self.experiment.seeds.search}/{cell.arm}/{cell.budget}/{count}"
        return zlib.crc32(text.encode())


def changed_fields(before: TrialConfig, after: TrialConfig) -> list[str]:
    """Names of the fields in which two configurations differ."""
    names = [
        name
        for name in ("tokens", "text_fingerprint", "eval_sequences", "eval_points")
        if getattr(before, name) != getattr(after, name)
    ]
    for part in ("architecture", "training"):
        old, new = getattr(before, part), getattr(after, part)
        names += [f"{part}.{key}" for key in vars(old) if vars(old)[key] != vars(new)[key]]
    if before.record_version != after.record_version:
        names.append("record_version (what a record means changed with the code)")
    return names


def _distance_to_ratio(proposal: Proposal) -> float:
    """How far a proposal is from the baseline's tokens per parameter, in log units."""
    total = count_parameters(proposal.config.architecture).total
    return abs(math.log(proposal.config.tokens / total / BASELINE_TOKENS_PER_PARAMETER))


def _observe(record: TrialRecord) -> Observation:
    if record.is_result and record.outcome is not None:
        loss = record.outcome.loss_nats
        return Observation(axes=record.proposal.axes, loss=loss)
    if record.state in ("diverged", "out_of_memory", "failed"):
        return Observation(axes=record.proposal.axes, loss=None, violations={record.state: 1.0})
    return Observation(axes=record.proposal.axes, loss=None)


def _grid(axes: dict[str, tuple[AxisValue, ...]]) -> Iterator[dict[str, AxisValue]]:
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
