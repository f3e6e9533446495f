"""Does a curve of early exits say what was planted, and refuse what is no law?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from analysis.routing.exit_curve import (
    ExitCurve,
    ExitPoint,
    TrainedRun,
    exit_curves,
    frontier,
    verdict,
)

CONTEXT = 100
LOSS = {2.0: (400, 3.4), 0.6: (500, 3.2), 0.4: (700, 3.1), 0.2: (800, 3.05), 0.0: (1000, 3.0)}
"""FLOPs per token and loss of each threshold."""


def rows_of(
    losses: Mapping[float, tuple[int, float]] = LOSS, *, random: float = 0.1, seed: int = 0
) -> pl.DataFrame:
    """A whole model and a curve of 50 sequences; random exits lose so much more in the middle."""
    noise_S = np.random.default_rng(seed).normal(scale=0.5, size=50)
    noise_S -= noise_S.mean()
    frames = []

    def add(by: str, threshold: float, draw: int | None, flops: int, loss: float) -> None:
        small_S = 0.01 * np.random.default_rng([seed, int(1e4 * threshold)]).normal(size=50)
        count = len(noise_S)
        frames.append(
            pl.DataFrame(
                {
                    "by": by,
                    "threshold": threshold,
                    "draw": pl.Series([draw] * count, dtype=pl.Int32),
                    "sequence": np.arange(count),
                    "nats": loss + noise_S + small_S - small_S.mean(),
                    "loops": flops / 500,
                    "flops_full": [CONTEXT * flops] * count,
                    "microseconds_per_token": None if draw is not None else flops / 100,
                }
            )
        )

    add("model", 0.0, None, 1000, losses[0.0][1])
    for threshold, (flops, loss) in losses.items():
        add("gate", threshold, None, flops, loss)
        if threshold not in (0.0, 2.0):
            add("gate", threshold, 0, flops, loss + random)
            add("gate", threshold, 1, flops, loss + random)
    return pl.concat(frames)


def curve_of(
    rows: pl.DataFrame, trained: list[TrainedRun] | None = None
) -> tuple[ExitPoint, ExitCurve]:
    whole, (curve,) = exit_curves(
        rows, trained or [], convention="full", context_length=CONTEXT, resamples=300
    )
    return whole, curve


def run_of(flops: float, loss: float) -> TrainedRun:
    return TrainedRun(config_hash=f"{flops}", arm="wide", flops_per_token=flops, loss_nats=loss)


def test_a_curve_gives_costs_losses_and_differences_back() -> None:
    whole, curve = curve_of(rows_of())
    assert (whole.flops_per_token, whole.loss_nats) == (1000, pytest.approx(3.0))
    assert [each.flops_per_token for each in curve.points] == [400, 500, 700, 800, 1000]
    middle = curve.points[1]
    assert middle.less_whole == pytest.approx(0.2)
    assert middle.less_whole_interval[0] < 0.2 < middle.less_whole_interval[1]
    assert middle.less_whole_interval[1] - middle.less_whole_interval[0] < 0.02, "paired"
    assert middle.less_random == pytest.approx(-0.1)
    assert middle.less_random_interval is not None
    assert curve.points[0].less_random is None, "all tokens do the same"
    assert curve.points[-1].less_whole_interval[0] <= 0 <= curve.points[-1].less_whole_interval[1]


@pytest.mark.parametrize(
    ("random", "said"),
    [(0.1, "better at 3 of 3"), (-0.1, "worse at 3"), (0.0, "not told apart at 3")],
)
def test_the_verdict_on_random_exit(random: float, said: str) -> None:
    whole, curve = curve_of(rows_of(random=random))
    assert said in verdict(curve, whole)[0]


def test_the_verdict_on_trained_models_is_plain() -> None:
    whole, curve = curve_of(rows_of())
    assert "nothing says whether" in verdict(curve, whole)[1]
    whole, curve = curve_of(rows_of(), [run_of(450, 3.01), run_of(300, 3.6), run_of(900, 2.0)])
    trained = [each.trained.loss_nats for each in curve.points if each.trained is not None]
    assert trained == [3.6, 3.01, 3.01, 3.01, 2.0]
    assert curve.points[1].less_trained == pytest.approx(0.19)
    assert curve.points[1].less_trained_interval is None
    assert "better at 1 of 4 thresholds, worse at 3" in verdict(curve, whole)[1]
    assert verdict(curve, whole)[1].endswith("it helps there")
    nats_S = rows_of().filter(pl.col("by") == "model")["nats"].to_numpy() + 0.2
    whole, curve = curve_of(rows_of(), [replace(run_of(300, 3.2), nats_S=nats_S)])
    same = curve.points[1]
    assert same.less_trained_interval is not None
    assert same.less_trained_interval[0] < 0 < same.less_trained_interval[1]
    assert "better at 2 of 4 thresholds, worse at 1, not told" in verdict(curve, whole)[1]
    whole, curve = curve_of(rows_of(), [run_of(300, 2.9)])
    assert "it does not help" in verdict(curve, whole)[1]
    assert verdict(curve, whole)[2].endswith("faster at 4 of 4 thresholds")


def test_a_law_of_compute_is_found_where_there_is_one() -> None:
    line = {t: (flops, 8 - 0.5 * math.log2(flops)) for t, (flops, _) in LOSS.items()}
    _, curve = curve_of(rows_of(line))
    assert curve.law is not None
    assert curve.law.nats_per_doubling == pytest.approx(0.5)
    assert curve.law.interval[0] < 0.5 < curve.law.interval[1]
    assert curve.law.largest_miss_nats < 1e-9


def test_what_is_not_monotone_or_too_little_is_refused() -> None:
    _, curve = curve_of(rows_of(LOSS | {0.4: (700, 3.25)}))
    assert curve.law is None
    assert curve.refusal is not None
    assert "3.2000 nats at 500 FLOPs per token, but 3.2500 at 700" in curve.refusal
    _, few = curve_of(rows_of({t: LOSS[t] for t in (2.0, 0.4, 0.0)}))
    assert few.refusal == "a law needs 4 different costs"


def test_only_the_best_at_each_cost_stand_beside() -> None:
    runs = [run_of(500, 3.2), run_of(300, 3.4), run_of(400, 3.5), run_of(500, 3.1)]
    assert [each.loss_nats for each in frontier(runs)] == [3.4, 3.1]
