"""Which axis values next? Optuna's samplers over static, ordinal axes; the only door to Optuna.

An axis is an ordered list; Optuna sees its index, so every sampler works on any list and no range
depends on another. A study is rebuilt from what is known at each ask and seeded by how much is
known: the same records give the same proposal, whichever process asks.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.trial import TrialState as OptunaState

from search.experiment import Sampler

AxisValue = float | int | str
Axes = Mapping[str, tuple[AxisValue, ...]]

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of one proposal of an arm and budget."""

    axes: Mapping[str, AxisValue]
    """Its axis values."""
    loss: float | None
    """Its validation loss; None while it runs or where it has no result."""
    violations: Mapping[str, float] = field(default_factory=dict)
    """Graded constraints, positive where broken (out of memory, diverged, too few steps)."""


def candidates(
    axes: Axes,
    observations: Sequence[Observation],
    *,
    sampler: Sampler,
    startup_trials: int,
    seed: int,
) -> Iterator[dict[str, AxisValue]]:
    """Proposals in the sampler's order of preference, fixed axes included; may repeat, without end
    except for ``grid``."""
    distributions = {
        name: _distribution(values) for name, values in axes.items() if len(values) > 1
    }
    fixed = {name: values[0] for name, values in axes.items() if len(values) == 1}
    if not distributions:
        yield fixed
        return
    if sampler == "grid":
        for values in itertools.product(*axes.values()):
            yield dict(zip(axes, values, strict=True))
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=_sampler(sampler, distributions, startup_trials, seed))
        for frozen in _history(axes, observations, distributions):
            study.add_trial(frozen)
    while True:
        asked = study.ask(fixed_distributions=distributions)
        yield fixed | {name: _value(axes[name], asked.params[name]) for name in distributions}


def _history(
    axes: Axes,
    observations: Sequence[Observation],
    distributions: Mapping[str, BaseDistribution],
) -> Iterator[optuna.trial.FrozenTrial]:
    """Observations as Optuna trials; those off today's lists are left out."""
    losses = [each.loss for each in observations if each.loss is not None]
    worst = max(losses, default=0.0)
    for each in observations:
        if any(each.axes.get(name) not in axes[name] for name in distributions):
            continue
        params = {name: _code(axes[name], each.axes[name]) for name in distributions}
        known = each.loss is not None or each.violations
        yield optuna.create_trial(
            state=OptunaState.COMPLETE if known else OptunaState.RUNNING,
            value=(worst if each.loss is None else each.loss) if known else None,
            params=params,
            distributions=dict(distributions),
            constraints={"none": 0.0, **each.violations},
        )


def _distribution(values: tuple[AxisValue, ...]) -> BaseDistribution:
    if isinstance(values[0], str):
        return CategoricalDistribution(values)
    return IntDistribution(0, len(values) - 1)


def _code(values: tuple[AxisValue, ...], value: AxisValue) -> AxisValue:
    return value if isinstance(value, str) else values.index(value)


def _value(values: tuple[AxisValue, ...], code: AxisValue) -> AxisValue:
    return code if isinstance(code, str) else values[int(code)]


def _sampler(
    name: Sampler,
    distributions: Mapping[str, BaseDistribution],
    startup_trials: int,
    seed: int,
) -> optuna.samplers.BaseSampler:
    if name == "tpe":
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=startup_trials, multivariate=True
        )
    if name == "gp":
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=startup_trials, deterministic_objective=False
        )
    if name == "quasi-random":
        return optuna.samplers.QMCSampler(seed=seed, scramble=True)
    return optuna.samplers.RandomSampler(seed=seed)
