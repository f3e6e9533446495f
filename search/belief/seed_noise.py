"""How much of a difference is luck? Seed noise per budget, and who cannot be told from the first.

Replicates repeat configurations with other seeds; the r-th replicate of each has the same data
order, so that differences are taken pair by pair where both were run on it. A configuration is tied
with the first when a one-sided t test at 5 % does not reject that it is as good; each is tested by
itself, without a correction for their number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from search.record.ledger import TrialRecord
from search.record.trial import Proposal, TrialConfig
from search.record.trial_records import loss_of
from spaces.identity import canonical_json

Key = tuple[str, float | None, str]
"""A configuration without its seeds: its family, its budget, and what it resolves to."""

LEVEL = 0.05
"""Chance to call a configuration worse that is as good as the first."""

Losses = Mapping[int, float]
"""Loss in nats per token by data seed."""


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


@lru_cache(maxsize=100_000)
def _form(config: TrialConfig, *, any_rate: bool) -> str:
    training = replace(config.training, learning_rate=0.0) if any_rate else config.training
    return canonical_json(replace(config, init_seed=0, data_seed=0, training=training))


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


def _noise_of_pairs(losses: Mapping[Key, Losses]) -> tuple[float | None, int]:
    """Noise of differences paired by data order, over the square root of two, and its degrees of
    freedom; that of single runs without two configurations on the same two seeds."""
    paired, degrees = _paired(losses)
    return (paired, degrees) if paired is not None else _within(losses)


def _within(losses: Mapping[Key, Losses]) -> tuple[float | None, int]:
    """Pooled standard deviation over seeds within configurations, and its degrees of freedom."""
    squares, degrees = 0.0, 0
    for seeds in losses.values():
        values = np.array(list(seeds.values()))
        squares += float(np.sum((values - values.mean()) ** 2))
        degrees += len(values) - 1
    return (math.sqrt(squares / degrees) if degrees else None), degrees


def _paired(losses: Mapping[Key, Losses]) -> tuple[float | None, int]:
    """Standard deviation that is left when each data order's own effect is taken out.

    Residuals of loss = configuration + data seed over the configurations with replicates.
    """
    replicated = [seeds for seeds in losses.values() if len(seeds) > 1]
    orders = sorted({seed for seeds in replicated for seed in seeds})
    cells = [
        (row, orders.index(s), seeds[s]) for row, seeds in enumerate(replicated) for s in seeds
    ]
    if len(replicated) < 2:
        return None, 0
    design = np.zeros((len(cells), len(replicated) + len(orders)))
    for line, (row, order, _) in enumerate(cells):
        design[line, row] = design[line, len(replicated) + order] = 1.0
    measured = np.array([loss for _, _, loss in cells])
    degrees = len(cells) - int(np.linalg.matrix_rank(design))
    if degrees < 1:
        return None, 0
    residual = measured - design @ np.linalg.lstsq(design, measured, rcond=None)[0]
    return math.sqrt(float(residual @ residual) / degrees), degrees


def _is_tied(first: Losses, other: Losses, noise: float | None, degrees: int) -> bool:
    """Whether the test does not tell ``other`` from ``first``."""
    if noise is None:
        return False
    from scipy.stats import t

    common = sorted(set(first) & set(other))
    if common:
        difference = float(np.mean([other[seed] - first[seed] for seed in common]))
        error = noise * math.sqrt(2 / len(common))
    else:
        difference = float(np.mean(list(other.values())) - np.mean(list(first.values())))
        error = noise * math.sqrt(1 / len(first) + 1 / len(other))
    return difference <= float(t.ppf(1 - LEVEL, degrees)) * error
