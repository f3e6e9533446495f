"""From which compute on an arm is better: planted crossings are covered, none is invented."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest

from analysis.isoflop.frontier_gap import GapTrend, gap_at, gap_line, gap_trend, minimum_of
from analysis.isoflop.joint_curves import ArmRuns
from analysis.report.arm_trends_text import trends_text
from analysis.show.figure_data import gap_panel
from analysis.sweep.arm_trends import arm_trends, frontiers
from analysis.sweep.freedoms import ArmFreedoms

BUDGETS = tuple(float(flops) for flops in np.geomspace(1e12, 1e15, 4))
LEVEL, SLOPE = -0.012, 0.004
"""The second arm is better by 0.012 nats at 1e12 FLOPs, and loses 0.004 per unit of ln C."""
CROSSING = BUDGETS[0] * math.exp(-LEVEL / SLOPE)


def planted_runs(
    chance: np.random.Generator,
    flops: float,
    *,
    gap: float,
    place: float,
    noise: float,
    order: float,
) -> list[ArmRuns]:
    """Two arms on seven sizes, two of them repeated on a second data order, which moves both."""
    orders = chance.normal(size=2) * order
    logs = np.append(np.linspace(-1.4, 1.4, 7), [0.0, -0.5])
    seeds = np.array([0] * 7 + [1] * 2)
    runs = []
    for arm in (0, 1):
        losses = 3 + arm * gap + 0.05 * (logs - place - 0.1 * arm) ** 2 + orders[seeds]
        losses = losses + noise * chance.normal(size=len(logs))
        runs.append(
            ArmRuns(
                sizes=np.exp(logs) * math.sqrt(flops),
                tokens=np.exp(-logs) * math.sqrt(flops),
                losses=losses,
                data_seeds=seeds,
                loops=np.ones(len(logs)),
            )
        )
    return runs


def planted_trend(
    chance: np.random.Generator, *, level: float, slope: float, noise: float = 0.004
) -> GapTrend:
    gaps = []
    for flops in BUDGETS:
        gap = level + slope * math.log(flops / BUDGETS[0])
        one, other = planted_runs(chance, flops, gap=gap, place=0.05, noise=noise, order=0.02)
        gaps.append(gap_at(one, other, flops))
    return gap_trend("dual", "standard", gaps)


def test_a_planted_crossing_comes_back_without_noise() -> None:
    trend = planted_trend(np.random.default_rng(0), level=LEVEL, slope=SLOPE, noise=1e-7)
    assert trend.line is not None
    assert trend.line.slope == pytest.approx(SLOPE, rel=1e-3)
    assert trend.crossing is not None
    assert trend.crossing.train_flops == pytest.approx(CROSSING, rel=1e-3)
    assert trend.crossing.better_beyond == "dual"  # the other arm's loss grows beside it
    assert all(gap.paired for gap in trend.gaps)
    assert trend.status == "ok"


def test_a_planted_gap_and_crossing_are_covered() -> None:
    """95 % intervals of gap, slope and crossing hold the truth in 92 to 98 % of sweeps."""
    chance, held = np.random.default_rng(0), {"gap": [], "slope": [], "crossing": []}
    for _ in range(400):
        trend = planted_trend(chance, level=LEVEL, slope=SLOPE)
        for gap in trend.gaps:
            truth = LEVEL + SLOPE * math.log(gap.train_flops / BUDGETS[0])
            assert gap.interval is not None
            held["gap"].append(gap.interval[0] <= truth <= gap.interval[1])
        assert trend.line is not None
        low, high = trend.line.slope_interval
        held["slope"].append(low <= SLOPE <= high)
        if trend.crossing is not None:
            low, high = trend.crossing.not_before or 0.0, trend.crossing.not_after or math.inf
            held["crossing"].append(low <= CROSSING <= high)
    assert len(held["crossing"]) > 350
    coverage = {name: float(np.mean(each)) for name, each in held.items()}
    assert all(0.92 <= share <= 0.98 for share in coverage.values()), coverage


def test_parallel_arms_cross_nowhere() -> None:
    chance = np.random.default_rng(1)
    trends = [planted_trend(chance, level=0.006, slope=0.0) for _ in range(300)]
    assert np.mean([trend.crossing is not None for trend in trends]) <= 0.08
    refused = next(trend for trend in trends if trend.crossing is None)
    assert any("holds zero" in reason.message for reason in refused.reasons)
    assert "no crossing is told" in trends_text([refused])


def test_what_lies_far_beyond_is_told_on_one_side() -> None:
    chance = np.random.default_rng(2)
    trend = planted_trend(chance, level=-0.2, slope=0.004)  # zero at 5e33
    assert trend.crossing is not None
    assert trend.crossing.train_flops is None
    assert trend.crossing.not_after is None
    assert trend.crossing.not_before == pytest.approx(10 * BUDGETS[-1])
    assert "not better before 1e+16 FLOPs" in trends_text([trend])
    assert gap_panel(trend).crossing is None


def test_gaps_off_a_line_widen_it_and_are_said() -> None:
    gaps = []
    for place, flops in enumerate(BUDGETS):
        one, other = planted_runs(
            np.random.default_rng(place), flops, gap=0.1 * place**2, place=0.0, noise=1e-3, order=0
        )
        gaps.append(gap_at(one, other, flops))
    trend = gap_trend("dual", "standard", gaps)
    assert any(reason.code == "not-a-line" for reason in trend.reasons)
    assert trend.line is not None
    assert trend.line.degrees == 2
    assert trend.line.slope_interval[1] - trend.line.slope_interval[0] > 0.02


def test_the_error_of_a_minimum_is_its_scatter_over_sweeps() -> None:
    chance, found = np.random.default_rng(3), []
    for _ in range(300):
        one, _ = planted_runs(chance, 1e12, gap=0.0, place=0.05, noise=0.004, order=0.0)
        minimum = minimum_of(one, 1e12)
        assert not isinstance(minimum, str)
        found.append(minimum)
    minima, errors = np.array(found).T
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(minima.std(), rel=0.15)
    assert minima.mean() == pytest.approx(3.0, abs=0.001)


def frame_of_arms(**columns: object) -> pl.DataFrame:
    chance, rows = np.random.default_rng(4), []
    for flops in BUDGETS:
        gap = LEVEL + SLOPE * math.log(flops / BUDGETS[0])
        pair = planted_runs(chance, flops, gap=gap, place=0.0, noise=1e-4, order=0.02)
        for arm, runs in zip(("dual", "standard"), pair, strict=True):
            for n, d, loss, seed in zip(
                runs.sizes, runs.tokens, runs.losses, runs.data_seeds, strict=True
            ):
                row = {"arm": arm, "budget": flops, "params": n, "tokens": d, "loss": loss}
                rows.append(row | {"data_seed": seed, "num_layers": 2})
    return pl.DataFrame(rows).with_columns(**columns)


def test_a_frame_of_a_sweep_gives_trends_and_frontiers() -> None:
    (trend,) = arm_trends(frame_of_arms())
    assert (trend.one, trend.other) == ("dual", "standard")
    assert trend.crossing is not None
    assert trend.crossing.train_flops == pytest.approx(CROSSING, rel=0.1)
    document = json.loads(json.dumps(trend.to_dict(), allow_nan=False))
    assert document["crossing"]["better_beyond"] == "dual"
    found = frontiers(frame_of_arms())
    losses = [point.loss_nats for point in found["dual"]]
    lowest = frame_of_arms().filter(pl.col("arm") == "dual").group_by("budget").agg(pl.min("loss"))
    assert len(losses) == 4
    assert losses != sorted(lowest["loss"], reverse=True)  # minima of curves, not lowest losses


def test_arms_are_compared_at_common_depths_and_unequal_freedoms_are_said() -> None:
    deep = pl.when((pl.col("arm") == "dual") & (pl.col("data_seed") == 1)).then(4).otherwise(2)
    freedoms = [
        ArmFreedoms(arm=arm, searched=(), shared=shared)
        for arm, shared in (
            ("dual", {"depth": "searched", "width": "searched"}),
            ("standard", {"depth": "fixed", "width": "searched"}),
        )
    ]
    for each in freedoms:
        each.shared.update({"feed-forward ratio": "fixed", "step scales": "none"})
    (trend,) = arm_trends(frame_of_arms(num_layers=deep), freedoms)
    said = {reason.code: reason.message for reason in trend.reasons}
    assert said["unequal-depths"].startswith("8 runs at a depth that only one of both arms had")
    assert "depth" in said["unequal-freedoms"]


def looped(
    chance: np.random.Generator, losses: Sequence[float], *, loops: Sequence[float], noise: float
) -> ArmRuns:
    """An arm at 1e14 FLOPs whose every K has a curve of its own of six sizes, at these minima."""
    logs = np.tile(np.linspace(-1.4, 1.4, 6), len(loops))
    minima = np.repeat(losses, 6)
    return ArmRuns(
        sizes=np.exp(logs) * 1e7,
        tokens=np.exp(-logs) * 1e7,
        losses=minima + 0.05 * (logs - 0.1) ** 2 + noise * chance.normal(size=len(logs)),
        data_seeds=np.zeros(len(logs), dtype=np.int64),
        loops=np.repeat(np.array(loops, dtype=np.float64), 6),
    )


def test_an_arm_stands_at_the_minimum_of_its_best_loop_count() -> None:
    chance = np.random.default_rng(0)
    dual = looped(chance, (3.00, 3.03, 3.10), loops=(1, 2, 4), noise=1e-4)
    standard = looped(chance, (3.01,), loops=(1,), noise=1e-4)
    gap = gap_at(dual, standard, 1e14)
    assert gap.gap_nats == pytest.approx(0.01, abs=1e-3)
    assert gap.loops == (1, 1)
    found = minimum_of(dual, 1e14)
    assert not isinstance(found, str)
    assert found[0] == pytest.approx(3.0, abs=1e-3)
    back = gap_at(standard, dual, 1e14)
    assert gap.interval is not None
    assert back.interval == pytest.approx([-end for end in reversed(gap.interval)])


@pytest.mark.parametrize("minima", [(3.0, 3.0, 3.0), (3.0, 3.004, 3.01), (3.0, 3.05, 3.2)])
def test_the_interval_holds_the_gap_of_the_best_loop_count(minima: tuple[float, ...]) -> None:
    """Whichever K looks best: all alike, told apart by nothing, and told apart at once."""
    chance = np.random.default_rng(5)
    held = 0
    for _ in range(300):
        dual = looped(chance, minima, loops=(1, 2, 4), noise=0.005)
        gap = gap_at(dual, looped(chance, (3.01,), loops=(1,), noise=0.005), 1e14)
        assert gap.interval is not None
        held += gap.interval[0] <= 0.01 <= gap.interval[1]
    assert held >= 0.94 * 300


def test_a_trend_of_several_loop_counts_is_covered() -> None:
    """The slope's interval too, although the least of several minima lies low on average."""
    chance, held = np.random.default_rng(6), 0
    for _ in range(200):
        gaps = []
        for flops in BUDGETS:
            gap = LEVEL + SLOPE * math.log(flops / BUDGETS[0])
            dual = looped(chance, (3.0, 3.002, 3.01), loops=(1, 2, 4), noise=0.005)
            standard = looped(chance, (3.0 + gap,), loops=(1,), noise=0.005)
            gaps.append(gap_at(dual, standard, flops))
        line = gap_line(gaps)
        assert line is not None
        low, high = line.slope_interval
        held += low <= SLOPE <= high
    assert held >= 0.94 * 200


