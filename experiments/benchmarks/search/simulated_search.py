"""How does a sampler spend its trials where training is simulated? One run of one sampler.

``ours`` drives the proposer that a sweep drives, over records whose outcomes a truth answers.
``stock`` is Optuna as its manual shows it: ranges that depend on one another, failures told as
failures, no memory of what was asked before, the best value seen recommended.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.benchmarks.search.truth import Points, Truth, ask, failure_of, optimum
from search.asked.experiment import Experiment
from search.belief.arm_models import recommend
from search.propose.contract import first_of
from search.propose.proposer import Ground, SweepProposer
from search.record.ledger import TrialRecord
from search.record.trial import Outcome, Proposal
from search.record.trial_records import loss_of

if TYPE_CHECKING:
    import optuna

Contender = Literal[
    "ours-tpe",
    "ours-best",
    "ours-no-cap",
    "surface-tpe",
    "ours-gp",
    "random",
    "stock-tpe",
    "stock-gp",
]
"""``ours-best`` looks for the best alone, without sizes for laws; ``ours-no-cap`` is not told the
wall of memory and learns it by running out; ``surface-tpe`` is ours with Optuna's own choice: TPE
on the surface, without the surrogate."""

OURS: dict[Contender, dict[str, Any]] = {
    "ours-tpe": {"sampler": "tpe"},
    "ours-best": {"sampler": "tpe", "goal": "best"},
    "ours-no-cap": {"sampler": "tpe"},
    "surface-tpe": {"sampler": "tpe", "candidates": 1},
    "ours-gp": {"sampler": "gp"},
    "random": {"sampler": "random"},
}
"""Search settings of the contenders that a sweep can be."""

SIZES = (16, 32, 64, 128, 256)
"""Trials per budget at which a sampler is asked for its recommendation."""

SETTLED_TRIALS = 16
"""Failures are counted from here on: before, nothing is known."""

RATE_STEPS_PER_OCTAVE = 2
"""Our learning rate axis: multiples of the rule, this many per factor of two."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """One simulated trial."""

    budget: int
    """Index of its budget."""
    identity: tuple[Any, ...]
    """What makes it the same trial as another."""
    true_loss: float
    """Without noise."""
    failed: bool
    """Out of memory or diverged."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One sampler at one number of trials per budget."""

    trials: int
    """Trials per budget."""
    regrets: tuple[float, ...]
    """Per budget, in standard deviations of the seed noise at the optimum."""
    infeasible: float
    """Share of failed trials."""
    infeasible_after_16: float | None
    """The same of those after the first 16 of each budget; None where there are none."""
    duplicates: int
    """Trials that another of the run equals."""
    train_flops: float
    """Spent on trials that trained; a failure at its first step costs none."""


def simulate(
    truth: Truth, arm: str, contender: Contender, *, seed: int, trials: int
) -> list[Checkpoint]:
    """One run of a contender with ``trials`` trials per budget; a checkpoint at every size."""
    if contender in OURS:
        return _simulate_ours(truth, arm, contender, seed=seed, trials=trials)
    return _simulate_stock(truth, arm, contender, seed=seed, trials=trials)


def benchmark_experiment(
    truth: Truth, arm: str, *, search: dict[str, Any], seed: int
) -> Experiment:
    """The truth's question as an experiment file would ask it."""
    space, model, rate = truth.space, truth.model, truth.learning_rate
    fields = {
        "name": "search-quality",
        "trials": 10**6,
        "budget": {"train_flops": truth.train_flops, "convention": model.convention},
        "arms": [arm],
        "axes": {
            name: space.values(name)
            for name in ("num_loops", "wide_multiplier", "deep_multiplier", "num_layers", "d_model")
        }
        | {"learning_rate_multiplier": rate_multipliers(truth, arm)},
        "architecture": {"head_dim": model.head_dim, "context_length": model.context_length},
        "training": {
            "batch_tokens": model.batch_tokens,
            "batch_reference_flops": model.batch_reference_flops,
            "batch_exponent": model.batch_exponent,
            "min_steps": model.min_steps,
        },
        "limits": {
            "memory_bytes": truth.memory.wall_bytes,
            "bytes_per_parameter": truth.memory.bytes_per_parameter,
            "bytes_per_activation": truth.memory.bytes_per_activation,
            "learning_rate": (rate.minimum, rate.maximum),
        },
        "search": search,
        "seeds": {"search": seed},
    }
    return Experiment.model_validate(fields)


