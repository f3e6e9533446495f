"""Iso-FLOP curves, their refusals, and the exponents that follow from them."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from analysis.gauntlet.published_cases import APPROACH2_LAWS, approach2_table
from analysis.isoflop.isoflop_curves import IsoflopCurve, fit_curve
from analysis.isoflop.isoflop_fit import fit_isoflop
from analysis.isoflop.power_line import power_line
from analysis.laws.derived_quantities import optimal_params
from spaces.errors import RequestError
from tests.analysis.planted import CHINCHILLA, budget_table, chinchilla_table


def curve_of(sizes: list[float], losses: list[float], method: str = "parabola") -> IsoflopCurve:
    x = np.array(sizes)
    return fit_curve(x, np.array(losses), 1e20 / (6 * x), budget=1e20, method=method)  # type: ignore[arg-type]


SIZES = [1e8, 2e8, 4e8, 8e8, 16e8]


def test_an_exact_parabola() -> None:
    x = np.log(np.array(SIZES))
    losses = 2.5 + 0.1 * (x - np.log(5e8)) ** 2
    curve = curve_of(SIZES, losses.tolist())
    assert curve.status == "ok"
    assert curve.n_star == pytest.approx(5e8, rel=1e-9)
    assert curve.d_star == pytest.approx(1e20 / (6 * 5e8), rel=1e-9)
    assert curve.loss_star == pytest.approx(2.5, rel=1e-12)
    half = np.sqrt(0.005 * 2.5 / 0.1)
    assert curve.regret_set == pytest.approx((5e8 * np.exp(-half), 5e8 * np.exp(half)), rel=2e-3)
    assert curve.n_star_interval == pytest.approx((5e8, 5e8), rel=1e-5)


@pytest.mark.parametrize("method", ["parabola", "cubic", "akima"])
def test_methods_find_a_symmetric_minimum(method: str) -> None:
    sizes = np.geomspace(1e7, 1e9, 9)
    losses = 2.0 * np.cosh(0.2 * np.log(sizes / 1e8))
    curve = curve_of(sizes.tolist(), losses.tolist(), method)
    assert curve.n_star == pytest.approx(1e8, rel=5e-3)


@pytest.mark.parametrize(
    ("losses", "code", "words"),
    [
        ([2.0, 2.3, 2.4, 2.3, 2.1], "concave-curve", "opens downwards"),
        ([3.0, 2.8, 2.6, 2.5, 2.41], "minimum-outside-data", "add larger models"),
        ([2.3, 2.5, 2.31, 2.6, 2.9], "minimum-at-edge", "the smallest size has the lowest loss"),
        ([2.5, 2.5, 2.5, 2.5, 2.5], "constant-loss", "no size is better"),
    ],
)
def test_refusals_of_one_curve(losses: list[float], code: str, words: str) -> None:
    curve = curve_of(SIZES, losses)
    assert curve.status == "refused"
    assert curve.n_star is None
    assert curve.regret_set is None
    (reason,) = [reason for reason in curve.reasons if reason.code == code]
    assert words in reason.message
    assert "budget 1e+20" in reason.message
    json.dumps(curve.to_dict(), allow_nan=False)


def test_three_points_are_refused() -> None:
    curve = curve_of(SIZES[:3], [2.5, 2.4, 2.5])
    assert curve.reasons[0].code == "too-few-points"
    assert curve.status == "refused"


def test_near_duplicates_are_no_points() -> None:
    refused = curve_of([1e8, 1.005e8, 4e8, 8e8], [2.5, 2.5, 2.4, 2.5])
    assert refused.reasons[0].code == "too-few-points"
    warned = curve_of([1e8, 1.005e8, 2e8, 4e8, 8e8], [2.52, 2.52, 2.4, 2.42, 2.6])
    assert warned.reasons[0].code == "near-duplicate-sizes"
    assert warned.n_star is not None


def test_a_minimum_below_zero_is_no_loss() -> None:
    curve = curve_of(SIZES, [9.0, 0.3, 0.01, 0.3, 9.0])
    assert curve.n_star is None
    assert curve.reasons[-1].code == "negative-loss"


def test_an_off_centre_minimum_is_warned_about() -> None:
    x = np.log(np.array(SIZES))
    curve = curve_of(SIZES, (2.5 + 0.1 * (x - np.log(1.3e8)) ** 2).tolist(), "akima")
    assert curve.status in ("warn", "refused")
    curve = curve_of(SIZES, (2.5 + 0.1 * (x - np.log(1.5e8)) ** 2).tolist())
    assert [reason.code for reason in curve.reasons] == ["off-centre-grid"]


def test_unknown_method() -> None:
    with pytest.raises(RequestError, match="--curve takes parabola, cubic, akima"):
        curve_of(SIZES, [1.0] * 5, "spline")


def test_vertex_interval_covers() -> None:
    """Fieller's interval holds the planted minimum in 95 % of noisy curves."""
    generator = np.random.default_rng(0)
    x = np.log(np.array([*SIZES, 32e8]))
    exact = 2.5 + 0.1 * (x - np.log(5e8)) ** 2
    hits = []
    for _ in range(600):
        curve = curve_of([*SIZES, 32e8], (exact + 0.01 * generator.normal(size=6)).tolist())
        if curve.n_star_interval is not None:
            hits.append(curve.n_star_interval[0] <= 5e8 <= curve.n_star_interval[1])
    assert len(hits) > 550
    assert 0.92 < np.mean(hits) < 0.98


