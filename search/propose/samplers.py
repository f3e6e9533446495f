"""Which axis values next? Optuna's samplers over static, ordinal axes; the only door to Optuna.

An axis is an ordered list; Optuna sees its index, so every sampler works on any list and no range
depends on another. A study is rebuilt from what is known at each ask and seeded by how much is
known: the same records give the same proposal, whichever process asks. Optuna itself is imported
only where it samples.
"""

from __future__ import annotations

import itertools
import random
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from search.asked.settings import Sampler
from spaces.axes import AxisValue

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

Axes = Mapping[str, tuple[AxisValue, ...]]

CHOOSING_SAMPLERS: frozenset[Sampler] = frozenset({"tpe", "gp"})
"""Samplers that use results; the others ignore them."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What is known of one proposal of an arm and budget."""

    axes: Mapping[str, AxisValue]
    """Its axis values."""
    loss: float | None
    """Its validation loss; None while it runs or where it has no result."""
    excess: float = -1.0
    """How far beyond the known limits it lies, ln(value / limit); negative within."""
    failure: float = -1.0
    """How badly it failed by running (out of memory, diverged); positive where it did."""
    pruned_losses: Mapping[int, float] = field(default_factory=dict)
    """Validation loss by step of a trial that was stopped early; empty for all others."""


class CellStudy:
    """Asks a sampler for points of one cell, given what the cell has seen."""

    def __init__(
        self,
        axes: Axes,
        observations: Sequence[Observation],
        *,
        sampler: Sampler,
        startup_trials: int,
        seed: int,
    ) -> None:
        self._axes = axes
        self._free = {name: values for name, values in axes.items() if len(values) > 1}
        self._fixed = {name: values[0] for name, values in axes.items() if len(values) == 1}
        self._worst = max(
            (each.loss for each in observations if each.loss is not None), default=0.0
        )
        self._last: Trial | None = None
        self._plain: Iterator[dict[str, AxisValue]] | None = None
        settled = sum(each.loss is not None or each.failure > 0 for each in observations)
        if not self._free:
            self._plain = iter([{}])
        elif sampler == "grid":
            self._plain = _product(self._free)
        elif sampler == "random" or (sampler in CHOOSING_SAMPLERS and settled < startup_trials):
            # what Optuna's samplers do before their start-up is over, without its import
            self._plain = _random_points(self._free, f"{seed}/{len(observations)}")
        else:
            self._open(observations, sampler, seed)

    def _open(self, observations: Sequence[Observation], sampler: Sampler, seed: int) -> None:
        """Rebuild the study in memory."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._distributions = {name: _distribution(vals) for name, vals in self._free.items()}
        count = len(observations)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(sampler=_sampler(sampler, seed, count))
        if sampler == "quasi-random":
            # the sequence starts at Optuna's second trial, and goes on where the records end
            for _ in range(1 + count):
                self._study.ask(fixed_distributions=self._distributions)
            return
        for frozen in self._history(observations):
            self._study.add_trial(frozen)

    def ask(self) -> dict[str, AxisValue] | None:
        """The next point, fixed axes included; None when a finite sampler has no more."""
        if self._plain is not None:
            point = next(self._plain, None)
            return None if point is None else self._in_order(point)
        self._last = self._study.ask(fixed_distributions=self._distributions)
        codes = self._last.params
        return self._in_order(
            {name: _value(vals, codes[name]) for name, vals in self._free.items()}
        )

    def refuse(self, excess: float) -> None:
        """Tell the sampler how far the last point lies beyond what is known to be too much."""
        if self._last is None:
            return
        for name, grade in _constraints(excess, -1.0).items():
            self._last.set_constraint(name, grade)
        self._study.tell(self._last, self._worst)

    def _in_order(self, point: Mapping[str, AxisValue]) -> dict[str, AxisValue]:
        return {name: point.get(name, self._fixed.get(name, 0)) for name in self._axes}

    def _history(self, observations: Sequence[Observation]) -> Iterator[FrozenTrial]:
        """Observations as Optuna trials; those off today's lists are left out."""
        for each in observations:
            if all(each.axes.get(name) in values for name, values in self._free.items()):
                yield self._frozen(each)

    def _frozen(self, each: Observation) -> FrozenTrial:
        import optuna

        states = optuna.trial.TrialState
        params = {name: _code(values, each.axes[name]) for name, values in self._free.items()}
        state, value = states.RUNNING, None
        if each.pruned_losses:
            state = states.PRUNED
        elif each.loss is not None or each.failure > 0:
            state, value = states.COMPLETE, self._worst if each.loss is None else each.loss
        return optuna.create_trial(
            state=state,
            value=value,
            params=params,
            distributions=dict(self._distributions),
            intermediate_values=dict(each.pruned_losses),
            constraints=_constraints(each.excess, each.failure),
        )


def _constraints(excess: float, failure: float) -> dict[str, float]:
    """Graded constraints, the same keys for every trial: broken where positive."""
    return {"known_limits": excess, "failure": failure}


def _product(axes: Axes) -> Iterator[dict[str, AxisValue]]:
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _random_points(axes: Axes, seed: str) -> Iterator[dict[str, AxisValue]]:
    """Uniform points of the lists, without end."""
    chance = random.Random(seed)
    while True:
        yield {name: values[chance.randrange(len(values))] for name, values in axes.items()}


def _distribution(values: tuple[AxisValue, ...]) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(values[0], str):
        return CategoricalDistribution(values)
    return IntDistribution(0, len(values) - 1)


def _code(values: tuple[AxisValue, ...], value: AxisValue) -> AxisValue:
    return value if isinstance(value, str) else values.index(value)


def _value(values: tuple[AxisValue, ...], code: AxisValue) -> AxisValue:
    return code if isinstance(code, str) else values[int(code)]


def _sampler(name: Sampler, seed: int, count: int) -> BaseSampler:
    """The sampler of a rebuilt study; its start-up is already over."""
    import optuna

    if name == "quasi-random":
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
    by_count = zlib.crc32(f"{seed}/{count}".encode())
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=by_count, n_startup_trials=1, multivariate=True)
    assert name == "gp"
    return optuna.samplers.GPSampler(
        seed=by_count, n_startup_trials=1, deterministic_objective=False
    )
