"""What did a sweep find? The results of every budget, best first, and which are ties.

`isoflop.best` is `best`; ``isoflop best`` prints what it returns.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from analysis.isoflop.frontier_gap import GapTrend
from analysis.points.column_names import with_sweep_names
from analysis.points.sweep_frame import frame_of
from analysis.sweep.arm_trends import arm_trends, frontiers
from analysis.sweep.confirmation import Confirmation, confirmations
from analysis.sweep.freedoms import ArmFreedoms, arm_freedoms
from analysis.sweep.gain import Gain, compute_equivalent_gains
from analysis.sweep.sweep_fit import rows_of_laws
from search.belief.arm_models import denoised_losses, recommend
from search.belief.gaps import ArmGap, arm_gaps
from search.belief.rate_standing import RateStanding, rate_standings
from search.belief.seed_noise import BudgetNoise, budget_noise
from search.propose.tuned_arms import ArmTuning, Tuning, arm_tunings, tuning_of
from search.record.ledger import Ledger
from search.record.numbers import configuration_numbers, evaluation_numbers, outcome_numbers
from search.record.ranking import by_budget
from search.record.trial_records import SweepRecord, TrialRecord
from spaces.arms.contract import shape_in_words
from spaces.errors import RequestError
from spaces.shown import Block, Cell, Shown, Table


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
            **evaluation_numbers(self.record.evaluations),
        }


@dataclass(frozen=True, kw_only=True)
class BudgetBoard(Shown):
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

    def blocks(self) -> list[Block]:
        """Its results, best first; a star recommends, = cannot be told from the first."""
        noise = "no replicates tell ties"
        if self.seed_noise_nats is not None:
            noise = f"seed noise {self.seed_noise_nats:.4f} nats, = a tie with the first"
        return [
            Table(
                caption=f"{self.target_train_flops:.3g} training FLOPs ({self.convention}); "
                f"{noise}; * recommended",
                columns=("", "arm", "shape", "parameters", "tokens", "loss (nats)", "bits/byte"),
                rows=tuple(self._row(rank, entry) for rank, entry in enumerate(self.entries, 1)),
            )
        ]

    def _row(self, rank: int, entry: Entry) -> tuple[Cell, ...]:
        mark = "*" if entry.record.config_hash == self.recommended.config_hash else ""
        numbers, proposal = entry.numbers, entry.record.proposal
        return (
            f"{rank}{mark}{'=' if entry.tied_with_best else ''}",
            proposal.arm,
            shape_in_words(proposal.config.architecture),
            int(numbers["parameters"]),
            proposal.config.tokens,
            numbers["loss_nats"],
            numbers.get("bits_per_byte"),
        )


@dataclass(frozen=True, kw_only=True)
class Leaderboard(Shown):
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
    trends: tuple[GapTrend, ...]
    """Every two arms at their frontiers: the gap over compute, and from where on one is better."""
    gains: tuple[Gain, ...]
    """What each family of arms is worth in compute beside the standard one."""
    confirmations: tuple[Confirmation, ...] = ()
    """Every forecast at a larger budget beside what was measured there."""

    def blocks(self) -> list[Block]:
        """A table per budget, then how arms compare there."""
        return [
            *(block for board in self.budgets for block in board.blocks()),
            Table(
                caption="each arm beside the best of its budget",
                columns=("budget (FLOPs)", "better", "worse", "gap (nats)", "± (95 %)", "verdict"),
                rows=tuple(
                    (
                        each.train_flops,
                        each.better,
                        each.worse,
                        each.gap_nats,
                        each.half_width_nats,
                        each.verdict,
                    )
                    for each in self.gaps
                ),
            ),
        ]


def best(sweep: str, home: Path | str = "runs") -> Leaderboard:
    """The leaderboard of a sweep of a home. Raises `RequestError` where there is none."""
    with contextlib.closing(Ledger(Path(home))) as ledger:
        found = leaderboard(ledger.sweep(sweep), ledger.trials(sweep))
        return replace(found, confirmations=tuple(confirmations(ledger, sweep)))


def leaderboard(sweep: SweepRecord, records: Sequence[TrialRecord]) -> Leaderboard:
    """The leaderboard of records."""
    tunings = arm_tunings(records)
    denoised = denoised_losses(records)
    recommended = recommend(records, denoised)
    rates = rate_standings(records, denoised)
    groups = by_budget(records)
    noises = {target: budget_noise(group) for target, group in groups.items()}
    freedoms = arm_freedoms(records)
    trends, gains = _at_frontiers(records, freedoms)
    return Leaderboard(
        sweep=sweep,
        budgets=tuple(
            _board(target, group, recommended[target], tunings, noise=noises[target])
            for target, group in groups.items()
        ),
        tunings=tuple(tunings.values()),
        rates=tuple(rates),
        freedoms=tuple(freedoms),
        gaps=tuple(arm_gaps(records, rates)),
        trends=trends,
        gains=gains,
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


def _at_frontiers(
    records: Sequence[TrialRecord], freedoms: Sequence[ArmFreedoms]
) -> tuple[tuple[GapTrend, ...], tuple[Gain, ...]]:
    """How arms compare at the fitted minima of the rows that laws use: their gaps, and what each
    family is worth in compute beside the standard one; nothing where no law may use a row."""
    frame = frame_of(records)
    if frame.is_empty():
        return (), ()
    try:
        rows, *_ = rows_of_laws(frame, with_sweep_names(frame.columns))
    except RequestError:
        return (), ()
    return arm_trends(rows, freedoms), tuple(compute_equivalent_gains(frontiers(rows)))
