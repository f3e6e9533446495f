"""Does compute where it pays, pay? Loss against FLOPs per token where tokens leave early.

Three questions of every threshold: what it loses to the model as it is; whether the model's own
scores choose better than chance does with the same histogram; and whether a model that was trained
at no more FLOPs per token does better. Validation sequences are drawn again for the intervals.

Shapes in names: R resamples, S sequences, P points, D draws.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analysis.routing.resamples import Array, interval, resample_weights
from spaces.price import Convention

WHOLE = "model"
"""``by`` of the model as it is."""
SAME_FLOPS = 1.001
"""Costs up to this ratio are the same."""
FEWEST_POINTS = 4
"""Costs that a law needs."""


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """Another run, measured on the same validation windows."""

    config_hash: str
    arm: str
    flops_per_token: float
    """Forward."""
    loss_nats: float
    nats_S: Array | None = None
    """Of each sequence; None where it left no weights."""


def frontier(runs: Iterable[TrainedRun]) -> list[TrainedRun]:
    """Those that no run of at most their cost betters, cheapest first."""
    found: list[TrainedRun] = []
    for run in sorted(runs, key=lambda each: (each.flops_per_token, each.loss_nats)):
        if not found or run.loss_nats < found[-1].loss_nats:
            found.append(run)
    return found


@dataclass(frozen=True, kw_only=True)
class ExitPoint:
    """One threshold."""

    by: str
    """gate, router, or model for the model as it is."""
    threshold: float
    loops: float
    """Loops that a token is in, mean over tokens and layers."""
    flops_per_token: float
    """Forward, the whole model's, routers and gates included."""
    microseconds_per_token: float
    """Measured."""
    loss_nats: float
    less_whole: float
    """Loss less that of the model as it is."""
    less_whole_interval: tuple[float, float]
    """95 %."""
    random_nats: float | None
    """Loss of random exits with the same histogram; None where all tokens do the same."""
    less_random: float | None
    """Loss less that."""
    less_random_interval: tuple[float, float] | None
    """95 %."""
    trained: TrainedRun | None
    """The best run trained at no more FLOPs per token; None where there is none."""
    less_trained: float | None
    """Loss less that of the trained run; both are of one seed."""
    less_trained_interval: tuple[float, float] | None
    """95 %, over sequences; None where the run left no weights."""


@dataclass(frozen=True, kw_only=True)
class ExitLaw:
    """``loss = a - b log2(FLOPs per token)`` over the thresholds of one score."""

    nats_per_doubling: float
    """b."""
    interval: tuple[float, float]
    """95 %, over sequences; how far the points are from a line is not in it."""
    largest_miss_nats: float
    """Of any point from the line."""


@dataclass(frozen=True, kw_only=True)
class ExitCurve:
    """The thresholds of one score, fewest FLOPs first."""

    by: str
    points: tuple[ExitPoint, ...]
    law: ExitLaw | None
    refusal: str | None
    """Why there is no law."""


