"""What did a sweep find? The results of every budget, best first, and which are ties.

`isoflop.best` is `best`; ``isoflop best`` prints what it returns.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from analysis.sweep.freedoms import ArmFreedoms, arm_freedoms
from analysis.sweep.gain import FrontierPoint, Gain, compute_equivalent_gains
from search.belief.arm_models import denoised_losses, recommend
from search.belief.gaps import ArmGap, arm_gaps
from search.belief.rate_standing import RateStanding, rate_standings
from search.belief.seed_noise import BudgetNoise, budget_noise, by_configuration
from search.propose.tuned_arms import ArmTuning, Tuning, arm_tunings, tuning_of
from search.record.ledger import Ledger
from search.record.numbers import configuration_numbers, outcome_numbers
from search.record.ranking import by_budget
from search.record.trial_records import SweepRecord, TrialRecord, loss_of


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One result of a budget."""

    record: TrialRecord
    """The trial, with what it left."""
    tuning: Tuning
    """Whether its arm's rate was tuned at this budget, elsewhere, or not at all."""
    tied_with_best: bool | None
    """Whether it cannot be told from the first; None where no replicate tells the noise."""

    @property
    def numbers(self) -> dict[str, int | float]:
        """Its row of numbers, units in the names."""
        return {
            **configuration_numbers(self.record.proposal),
            **outcome_numbers(self.record.outcome),
        }


@dataclass(frozen=True, kw_only=True)
class BudgetBoard:
    """The results of one budget."""

    target_train_flops: float
    """The budget."""
    convention: str
    """How its FLOPs are counted."""
    seed_noise_nats: float | None
    """Standard deviation of the loss over seeds; None without replicates."""
    degrees_of_freedom: int
    """How many independent differences that rests on."""
    recommended: TrialRecord
    """The result with the lowest loss once the luck of its seed is taken out."""
    entries: tuple[Entry, ...]
    """All results, lowest validation loss first."""


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All results of a sweep."""

    sweep: SweepRecord
    budgets: tuple[BudgetBoard, ...]
    """Smallest first; those without a result are absent."""
    tunings: tuple[ArmTuning, ...]
    """How each tuned arm came to its learning rate."""
    rates: tuple[RateStanding, ...]
    """At which rate each arm stands at each budget, and what that may still cost it."""
    freedoms: tuple[ArmFreedoms, ...]
    """What each arm had to choose from."""
    gaps: tuple[ArmGap, ...]
    """Each arm beside the best of its budget: better, or a tie."""
    gains: tuple[Gain, ...]
    """What each family of arms is worth in compute beside the standard one."""


def best(sweep: str, home: Path | str = "runs") -> Leaderboard:
    """The leaderboard of a sweep of a home. Raises `RequestError` where there is none."""
    with contextlib.closing(Ledger(Path(home))) as ledger:
        return leaderboard(ledger.sweep(sweep), ledger.trials(sweep))


def leaderboard(sweep: SweepRecord, records: Sequence[TrialRecord]) -> Leaderboard:
    """The leaderboard of records."""
    tunings = arm_tunings(records)
    denoised = denoised_losses(records)
    recommended = recommend(records, denoised)
    rates = rate_standings(records, denoised)
    groups = by_budget(records)
    noises = {target: budget_noise(group) for target, group in groups.items()}
    return Leaderboard(
        sweep=sweep,
        budgets=tuple(
            _board(target, group, recommended[target], tunings, noise=noises[target])
            for target, group in groups.items()
        ),
        tunings=tuple(tunings.values()),
        rates=tuple(rates),
        freedoms=tuple(arm_freedoms(records)),
        gaps=tuple(arm_gaps(records, rates)),
        gains=tuple(gains_of(groups, noises)),
    )


def _board(
    target: float,
    group: list[TrialRecord],
    recommended: TrialRecord,
    tunings: dict[str, ArmTuning],
    *,
    noise: BudgetNoise,
) -> BudgetBoard:
    known = noise.seed_noise_nats is not None
    return BudgetBoard(
        target_train_flops=target,
        convention=group[0].proposal.budget.convention,
        seed_noise_nats=noise.seed_noise_nats,
        degrees_of_freedom=noise.degrees_of_freedom,
        recommended=recommended,
        entries=tuple(
            Entry(
                record=record,
                tuning=tuning_of(record, tunings),
                tied_with_best=record.config_hash in noise.tied if known else None,
            )
            for record in group
        ),
    )


def gains_of(
    groups: Mapping[float, list[TrialRecord]], noises: Mapping[float, BudgetNoise]
) -> list[Gain]:
    """The compute-equivalent gain of every family of arms over the standard one, by budget, from
    the results and the noise of each budget.

    A family stands at a budget by its configuration of the lowest mean loss over seeds.
    """
    frontiers: dict[str, list[FrontierPoint]] = {}
    for target, group in groups.items():
        noise = noises[target].seed_noise_nats
        for family in sorted({record.proposal.family for record in group}):
            lowest = _best_losses([record for record in group if record.proposal.family == family])
            point = FrontierPoint(
                train_flops=target,
                loss_nats=fmean(lowest),
                noise_nats=None if noise is None else noise / math.sqrt(len(lowest)),
            )
            frontiers.setdefault(family, []).append(point)
    return compute_equivalent_gains(frontiers)


def _best_losses(results: list[TrialRecord]) -> list[float]:
    """Losses over seeds of the configuration with the lowest mean."""
    groups = by_configuration(results).values()
    return min(([loss_of(record) for record in group] for group in groups), key=fmean)
