"""How much of a difference is luck? Seed noise per budget, and who cannot be told from the first.

Replicates repeat configurations with other seeds; the r-th replicate of each has the same data
order, so that differences are taken pair by pair where both were run on it. A configuration is tied
with the first when a one-sided t test at 5 % does not reject that it is as good; each is tested by
itself, without a correction for their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from search.record.ledger import TrialRecord
from search.record.trial import Proposal, TrainingRecipe, TrialConfig
from search.record.trial_records import loss_of
from spaces.architecture import Architecture
from spaces.identity import canonical_json

Key = tuple[str, float | None, str]
"""A configuration without its seeds: its family, its budget, and what it resolves to."""

LEVEL = 0.05
"""Chance to call a configuration worse that is as good as the first."""

Noise: TypeAlias = tuple[float | None, int]
"""A standard deviation in nats per token, None where nothing tells it; its degrees of freedom."""

MIN_PAIRED_DEGREES = 4
"""Degrees of freedom below which a paired estimate is too loose to be worth its pairing."""

Losses = Mapping[int, float]
"""Loss in nats per token by data seed."""

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class BudgetNoise:
    """What the replicates of one budget say."""

    seed_noise_nats: float | None
    """Standard deviation of the loss over seeds of one configuration; None without replicates."""
    degrees_of_freedom: int
    """How many independent differences it rests on."""
    tied: frozenset[str]
    """Configuration hashes that cannot be told from the first; the first itself without noise."""


def configuration_key(proposal: Proposal, *, any_rate: bool = False) -> Key:
    """What replicates of one configuration share: everything but the seeds, whichever arm of its
    family asked for it; ``any_rate``: everything but seeds and learning rate."""
    form = _form(proposal.config, any_rate=any_rate)
    return (proposal.family, proposal.budget.train_flops, form)


_PLAIN_FIELDS = {each.name for each in fields(TrialConfig)} - {
    "architecture",
    "training",
    "init_seed",
    "data_seed",
}


@lru_cache(maxsize=100_000)
def _form(config: TrialConfig, *, any_rate: bool) -> str:
    training = replace(config.training, learning_rate=0.0) if any_rate else config.training
    others = {name: value for name, value in vars(config).items() if name in _PLAIN_FIELDS}
    return f"{_text_of(config.architecture)}{_text_of(training)}{canonical_json(others)}"


@lru_cache(maxsize=100_000)
def _text_of(part: Architecture | TrainingRecipe) -> str:
    """The canonical form of what many configurations share."""
    return canonical_json(part)


def by_configuration(records: Sequence[TrialRecord]) -> dict[Key, list[TrialRecord]]:
    """The results among records, grouped over seeds."""
    groups: dict[Key, list[TrialRecord]] = {}
    for record in records:
        if record.is_result:
            groups.setdefault(configuration_key(record.proposal), []).append(record)
    return groups


def budget_noise(records: Sequence[TrialRecord]) -> BudgetNoise:
    """Noise and ties of the results of one budget."""
    groups = by_configuration(records)
    if not groups:
        return BudgetNoise(seed_noise_nats=None, degrees_of_freedom=0, tied=frozenset())
    losses = _losses(groups)
    noise, degrees = _within(losses)
    first = min(losses, key=lambda key: (_mean(losses[key]), repr(key)))
    error = _noise_of_pairs(losses)
    tied = {key for key in losses if key == first or _is_tied(losses[first], losses[key], *error)}
    hashes = {record.config_hash for key in tied for record in groups[key]}
    return BudgetNoise(seed_noise_nats=noise, degrees_of_freedom=degrees, tied=frozenset(hashes))


def pair_noise(records: Sequence[TrialRecord]) -> Noise:
    """Seed noise of differences paired by data order, over the square root of two, pooled over
    budgets; that of single runs while fewer than `MIN_PAIRED_DEGREES` tell it; None without
    replicates."""
    budgets: dict[float | None, list[TrialRecord]] = {}
    for record in records:
        budgets.setdefault(record.proposal.budget.train_flops, []).append(record)
    losses = [_losses(by_configuration(group)) for group in budgets.values()]
    paired = _pooled([_paired(each) for each in losses])
    return paired if paired[1] >= MIN_PAIRED_DEGREES else _pooled([_within(x) for x in losses])


def _pooled(noises: Sequence[Noise]) -> Noise:
    """Of several estimates, weighted by their degrees of freedom."""
    degrees = sum(each for _, each in noises)
    squares = sum(each * (noise or 0.0) ** 2 for noise, each in noises)
    return (math.sqrt(squares / degrees) if degrees else None), degrees


def is_better(one: Proposal, other: Proposal, records: Sequence[TrialRecord]) -> bool:
    """Whether one configuration has a lower loss than another of its budget, and no tie.

    Both have results among ``records``, those of the budget; without replicates nothing is a tie.
    """
    losses = _losses(by_configuration(records))
    first, second = losses[configuration_key(one)], losses[configuration_key(other)]
    lower = _mean(first) < _mean(second)
    return lower and not _is_tied(first, second, *_noise_of_pairs(losses))


def _losses(groups: Mapping[Key, Sequence[TrialRecord]]) -> dict[Key, dict[int, float]]:
    """Loss by data seed of every configuration."""
    return {
        key: {record.proposal.config.data_seed: loss_of(record) for record in group}
        for key, group in groups.items()
    }


def _mean(losses: Losses) -> float:
    return sum(losses.values()) / len(losses)


def _noise_of_pairs(losses: Mapping[Key, Losses]) -> Noise:
    """Noise of differences paired by data order, over the square root of two, and its degrees of
    freedom; that of single runs without two configurations on the same two seeds."""
    paired, degrees = _paired(losses)
    return (paired, degrees) if paired is not None else _within(losses)


def _within(losses: Mapping[Key, Losses]) -> Noise:
    """Pooled standard deviation over seeds within configurations, and its degrees of freedom."""
    squares, degrees = 0.0, 0
    for seeds in losses.values():
        values = np.array(list(seeds.values()))
        squares += float(np.sum((values - values.mean()) ** 2))
        degrees += len(values) - 1
    return (math.sqrt(squares / degrees) if degrees else None), degrees


def _paired(losses: Mapping[Key, Losses]) -> Noise:
    """Standard deviation that is left when each data order's own effect is taken out.

    Residuals of loss = configuration + data seed over the configurations with replicates.
    """
    replicated = [seeds for seeds in losses.values() if len(seeds) > 1]
    if len(replicated) < 2:
        return None, 0
    number = {seed: index for index, seed in enumerate(set().union(*replicated))}
    rows = np.repeat(np.arange(len(replicated)), [len(seeds) for seeds in replicated])
    orders = np.array([number[seed] for seeds in replicated for seed in seeds])
    measured = np.array([loss for seeds in replicated for loss in seeds.values()])
    rows, orders, measured = _compared(rows, orders, measured)
    if not len(measured):
        return None, 0
    num_rows, num_orders = int(rows.max()) + 1, int(orders.max()) + 1
    degrees = len(measured) - (num_rows + num_orders - _num_islands(rows, orders))
    many, few = (rows, orders) if num_rows >= num_orders else (orders, rows)
    return math.sqrt(_residual_squares(measured, many, few) / degrees), degrees


def _compared(rows: Indices, orders: Indices, measured: Floats) -> tuple[Indices, Indices, Floats]:
    """What is left, numbered anew, without losses that nothing is compared with: the only one of
    their configuration or of their data order, whose effect takes all of it up."""
    while len(measured):
        often = (np.bincount(rows)[rows] > 1) & (np.bincount(orders)[orders] > 1)
        if often.all():
            break
        rows, orders, measured = rows[often], orders[often], measured[often]
    return (
        np.unique(rows, return_inverse=True)[1],
        np.unique(orders, return_inverse=True)[1],
        measured,
    )


def _num_islands(rows: Indices, orders: Indices) -> int:
    """Groups of configurations that no data order connects: each costs the two-way layout one
    degree of freedom less."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = int(rows.max()) + 1
    size = first + int(orders.max()) + 1
    edges = coo_array((np.ones(len(rows)), (rows, first + orders)), shape=(size, size))
    return int(connected_components(edges, directed=False)[0])