def exit_curves(
    rows: pl.DataFrame,
    trained: Sequence[TrainedRun],
    *,
    convention: Convention,
    context_length: int,
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[ExitPoint, tuple[ExitCurve, ...]]:
    """The model as it is, and the curve of every score, from the rows of a probe."""
    rows = rows.with_columns(flops=pl.col(f"flops_{convention}") / context_length)
    num_sequences = rows["sequence"].n_unique()
    weights_RS = resample_weights(num_sequences, resamples, np.random.default_rng(seed))
    judge = _Judge(rows, trained, weights_RS / num_sequences)
    whole = judge.point(WHOLE, 0.0)
    scores = rows.filter(pl.col("by") != WHOLE)["by"].unique(maintain_order=True)
    return whole, tuple(judge.curve(by) for by in scores)


class _Judge:
    def __init__(
        self, rows: pl.DataFrame, trained: Sequence[TrainedRun], weights_RS: Array
    ) -> None:
        self._rows, self._trained, self._weights_RS = rows.sort("sequence"), trained, weights_RS
        self._whole_S = self._nats(self._of(WHOLE, 0.0))[0]

    def _of(self, by: str, threshold: float) -> pl.DataFrame:
        return self._rows.filter(pl.col("by") == by, pl.col("threshold") == threshold)

    def _nats(self, rows: pl.DataFrame) -> Array:
        """D x S: by the score alone, or of every random draw."""
        draws = rows.partition_by("draw", maintain_order=True)
        return np.stack([each["nats"].to_numpy() for each in draws])

    def curve(self, by: str) -> ExitCurve:
        """All thresholds of a score."""
        thresholds = self._rows.filter(pl.col("by") == by)["threshold"].unique().to_list()
        points = sorted(
            (self.point(by, each) for each in thresholds), key=lambda each: each.flops_per_token
        )
        refusal = why_no_law(points)
        law = None if refusal else self._law(by, points)
        return ExitCurve(by=by, points=tuple(points), law=law, refusal=refusal)

    def point(self, by: str, threshold: float) -> ExitPoint:
        """One threshold."""
        rows = self._of(by, threshold)
        scored, random = rows.filter(pl.col("draw").is_null()), rows.filter(pl.col("draw") >= 0)
        nats_S, flops = self._nats(scored)[0], scored.select(pl.mean("flops")).item()
        random_S = self._nats(random).mean(0) if len(random) else None
        trained = self._best_trained(flops)
        less_whole, less_whole_interval = self._less(nats_S, self._whole_S)
        less_random, less_random_interval = self._less(nats_S, random_S)
        less_trained, less_trained_interval = self._less(
            nats_S, None if trained is None else trained.nats_S
        )
        if trained is not None and less_trained is None:
            less_trained = float(nats_S.mean()) - trained.loss_nats
        assert less_whole is not None
        assert less_whole_interval is not None
        return ExitPoint(
            by=by,
            threshold=threshold,
            loops=scored.select(pl.mean("loops")).item(),
            flops_per_token=flops,
            microseconds_per_token=float(scored["microseconds_per_token"][0]),
            loss_nats=float(nats_S.mean()),
            less_whole=less_whole,
            less_whole_interval=less_whole_interval,
            random_nats=None if random_S is None else float(random_S.mean()),
            less_random=less_random,
            less_random_interval=less_random_interval,
            trained=trained,
            less_trained=less_trained,
            less_trained_interval=less_trained_interval,
        )

    def _less(
        self, nats_S: Array, other_S: Array | None
    ) -> tuple[float | None, tuple[float, float] | None]:
        """Mean difference and its interval, sequence by sequence."""
        if other_S is None:
            return None, None
        return float((nats_S - other_S).mean()), interval(self._weights_RS @ (nats_S - other_S))

    def _best_trained(self, flops: float) -> TrainedRun | None:
        found = [each for each in self._trained if each.flops_per_token <= SAME_FLOPS * flops]
        return min(found, key=lambda each: each.loss_nats, default=None)

    def _law(self, by: str, points: Sequence[ExitPoint]) -> ExitLaw:
        doublings_P = np.log2([each.flops_per_token for each in points])
        rows = [self._of(by, each.threshold).filter(pl.col("draw").is_null()) for each in points]
        losses_RP = self._weights_RS @ np.stack([self._nats(each)[0] for each in rows], axis=1)
        losses_P = np.array([each.loss_nats for each in points])
        slope, start = np.polyfit(doublings_P, losses_P, 1)
        slopes_R = np.polyfit(doublings_P, losses_RP.T, 1)[0]
        return ExitLaw(
            nats_per_doubling=-float(slope),
            interval=interval(-slopes_R),
            largest_miss_nats=float(np.abs(start + slope * doublings_P - losses_P).max()),
        )


def why_no_law(points: Sequence[ExitPoint]) -> str | None:
    """Why points, fewest FLOPs first, follow no law of test-time compute; None where they may."""
    if len({each.flops_per_token for each in points}) < FEWEST_POINTS:
        return f"a law needs {FEWEST_POINTS} different costs"
    for less, more in itertools.pairwise(points):
        if more.loss_nats > less.loss_nats:
            return (
                f"the loss does not fall with compute: {less.loss_nats:.4f} nats at "
                f"{less.flops_per_token:,.0f} FLOPs per token, but {more.loss_nats:.4f} at "
                f"{more.flops_per_token:,.0f}"
            )
    return None


def verdict(curve: ExitCurve, whole: ExitPoint) -> list[str]:
    """What the thresholds below the whole model's cost say, in sentences."""
    cheaper = [p for p in curve.points if p.flops_per_token * SAME_FLOPS < whole.flops_per_token]
    if not cheaper:
        return ["no threshold saves anything"]
    return [_against_random(cheaper), _against_trained(cheaper), _in_time(cheaper, whole)]


def _against_random(points: Sequence[ExitPoint]) -> str:
    told = [each.less_random_interval for each in points if each.less_random_interval is not None]
    if not told:
        return "no threshold parts tokens, so nothing is compared with random exit"
    return f"against random exit with the same histogram: {_counted(told)}"


def _against_trained(points: Sequence[ExitPoint]) -> str:
    differences = [
        each.less_trained_interval or (each.less_trained, each.less_trained)
        for each in points
        if each.less_trained is not None
    ]
    told = [(low, high) for low, high in differences if low is not None and high is not None]
    if not told:
        return (
            "no run of this home was trained at so few FLOPs per token: nothing says whether "
            "leaving early beats a smaller model"
        )
    helps = "it helps there" if any(high < 0 for _, high in told) else "it does not help"
    return f"against models trained at no more FLOPs per token: {_counted(told)}; {helps}"


def _counted(intervals: Sequence[tuple[float, float]]) -> str:
    better, worse = sum(high < 0 for _, high in intervals), sum(low > 0 for low, _ in intervals)
    return (
        f"better at {better} of {len(intervals)} thresholds, worse at {worse}, not told apart at "
        f"{len(intervals) - better - worse}"
    )


def _in_time(points: Sequence[ExitPoint], whole: ExitPoint) -> str:
    faster = sum(each.microseconds_per_token < whole.microseconds_per_token for each in points)
    return f"against the model's own time: faster at {faster} of {len(points)} thresholds"