def rate_multipliers(truth: Truth, arm: str) -> list[float]:
    """Multiples of our rule that reach over the truth's whole range of rates at some shape."""
    from search.asked.recipe import REFERENCE_EFFECTIVE_DEPTH, REFERENCE_WIDTH
    from search.asked.settings import TrainingSettings

    rule, space, rate = TrainingSettings(), truth.space, truth.learning_rate

    def ruled(width: int, depth: int) -> float:
        by_width: float = (width / REFERENCE_WIDTH) ** rule.width_exponent
        by_depth: float = (depth / REFERENCE_EFFECTIVE_DEPTH) ** rule.depth_exponent
        base: float = getattr(rule.learning_rate, arm)
        return base * by_width * by_depth

    widths, layers, loops = (space.values(name) for name in ("d_model", "num_layers", "num_loops"))
    highest = ruled(widths[0], layers[0] * loops[0])
    lowest = ruled(widths[-1], layers[-1] * loops[-1])
    first = math.ceil(math.log2(rate.minimum / highest) * RATE_STEPS_PER_OCTAVE)
    last = math.floor(math.log2(rate.maximum / lowest) * RATE_STEPS_PER_OCTAVE)
    return [2 ** (step / RATE_STEPS_PER_OCTAVE) for step in range(first, last + 1)]


def _simulate_ours(
    truth: Truth, arm: str, contender: Contender, *, seed: int, trials: int
) -> list[Checkpoint]:
    experiment = benchmark_experiment(truth, arm, search=OURS[contender], seed=seed)
    if contender == "ours-no-cap":
        unlimited = experiment.limits.model_copy(update={"memory_bytes": None})
        experiment = experiment.model_copy(update={"limits": unlimited})
    proposer = SweepProposer(experiment, simulated_ground(truth))
    noise = np.random.default_rng(seed)
    records: list[TrialRecord] = []
    told: list[Told] = []
    checkpoints = []
    budgets = list(truth.train_flops)
    while len(records) < trials * len(budgets):
        proposal = first_of(proposer.next(records))
        if proposal is None:
            break
        outcome, true_loss = answer_to(truth, arm, proposal, noise)
        records.append(record_of_answer(proposal, outcome, number=len(records)))
        assert proposal.budget.train_flops is not None
        told.append(
            Told(
                budget=budgets.index(proposal.budget.train_flops),
                identity=(proposal.config_hash,),
                true_loss=true_loss,
                failed=outcome.status != "complete",
            )
        )
        count, rest = divmod(len(records), len(budgets))
        if rest == 0 and count in SIZES:
            picks = [_recommended(records, budget, contender) for budget in budgets]
            chosen = [told[pick].true_loss for pick in picks]
            checkpoints.append(_checkpoint(truth, arm, told, chosen, count))
    return checkpoints


def simulated_ground(truth: Truth) -> Ground:
    """What a truth's proposals rest on."""
    return Ground(
        text_fingerprint="simulated",
        vocab_size=truth.model.vocab_size,
        num_validation_sequences=10**6,
        precision="float32",
    )


def _recommended(records: list[TrialRecord], budget: float, contender: Contender) -> int:
    """Index of the trial that is recommended at a budget."""
    mine = [record for record in records if record.proposal.budget.train_flops == budget]
    if not any(record.is_result for record in mine):
        return mine[0].number  # nothing trained yet
    if contender in ("random", "surface-tpe"):
        return min((record for record in mine if record.is_result), key=loss_of).number
    return recommend(records)[budget].number


def points_of(proposal: Proposal) -> Points:
    """A proposal as the truth is asked for it."""
    axes = proposal.axes
    return Points(
        num_loops=axes.get("num_loops", 1),
        wide_multiplier=axes.get("wide_multiplier", 1),
        deep_multiplier=axes.get("deep_multiplier", 1),
        num_layers=axes["num_layers"],
        d_model=axes["d_model"],
        learning_rate=proposal.config.training.learning_rate,
    )


def answer_to(
    truth: Truth, arm: str, proposal: Proposal, noise: np.random.Generator
) -> tuple[Outcome, float]:
    """The outcome that training would have had, and its loss without noise."""
    assert proposal.budget.train_flops is not None
    answer = ask(truth, arm, proposal.budget.train_flops, points_of(proposal))
    draw = float(noise.normal())
    failure = failure_of(truth, answer)
    if failure is not None:
        return Outcome(status=failure, reason="simulated"), float(answer.loss)
    loss = float(answer.loss + answer.noise * draw)
    return Outcome(status="complete", loss_nats=loss, bits_per_byte=loss), float(answer.loss)