def test_an_order_that_only_a_left_out_loop_count_shared_is_none() -> None:
    """K = 4 alone saw order 1, and has too few sizes: the others are compared as if it were not."""
    chance = np.random.default_rng(7)
    dual = looped(chance, (3.0,), loops=(1,), noise=0.005)
    few = looped(chance, (3.1,), loops=(4,), noise=0.005)
    seen = {name: each[:2] for name, each in vars(few).items()}
    seen |= {"data_seeds": np.ones(2, dtype=np.int64)}
    both = ArmRuns(**{n: np.concatenate([mine, seen[n]]) for n, mine in vars(dual).items()})
    standard = looped(chance, (3.01,), loops=(1,), noise=0.005)
    other = ArmRuns(**vars(standard) | {"data_seeds": np.array([0, 0, 0, 0, 1, 1])})
    measured = gap_at(both, other, 1e14)
    assert measured.left_out == ((4.0,), ())
    assert measured.interval == gap_at(dual, other, 1e14).interval


def test_a_loop_count_without_a_minimum_is_left_out_and_said() -> None:
    few = pl.when((pl.col("arm") == "dual") & (pl.col("data_seed") == 1)).then(4).otherwise(2)
    (trend,) = arm_trends(frame_of_arms(num_loops=few))
    said = {reason.code: reason.message for reason in trend.reasons}
    assert said["loops-left-out"].startswith("what is said of dual is said of some of its K alone")
    assert "K = 4 at" in said["loops-left-out"]
    assert all(gap.loops == (2, 2) for gap in trend.gaps)


