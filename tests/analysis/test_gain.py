"""The compute-equivalent gain: recovered, covered, refused."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.sweep.gain import FrontierPoint, compute_equivalent_gains

BUDGETS = (1e12, 3e12, 1e13, 3e13, 1e14)


def law(flops: float) -> float:
    return 1.6 + 320 * flops**-0.16


def frontier(
    gain: float, *, noise: float | None = 0.005, chance=None, budgets=BUDGETS
) -> list[FrontierPoint]:
    """An arm that is worth ``gain`` times its compute."""
    return [
        FrontierPoint(
            train_flops=flops,
            loss_nats=law(gain * flops) + (chance.normal() * noise if chance else 0),
            noise_nats=noise,
        )
        for flops in budgets
    ]


def test_a_planted_gain_comes_back():
    found = compute_equivalent_gains({"standard": frontier(1.0), "dual": frontier(1.4)})
    inside = [gain for gain in found if gain.gain is not None]
    assert [gain.gain for gain in inside] == pytest.approx([1.4] * 4, rel=0.01)
    for gain in inside:
        assert gain.interval is not None
        assert gain.interval[0] < 1.4 < gain.interval[1]


def test_beyond_the_standard_arms_range_there_is_no_number():
    found = compute_equivalent_gains({"standard": frontier(1.0), "dual": frontier(1.4)})
    last = found[-1]
    assert last.gain is None
    assert "beyond the standard arm's range" in str(last.refused)
    worse = compute_equivalent_gains({"standard": frontier(1.0), "wide": frontier(0.5)})
    assert worse[0].gain is None
    assert worse[1].gain == pytest.approx(0.5, rel=0.02)


def test_fewer_than_three_budgets_are_refused():
    short = {"standard": frontier(1.0, budgets=BUDGETS[:2]), "dual": frontier(1.1)}
    assert all("3 budgets, got 2" in str(gain.refused) for gain in compute_equivalent_gains(short))
    alone = compute_equivalent_gains({"dual": frontier(1.1)})
    assert all(gain.gain is None for gain in alone)


def test_without_seed_noise_there_is_no_interval():
    plain = {"standard": frontier(1.0, noise=None), "dual": frontier(1.2, noise=None)}
    gain = compute_equivalent_gains(plain)[0]
    assert gain.gain == pytest.approx(1.2, rel=0.01)
    assert gain.interval is None
    assert "no interval" in str(gain.refused)


def test_losses_that_do_not_fall_are_refused():
    rising = frontier(1.0)[::-1]
    swapped = [
        FrontierPoint(train_flops=flops, loss_nats=point.loss_nats, noise_nats=0.01)
        for flops, point in zip(BUDGETS, rising, strict=True)
    ]
    found = compute_equivalent_gains({"standard": swapped, "dual": frontier(1.2)})
    assert all("does not fall" in str(gain.refused) for gain in found)


def test_intervals_cover_the_truth():
    chance = np.random.default_rng(0)
    covered = total = 0
    for _ in range(60):
        frontiers = {
            "standard": frontier(1.0, chance=chance),
            "dual": frontier(1.3, chance=chance, budgets=BUDGETS[1:4]),
        }
        for gain in compute_equivalent_gains(frontiers, num_resamples=200):
            if gain.interval is not None:
                covered += gain.interval[0] <= 1.3 <= gain.interval[1]
                total += 1
    assert total > 150
    assert 0.88 < covered / total <= 1.0