def _residual_squares(measured: Floats, many: Indices, few: Indices) -> float:
    """Sum of squared residuals of measured = an effect of ``many`` + one of ``few``, each given by
    its number; the effects of ``many`` are eliminated, so that the cost is linear in them."""
    counts = np.bincount(many).astype(np.float64)
    incidence = np.zeros((len(counts), int(few.max()) + 1))
    incidence[many, few] = 1.0
    share = incidence / counts[:, None]
    centred = measured - (np.bincount(many, measured) / counts)[many]
    normal = np.diag(incidence.sum(axis=0)) - incidence.T @ share
    effects = np.linalg.lstsq(normal, np.bincount(few, centred), rcond=None)[0]
    residual = centred - effects[few] + (share @ effects)[many]
    return float(residual @ residual)


def _is_tied(first: Losses, other: Losses, noise: float | None, degrees: int) -> bool:
    """Whether the test does not tell ``other`` from ``first``."""
    if noise is None:
        return False
    common = sorted(set(first) & set(other))
    if common:
        difference = float(np.mean([other[seed] - first[seed] for seed in common]))
        error = noise * math.sqrt(2 / len(common))
    else:
        difference = float(np.mean(list(other.values())) - np.mean(list(first.values())))
        error = noise * math.sqrt(1 / len(first) + 1 / len(other))
    return difference <= _quantile(degrees) * error


@lru_cache
def _quantile(degrees: int) -> float:
    """Of Student's t, at the level of the test."""
    from scipy.stats import t

    return float(t.ppf(1 - LEVEL, degrees))
