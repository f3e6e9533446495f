"""Whole fits: planted laws come back, scalings do not matter, the contract holds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from analysis.fit.fitting import fit
from analysis.laws.derived_quantities import optimal_loss, optimal_params
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.points.table_reading import points_from
from spaces.errors import RequestError
from tests.analysis.planted import (
    CAPACITY,
    CHINCHILLA,
    budget_table,
    capacity_columns,
    chinchilla_table,
    loop_frontier,
    with_losses,
)


@pytest.mark.parametrize("law", ["loop-power", "loop-bounded", "loop-linear", "compute-capacity"])
def test_loop_laws_recover_exact_data(law: str) -> None:
    columns = capacity_columns(tokens_solved=True)
    values = {**CAPACITY, "k1": 0.8, "k2": 1.4}
    found = fit(law, with_losses(law, columns, values, 0.0, 0), num_resamples=50)
    expected = {name: values[name] for name in law_named(law).parameters}
    assert found.optimum == pytest.approx(expected, rel=1e-6)
    assert found.starts.at_optimum == 1.0


def test_test_time_term_comes_back() -> None:
    generator = np.random.default_rng(3)
    num = 120
    columns = {
        "params_once": 10 ** generator.uniform(5, 7, num),
        "params_deep": 10 ** generator.uniform(6, 9, num),
        "tokens": 10 ** generator.uniform(8, 11, num),
        "num_loops": generator.choice([1.0, 2.0, 4.0, 8.0], num),
        "num_loops_test": generator.choice([1.0, 2.0, 4.0, 8.0, 16.0], num),
    }
    values = {**CAPACITY, "Z": 0.7, "z": 2.2}
    table = with_losses("loop-linear-test-time", columns, values, 0.0, 0)
    found = fit("loop-linear-test-time", table, num_resamples=20)
    assert found.optimum["Z"] == pytest.approx(0.7, rel=1e-6)
    assert found.optimum["z"] == pytest.approx(2.2, rel=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_phi_and_omega_lie_inside_their_intervals(seed: int) -> None:
    """14 architectures, D/N 10, 20, 40, two budgets, 0.3 % noise: +-0.017 each (the guide's)."""
    columns = capacity_columns(tokens_solved=True)
    table = with_losses("compute-capacity", columns, CAPACITY, 0.003, seed)
    found = fit("compute-capacity", table, estimator="log-mse")
    for name in ("phi", "omega"):
        assert found.certificate.parameter_status(name) == "ok"
        interval = found.interval(name)
        assert interval is not None
        assert interval[0] <= CAPACITY[name] <= interval[1]
        assert interval[1] - interval[0] < 0.14


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ffn_solved_runs_at_two_budgets_identify_nothing(seed: int) -> None:
    columns = capacity_columns(tokens_solved=False)
    table = with_losses("compute-capacity", columns, CAPACITY, 0.003, seed)
    found = fit("compute-capacity", table, estimator="log-mse", num_resamples=200)
    assert found.status == "refused"
    assert found.parameters["phi"] is None
    assert found.parameters["omega"] is None
    levels = next(r for r in found.certificate.reasons if r.code == "too-few-levels")
    assert "takes 2 value(s)" in levels.message
    assert levels.parameters == ("E", "B", "beta")


def test_loops_confounded_with_depth_are_refused() -> None:
    """K x depth constant: every K has its own number of deep parameters."""
    generator = np.random.default_rng(0)
    loops = np.repeat([1.0, 2.0, 4.0, 8.0], 9)
    columns = {
        "params_deep": 8e7 / loops,
        "params_once": np.full(36, 1e6),
        "num_loops": loops,
        "tokens": np.tile(np.geomspace(1e9, 1e11, 9), 4),
    }
    table = with_losses("loop-power", columns, CAPACITY, 0.003, int(generator.integers(99)))
    found = fit("loop-power", table, num_resamples=200)
    assert found.parameters["phi"] is None
    assert found.certificate.has("not-identified") or found.certificate.has("confounded")
    text = " ".join(reason.message for reason in found.certificate.reasons)
    assert "num_loops and params_deep move together" in text


@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_frontier_only_points_keep_phi(noise: float) -> None:
    table = with_losses("loop-power", loop_frontier(), CAPACITY, noise, 4)
    found = fit("loop-power", table, num_resamples=300)
    assert found.status == "refused"
    assert found.certificate.has("frontier-only")
    for name in ("E", "A", "B", "alpha", "beta"):
        assert found.parameters[name] is None
    assert found.certificate.parameter_status("phi") == "ok"
    assert found.parameters["phi"] == pytest.approx(CAPACITY["phi"], abs=1e-3 + 20 * noise)
    with pytest.raises(RequestError, match="predicts nothing, it was refused"):
        found(params_once=1e6, params_deep=1e8, num_loops=2, tokens=1e9)


def test_units_and_scalings_do_not_matter() -> None:
    table = chinchilla_table()
    plain = fit("chinchilla", table, num_resamples=50)
    scaled = fit(
        "chinchilla",
        table.with_columns(pl.col("params") / 1e6, pl.col("tokens") / 1e9),
        num_resamples=50,
    )
    mean = fit("chinchilla", table, estimator=Estimator(reduction="mean"), num_resamples=50)
    weighted = fit(
        "chinchilla",
        table.with_columns(weight=pl.lit(7.0)),
        roles={"weight": "weight"},
        num_resamples=50,
    )
    for other in (scaled, mean, weighted):
        for name in ("E", "alpha", "beta"):
            assert other.optimum[name] == pytest.approx(plain.optimum[name], rel=1e-7)
    assert scaled.optimum["A"] == pytest.approx(
        plain.optimum["A"] * 1e6 ** -plain.optimum["alpha"], rel=1e-6
    )
    assert plain.objective is not None
    assert mean.objective == pytest.approx(plain.objective / 42, rel=1e-9)
    assert weighted.objective == pytest.approx(7 * plain.objective, rel=1e-9)


def test_a_weight_of_two_is_a_row_twice() -> None:
    table = chinchilla_table()
    points = points_from(table, ("params", "tokens"))
    rows = np.append(np.arange(42), np.arange(10))
    twice = replace(
        points,
        columns={role: values[rows] for role, values in points.columns.items()},
        losses=points.losses[rows],
        weights=points.weights[rows],
        row_numbers=np.arange(1, 53),
    )
    weighted = table.with_columns(
        weight=pl.when(pl.int_range(pl.len()) < 10).then(2.0).otherwise(1.0)
    )
    for estimator in ("huber", "mse"):
        one = fit("chinchilla", twice, estimator=estimator, num_resamples=20)  # type: ignore[arg-type]
        two = fit(
            "chinchilla",
            weighted,
            roles={"weight": "weight"},
            estimator=estimator,  # type: ignore[arg-type]
            num_resamples=20,
        )
        assert one.optimum == pytest.approx(dict(two.optimum), rel=1e-6)


def test_known_standard_deviations_divide_residuals() -> None:
    """A standard deviation, not a weight: halving it is a weight of four for squares."""
    table = chinchilla_table()
    std = np.where(np.arange(42) < 10, 0.005, 0.01)
    by_std = fit("chinchilla", table.with_columns(loss_std=pl.Series(std)), estimator="mse")
    weight = table.with_columns(weight=pl.Series((0.01 / std) ** 2))
    by_weight = fit("chinchilla", weight, roles={"weight": "weight"}, estimator="mse")
    assert by_std.optimum == pytest.approx(dict(by_weight.optimum), rel=1e-6)


def test_fit_is_callable_and_predicts() -> None:
    found = fit("chinchilla", budget_table())
    columns = {"params": np.array([1e8, 1e12]), "tokens": np.array([1e10, 1e13])}
    values = found(**columns)
    exact = law_named("chinchilla").loss(columns, CHINCHILLA)
    np.testing.assert_allclose(values, exact, rtol=0.01)
    prediction = found.predict(columns)
    np.testing.assert_allclose(prediction.losses, values)
    assert (prediction.run_low < prediction.low).all()
    assert (prediction.low < prediction.losses).all()
    assert (prediction.losses < prediction.high).all()
    assert (prediction.high < prediction.run_high).all()
    assert prediction.outside_data_factor[0] == 1.0
    largest = [found.points.columns[role].max() for role in ("params", "tokens")]
    assert prediction.outside_data_factor[1] == pytest.approx(
        max(1e12 / largest[0], 1e13 / largest[1])
    )
    by_frame = found.predict(pl.DataFrame(columns))
    np.testing.assert_array_equal(by_frame.high, prediction.high)
    with pytest.raises(RequestError, match="tokens is missing"):
        found(params=1e8)


def test_derived_quantities_are_the_algebra() -> None:
    found = fit("chinchilla", chinchilla_table(noise=0.0), at_flops=(1e24,), at_losses=(2.0, 1.0))
    values = found.optimum
    assert values["beta"] / (values["alpha"] + values["beta"]) == pytest.approx(
        found.to_dict()["derived"]["a"]
    )
    size = found.derived_value("n_star", at_flops=1e24)
    assert size is not None
    assert size.value == pytest.approx(optimal_params(CHINCHILLA, 1e24), rel=1e-6)
    assert size.outside_data_factor == pytest.approx(1e24 / (6 * 1e10 * 4e11), rel=1e-9)
    grid = np.geomspace(size.value / 3, size.value * 3, 20001)  # type: ignore[operator]
    losses = found(params=grid, tokens=1e24 / (6 * grid))
    assert grid[losses.argmin()] == pytest.approx(size.value, rel=2e-4)
    targets = {d.at_loss: d for d in found.derived if d.at_loss is not None}
    assert targets[2.0].value is not None
    assert optimal_loss(values, targets[2.0].value) == pytest.approx(2.0, rel=1e-9)
    assert targets[1.0].value is None


def test_power_law_and_its_target() -> None:
    flops = np.geomspace(1e15, 1e20, 30)
    found = fit(
        "power", pl.DataFrame({"flops": flops, "loss": 1.5 + 30 * flops**-0.1}), at_losses=(2.0,)
    )
    assert found.optimum == pytest.approx({"E": 1.5, "A": 30.0, "alpha": 0.1}, rel=1e-8)
    (target,) = (d for d in found.derived if d.at_loss == 2.0)
    assert target.value == pytest.approx((0.5 / 30) ** -10, rel=1e-6)


def test_json_contract() -> None:
    found = fit("chinchilla", budget_table(), num_resamples=50)
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["law"] == "chinchilla"
    assert document["estimator"] == "huber"
    assert list(document["parameters"]) == ["E", "A", "B", "alpha", "beta"]
    assert {"E", "A", "B", "alpha", "beta", "a", "b"} <= set(document["intervals"])
    assert set(document["starts"]) == {"number", "at_optimum", "spread"}
    assert document["starts"]["at_optimum"] == 1.0
    assert {"a", "b", "frontier"} <= set(document["derived"])
    assert document["derived"]["a"] + document["derived"]["b"] == pytest.approx(1.0)
    assert document["certificate"]["status"] == "ok"
    assert document["data"]["rows"] == 42
    assert document["data"]["budgets"] == 6
    assert document["resampling"]["kind"] == "components"
    for name, (low, high) in document["intervals"].items():
        value = document["parameters"].get(name, document["derived"].get(name))
        assert low <= value <= high


def test_seed_noise_is_compared_with_residuals() -> None:
    table = chinchilla_table(noise=0.002)
    again = chinchilla_table(noise=0.002, seed=9)
    fine = fit("chinchilla", pl.concat([table, again]), estimator="log-mse", num_resamples=50)
    assert fine.noise is not None
    assert fine.noise.seed_std == pytest.approx(0.002, rel=0.3)
    assert not fine.certificate.has("lack-of-fit")
    bump = 1.0 + 0.01 * np.sin(np.log(table["params"].to_numpy()))
    bent = pl.concat([t.with_columns(pl.col("loss") * pl.Series(bump)) for t in (table, again)])
    poor = fit("chinchilla", bent, estimator="log-mse", num_resamples=50)
    assert poor.certificate.has("lack-of-fit")
    reason = next(r for r in poor.certificate.reasons if r.code == "lack-of-fit")
    assert "times the seed noise" in reason.message