def test_exponents_and_the_surface_beside_them() -> None:
    found = fit_isoflop(budget_table(noise=0.001), at_flops=(1e22,))
    truth = CHINCHILLA["beta"] / (CHINCHILLA["alpha"] + CHINCHILLA["beta"])
    interval = found.intervals["a"]
    assert interval is not None
    assert interval[0] <= truth <= interval[1]
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["law"] == "isoflop"
    assert document["parameters"]["a"] + document["parameters"]["b"] == pytest.approx(1, abs=1e-6)
    assert {"budget", "n_star", "d_star", "loss_star", "regret_set", "status"} <= set(
        document["curves"][0]
    )
    comparison = document["derived"]["surface"]
    assert comparison["difference"] == pytest.approx(
        comparison["curves_a"] - comparison["surface_a"]
    )
    assert found.certificate.has("curves-and-surface")
    (row,) = document["derived"]["frontier"]
    assert row["outside_data_factor"] == pytest.approx(1e22 / 3e20, rel=1e-6)
    assert row["n_star_interval"][0] < optimal_params(CHINCHILLA, 1e22) < row["n_star_interval"][1]


def test_bias_of_curves_is_seen_against_the_surface() -> None:
    """The parabola is biased without any noise; the surface is exact on the same rows."""
    found = fit_isoflop(approach2_table(APPROACH2_LAWS["asymmetric"], 16.0), at_flops=(1e24,))
    assert found.surface is not None
    assert found.surface.optimum == pytest.approx(APPROACH2_LAWS["asymmetric"], rel=1e-9)
    (reason,) = found.certificate.reasons
    assert reason.code == "curves-and-surface-disagree"
    comparison = found.comparison()
    assert comparison is not None
    assert comparison["difference"] == pytest.approx(0.0, abs=1e-6)
    assert comparison["n_star_ratios"][0]["ratio"] == pytest.approx(1 / (1 - 0.23116), rel=1e-3)


def test_too_few_optima_refuse_exponents_but_not_curves() -> None:
    two = budget_table().filter(pl.col("flops") < 5e18)
    found = fit_isoflop(two.with_columns(budget=pl.col("flops")), with_surface=False)
    assert found.status == "refused"
    assert found.parameters == dict.fromkeys(("a", "b", "n_coefficient", "d_coefficient"))
    assert [curve.n_star is not None for curve in found.curves].count(True) == len(found.curves)
    assert found.certificate.has("too-few-curves")
    json.dumps(found.to_dict(), allow_nan=False)


def test_flops_that_do_not_match_sizes_and_tokens() -> None:
    table = budget_table(noise=0.0).with_columns(pl.col("tokens") * (pl.col("flops") / 1e18) ** 0.2)
    found = fit_isoflop(table, with_surface=False)
    assert found.certificate.has("exponents-do-not-sum")


def test_a_table_without_budgets_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="iso-FLOP curves need budgets"):
        fit_isoflop(chinchilla_table())


def test_power_line_is_weighted_least_squares() -> None:
    generator = np.random.default_rng(0)
    flops, std = np.geomspace(1, 1e4, 8), generator.uniform(0.1, 1, 8)
    values = np.exp(0.3 + 0.5 * np.log(flops) + 0.1 * generator.normal(size=8))
    line = power_line(flops, values, std)
    slope, level = np.polyfit(np.log(flops), np.log(values), 1, w=1 / std)
    assert line.exponent == pytest.approx(slope, rel=1e-12)
    assert line.log_coefficient == pytest.approx(level, rel=1e-10)