def record_of_answer(proposal: Proposal, outcome: Outcome, *, number: int) -> TrialRecord:
    return TrialRecord(
        number=number,
        proposal=proposal,
        state=outcome.status,  # type: ignore[arg-type]
        set_aside=None,
        attempts=(),
        outcome=outcome,
        accepted_at=None,
        mlflow_run_id=None,
    )


def _simulate_stock(
    truth: Truth, arm: str, contender: Contender, *, seed: int, trials: int
) -> list[Checkpoint]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    noise = np.random.default_rng(seed)
    told: list[Told] = []
    best: dict[tuple[int, int], float] = {}
    sizes = [size for size in SIZES if size <= trials]
    for index, flops in enumerate(truth.train_flops):
        sampler: optuna.samplers.BaseSampler
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if contender == "stock-tpe":
                sampler = optuna.samplers.TPESampler(seed=seed)
            else:
                sampler = optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
        study = optuna.create_study(sampler=sampler)
        incumbent, loss = math.inf, math.inf
        for count in range(1, trials + 1):
            trial = study.ask()
            points = _suggest(truth, arm, flops, trial)
            answer = ask(truth, arm, flops, points)
            failed = failure_of(truth, answer) is not None
            seen = float(answer.loss + answer.noise * noise.normal())
            identity = (index, *sorted(trial.params.items()))
            true_loss = float(answer.loss)
            if count == 1:
                loss = true_loss  # what there is to recommend until something trains
            told.append(Told(budget=index, identity=identity, true_loss=true_loss, failed=failed))
            if failed:
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                study.tell(trial, seen)
                if seen < incumbent:
                    incumbent, loss = seen, true_loss
            if count in sizes:
                best[count, index] = loss
    budgets = range(len(truth.train_flops))
    return [
        _checkpoint(truth, arm, told, [best[size, index] for index in budgets], size)
        for size in sizes
    ]


def _suggest(truth: Truth, arm: str, train_flops: float, trial: optuna.trial.Trial) -> Points:
    """Axes in the order a person writes them; the width's range depends on all before it, so that
    the budget still pays for the fewest steps."""
    space, rate = truth.space, truth.learning_rate
    chosen: dict[str, Any] = {"num_loops": 1, "wide_multiplier": 1, "deep_multiplier": 1}
    names = {
        "dual": ("num_loops", "wide_multiplier", "deep_multiplier"),
        "loop": ("num_loops", "deep_multiplier"),
        "wide": ("wide_multiplier",),
        "standard": ("deep_multiplier",),
    }[arm]
    for name in (*names, "num_layers"):
        first, last, step = getattr(space, name)
        chosen[name] = trial.suggest_int(name, first, last, step=step)
    first, last, step = space.d_model
    affordable = [
        width
        for width in space.values("d_model")
        if ask(truth, arm, train_flops, Points(d_model=width, learning_rate=None, **chosen)).tokens
        >= truth.model.min_steps * truth.model.context_length
    ]
    last = max(affordable, default=first)
    chosen["d_model"] = trial.suggest_int("d_model", first, last, step=step)
    lr = trial.suggest_float("lr", rate.minimum, rate.maximum, log=True)
    return Points(learning_rate=lr, **chosen)


def _checkpoint(
    truth: Truth, arm: str, told: list[Told], chosen: list[float], size: int
) -> Checkpoint:
    groups = [
        [each for each in told if each.budget == index][:size]
        for index in range(len(truth.train_flops))
    ]
    after = [each.failed for group in groups for each in group[SETTLED_TRIALS:]]
    identities = [each.identity for group in groups for each in group]
    regrets = []
    for flops, loss in zip(truth.train_flops, chosen, strict=True):
        best = _optimum(truth, arm, flops)
        regrets.append((loss - best.loss) / best.noise)
    return Checkpoint(
        trials=size,
        regrets=tuple(regrets),
        infeasible=sum(each.failed for group in groups for each in group) / len(identities),
        infeasible_after_16=sum(after) / len(after) if after else None,
        duplicates=len(identities) - len(set(identities)),
        train_flops=sum(
            flops * sum(not each.failed for each in group)
            for flops, group in zip(truth.train_flops, groups, strict=True)
        ),
    )


_OPTIMA: dict[tuple[str, str, float], Any] = {}


def _optimum(truth: Truth, arm: str, train_flops: float) -> Any:
    key = (truth.model_dump_json(), arm, train_flops)
    if key not in _OPTIMA:
        _OPTIMA[key] = optimum(truth, arm, train_flops)
    return _OPTIMA[key]
