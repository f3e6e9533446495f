"""How does what models know grow with compute? The direct law, ``-ln Q = A C^-alpha``.

Q is a share of right answers (arXiv 2512.08894, the form at a fixed ratio of tokens to parameters):
no irreducible part, so that all is known in the end. The form has no floor where models guess;
among runs that are not above chance, an exponent would describe the guessing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from scipy import stats

from analysis.evaluation.scores import SIGNIFICANT
from analysis.laws.law import FloatArray, Law, Term
from analysis.laws.standard_laws import log_of, power_law
from analysis.points.checked_points import Finding, Points, rows_text
from search.record.evaluations import PREFIX, more_is_better
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError

P_CHANCE = "p_chance"
"""Column: probability of a row's score or a higher one at chance; null where none is tested."""

DIRECT_LAW = Law(
    name="downstream",
    formula="-ln(score) = E + A flops^-alpha",
    roles=("flops",),
    terms=(Term(coefficient="A", exponent="alpha", log_size=log_of("flops")),),
    source="arXiv 2512.08894, with E held at 0",
)
HELD: Mapping[str, float] = {"E": 0.0}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The rows of a sweep that have a score, and the law for them."""

    name: str
    """``eval.TASK.RULE``: the column."""
    frame: pl.DataFrame
    """With `P_CHANCE`; one row for each arm and budget."""
    num_without: int
    """Results that have no such score."""

    @property
    def law(self) -> Law:
        """The direct law of a share; of bits per byte, a power law above what is irreducible."""
        return DIRECT_LAW if self.is_share else power_law()

    @property
    def is_share(self) -> bool:
        """Whether it is a share of right answers."""
        return more_is_better(self.name)


def scores_of_sweep(frame: pl.DataFrame, records: Sequence[TrialRecord], asked: str) -> Scores:
    """Of each arm and budget, the run with the least loss among those that have the score.

    Chosen by loss, not by score: the best of several scores is better than its model.
    Raises `RequestError` that names the scores there are.
    """
    name = f"{PREFIX}.{asked.removeprefix(f'{PREFIX}.')}"
    if name not in frame.columns:
        there = sorted(each for each in frame.columns if each.startswith(f"{PREFIX}."))
        raise RequestError(
            f"no result has the score {asked!r}; there are {', '.join(there) or 'none yet'}; "
            "isoflop evaluate RUN --tasks PATH scores a run"
        )
    chances = {each.config_hash: _p_chance(each, name) for each in records}
    scored = frame.filter(pl.col(name).is_not_null())
    best = scored.sort("loss_nats").unique(["arm", "target_train_flops"], keep="first")
    best = best.sort("target_train_flops", "arm")
    tested = [chances[config_hash] for config_hash in best["config_hash"]]
    best = best.with_columns(pl.Series(P_CHANCE, tested, dtype=pl.Float64))
    return Scores(name=name, frame=best, num_without=frame.height - scored.height)


def _p_chance(record: TrialRecord, name: str) -> float | None:
    _, task, rule = name.split(".", 2)
    found = [
        score.p_chance
        for evaluation in record.evaluations
        if evaluation.task == task
        for score in evaluation.scores
        if score.rule == rule
    ]
    return found[0] if found else None


def p_of_shares(shares: FloatArray, *, chance: float, num_items: int | None) -> FloatArray:
    """Probability (n,) of such shares at chance; without a number of items, 0 above and 1 else."""
    if num_items is None:
        return np.where(shares > chance, 0.0, 1.0)
    right = np.ceil(shares * num_items - 1e-6)
    return np.asarray(stats.binom.sf(right - 1, num_items, chance), dtype=np.float64)


def direct_points(points: Points, p_chance: FloatArray) -> Points:
    """Points whose losses (n,) are shares, as ``-ln`` of them; no law may be fitted to them where
    any is not above chance. ``p_chance`` (n,), NaN where nothing was tested.

    Raises `RequestError` for what is no share.
    """
    shares = points.losses
    if wrong := points.row_numbers[(shares <= 0) | (shares >= 1)].tolist():
        raise RequestError(
            f"a score is a share between 0 and 1, neither of them, but those of rows "
            f"{rows_text(wrong)} are not; divide percentages by 100"
        )
    guessing = p_chance > SIGNIFICANT
    findings = [_near_chance(points, guessing)] if guessing.any() else []
    return replace(
        points,
        losses=-np.log(shares),
        findings=(*points.findings, *findings),
        conventions=(*points.conventions, "loss = -ln(score)"),
    )


def _near_chance(points: Points, guessing: np.ndarray) -> Finding:
    budgets = points.columns["flops"]
    named = sorted({f"{flops:.3g}" for flops in budgets[guessing]}, key=float)
    least = 1.001 * float(budgets[guessing].max())
    return Finding(
        code="near-chance",
        message=(
            f"the scores at {', '.join(named)} FLOPs are not above chance (rows "
            f"{rows_text(points.row_numbers[guessing].tolist())}, p > {SIGNIFICANT:g}): there the "
            f"law, which has no floor, would describe guessing; leave these out with --keep and a "
            f"condition on the FLOPs (more than {least:.4g}), take a task that tells small models "
            f"apart (BLiMP), or fit its answer_bits_per_byte"
        ),
        forbids=True,
    )