def test_several_loops_on_one_curve_are_said() -> None:
    rank = pl.col("params").rank("ordinal").over("arm", "budget")
    loops = pl.when(pl.col("arm") != "dual").then(2).otherwise(2 * (1 + rank % 3))
    (trend,) = arm_trends(frame_of_arms(num_loops=loops))
    said = {reason.code: reason.message for reason in trend.reasons}
    assert said["mixed-loops"].startswith("dual ran with K = 2, 4, 6 at")
    assert all(gap.gap_nats is not None for gap in trend.gaps)
    assert trend.line is None
    (plain,) = arm_trends(frame_of_arms(num_loops=pl.lit(2)))
    assert "mixed-loops" not in {reason.code for reason in plain.reasons}


def test_too_few_sizes_or_budgets_are_refused_with_the_reason() -> None:
    frame = frame_of_arms().filter(pl.col("data_seed") == 0)
    (trend,) = arm_trends(frame.filter(pl.col("budget") < 5e13))
    assert trend.line is None
    assert trend.status == "refused"
    assert "a trend needs gaps at 3 budgets, but 2 of 2 have one" in trends_text([trend])
    few = frame.filter(pl.col("params") < pl.col("budget").sqrt() * 0.7)
    (trend,) = arm_trends(few)
    assert all(gap.refused for gap in trend.gaps)
    assert gap_line(trend.gaps) is None
    json.dumps(trend.to_dict(), allow_nan=False)


def test_the_figure_shows_gaps_line_and_crossing() -> None:
    (trend,) = arm_trends(frame_of_arms())
    drawn = gap_panel(trend)
    assert trend.line is not None
    assert trend.crossing is not None
    np.testing.assert_allclose(drawn.budgets, BUDGETS)
    np.testing.assert_allclose(drawn.gaps, [gap.gap_nats for gap in trend.gaps])
    value, (low, high) = trend.line.at(float(drawn.flops[40]))
    np.testing.assert_allclose(drawn.line[40], [value, low, high])
    assert drawn.crossing == (
        trend.crossing.train_flops,
        trend.crossing.not_before,
        trend.crossing.not_after,
    )
    assert drawn.flops[0] == pytest.approx(BUDGETS[0] / 10)
    assert drawn.flops[-1] == pytest.approx(BUDGETS[-1] * 10)
