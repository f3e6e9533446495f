"""One curve over all budgets: its exponent, its interval, and when there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.isoflop.isoflop_checks import line_reasons
from analysis.isoflop.isoflop_fit import size_line_of
from analysis.isoflop.pooled_curve import PooledRuns, pooled_line
from analysis.isoflop.power_line import PowerLine
from experiments.benchmarks.laws.isoflop_coverage import TRUE_A
from experiments.benchmarks.laws.noise_coverage import design, noise


def runs(noise: float = 0.0, num_budgets: int = 4, seed: int = 0, bend: float = 0.05) -> PooledRuns:
    """Five sizes a budget around N* = 1e6 (C / C0)^0.4, with skew, and a level of each budget."""
    budgets = np.repeat(np.arange(num_budgets), 5)
    log_flops = np.log(1e15) + np.log(2.0) * budgets
    u = np.tile(np.log(np.geomspace(0.25, 4.0, 5)), num_budgets)
    z = log_flops - log_flops.mean()
    levels = np.array([0.9, 0.7, 0.62, 0.5, 0.45, 0.4])[budgets]
    exact = levels + np.exp(-0.2 * z) * (bend * u**2 + 0.004 * u**3)
    return PooledRuns(
        log_flops=log_flops,
        log_sizes=np.log(1e6) + 0.4 * z + u,
        log_losses=exact + noise * np.random.default_rng(seed).normal(size=len(u)),
        budgets=budgets,
    )


def test_without_noise_it_is_exact() -> None:
    line = pooled_line(runs())
    assert isinstance(line, PowerLine)
    assert line.exponent == pytest.approx(0.4, abs=1e-6)
    assert line.at(float(np.exp(line.centre)))[0] == pytest.approx(1e6, rel=1e-5)


def test_one_wild_run_moves_little() -> None:
    good = runs(0.002)
    losses = good.log_losses.copy()
    losses[7] += 0.1
    line, moved = pooled_line(good), pooled_line(replace(good, log_losses=losses))
    assert isinstance(line, PowerLine)
    assert isinstance(moved, PowerLine)
    assert abs(moved.exponent - line.exponent) < 0.05


def test_interval_covers_where_a_budget_shares_noise() -> None:
    """60 simulated sweeps of a law, of four budgets; 400 a row stand in docs/laws.md."""
    points, generator = design("chinchilla", 4, 1), np.random.default_rng(3)
    hits = []
    for _ in range(60):
        noisy = replace(points, losses=points.losses * np.exp(noise(points, 0.9, generator)))
        line = size_line_of(noisy, "pooled")
        assert line is not None
        hits.append(line.exponent_interval[0] <= TRUE_A <= line.exponent_interval[1])
    assert np.mean(hits) > 0.88


def test_no_curve_where_losses_do_not_bend() -> None:
    assert "do not bend enough" in str(pooled_line(runs(0.01, bend=0.001)))


@pytest.mark.parametrize("seed", range(8))
def test_losses_without_any_curve_give_a_refusal_or_a_wide_interval(seed: int) -> None:
    chance, there = np.random.default_rng(seed), runs()
    line = pooled_line(replace(there, log_losses=chance.normal(size=len(there.log_losses))))
    assert isinstance(line, str) or np.isfinite(line.covariance).all()


def test_too_few_runs() -> None:
    few = runs(0.002, num_budgets=2)
    assert "too few" in str(pooled_line(few))


def test_minimum_beside_the_sizes() -> None:
    there = runs(0.001)
    larger = there.log_sizes > np.log(1e6) + 0.4 * (there.log_flops - there.log_flops.mean()) + 0.1
    half = PooledRuns(**{name: values[larger] for name, values in vars(there).items()})
    assert isinstance(pooled_line(half), str)


@pytest.mark.parametrize(("half_width", "status"), [(0.1, None), (0.3, "warn"), (0.5, "refused")])
def test_a_wide_interval_is_a_warning_then_a_refusal(half_width: float, status: str | None) -> None:
    line = pooled_line(runs())
    assert isinstance(line, PowerLine)
    error = half_width / 2.2
    wide = replace(line, covariance=np.diag([0.01, error**2]), degrees=10)
    found = [
        each for each in line_reasons(wide, replace(line, exponent=0.6)) if "a" in each.parameters
    ]
    assert [each.status for each in found] == ([status] if status else [])
