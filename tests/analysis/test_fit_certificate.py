"""Every refusal: its code, its parameters, and a message that says what to do."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.fit.fit_result import Fit
from analysis.fit.fitting import fit
from analysis.judge.fit_certificate import Certificate, Reason, worst
from analysis.judge.rows_for_laws import rows_for_laws, unfit_rows
from analysis.points.table_reading import points_from
from spaces.errors import RequestError
from tests.analysis.planted import (
    CAPACITY,
    CHINCHILLA,
    budget_table,
    capacity_columns,
    chinchilla_table,
    ratio_columns,
    with_losses,
)


def reason_of(found: Fit, code: str) -> Reason:
    codes = [reason.code for reason in found.certificate.reasons]
    assert code in codes, codes
    return found.certificate.reasons[codes.index(code)]


def refused_all(found: Fit) -> None:
    assert found.status == "refused"
    assert set(found.parameters.values()) == {None}
    document = found.to_dict()
    json.dumps(document, allow_nan=False)
    assert set(document["parameters"].values()) == {None}
    assert {document["intervals"][name] for name in document["parameters"]} == {None}


@pytest.mark.parametrize("noise", [0.0, 0.003])
def test_tokens_a_multiple_of_params(noise: float) -> None:
    params = np.geomspace(1e7, 1e10, 40)
    columns = {"params": params, "tokens": 20 * params}
    found = fit("chinchilla", with_losses("chinchilla", columns, CHINCHILLA, noise, 0))
    refused_all(found)
    reason = reason_of(found, "tokens-follow-params")
    assert reason.parameters == ("E", "A", "B", "alpha", "beta")
    assert "tokens are 20 times the model size in all 40 rows" in reason.message
    assert "tokens per parameter 10 and 40" in reason.message
    assert found.to_dict()["derived"]["a"] is None


def test_tokens_ten_to_forty_times_params_are_enough() -> None:
    found = fit("chinchilla", chinchilla_table())
    assert found.status == "ok"
    assert found.certificate.measures["condition"] < 120


def test_frontier_only_points() -> None:
    from analysis.laws.derived_quantities import optimal_params

    law = {**CHINCHILLA, "beta": 0.28, "B": 410.7}
    flops = np.geomspace(1e18, 1e23, 40)
    params = np.asarray(optimal_params(law, flops))
    columns = {"params": params, "tokens": flops / (6 * params)}
    found = fit("chinchilla", with_losses("chinchilla", columns, law, 0.003, 1))
    refused_all(found)
    reason = reason_of(found, "frontier-only")
    assert "tokens follow size^1.24" in reason.message
    assert "as on a compute frontier" in reason.message


def test_three_points() -> None:
    found = fit("chinchilla", chinchilla_table()[:3])
    refused_all(found)
    message = reason_of(found, "too-few-points").message
    assert message.startswith("3 rows cannot determine the 5 parameters of chinchilla")
    assert "use at least 10" in message
    assert found.starts.number == 0


def test_few_points_are_a_warning() -> None:
    found = fit("chinchilla", chinchilla_table()[:8], num_resamples=50)
    assert reason_of(found, "few-points").status == "warn"


def test_constant_loss() -> None:
    found = fit("chinchilla", chinchilla_table().with_columns(loss=pl.lit(2.5)))
    refused_all(found)
    assert "all 42 losses are 2.5" in reason_of(found, "constant-loss").message


def test_offset_that_runs_to_zero() -> None:
    columns = ratio_columns((5, 10, 20, 40, 80), 8)
    columns = {role: values / 100 for role, values in columns.items()}
    values = {"E": 0.0, "A": 40.0, "B": 50.0, "alpha": 0.2, "beta": 0.22}
    found = fit("chinchilla", with_losses("chinchilla", columns, values, 0.01, 2))
    assert found.status == "refused"
    assert found.parameters["E"] is None
    reason = reason_of(found, "offset-at-zero")
    assert reason.parameters == ("E",)
    assert "not identified" in reason.message
    assert found.certificate.parameter_status("alpha") != "refused"
    assert found.parameters["alpha"] == pytest.approx(0.2, abs=0.08)
    inside = found.to_dict()["derived"]["frontier"][0]["loss"]
    assert inside is not None, "known by its own interval, whatever E is"


def test_a_start_returned_unmoved() -> None:
    found = fit("chinchilla", chinchilla_table(), max_iterations=0, num_resamples=20)
    refused_all(found)
    message = reason_of(found, "start-returned").message
    assert "gave its starts back unmoved" in message
    assert "no fit took place" in message
    with pytest.raises(RequestError, match="predicts nothing, it was refused"):
        found(params=1e8, tokens=1e9)


def test_a_fit_that_stops_early_is_not_converged() -> None:
    found = fit("chinchilla", chinchilla_table(), max_iterations=1, num_resamples=20)
    assert reason_of(found, "not-converged").status == "refused"


def test_two_levels_of_tokens() -> None:
    params = np.tile(np.geomspace(1e7, 1e10, 20), 2)
    columns = {"params": params, "tokens": np.repeat([1e9, 1e10], 20)}
    found = fit("chinchilla", with_losses("chinchilla", columns, CHINCHILLA, 0.002, 0))
    reason = reason_of(found, "too-few-levels")
    assert reason.parameters == ("E", "B", "beta")
    assert found.parameters["beta"] is None
    assert found.parameters["alpha"] == pytest.approx(0.348, abs=0.05)


def test_parameters_without_any_effect() -> None:
    columns = capacity_columns(tokens_solved=True)
    columns["num_loops"] = np.ones_like(columns["num_loops"])
    table = with_losses("compute-capacity", columns, CAPACITY, 0.002, 0)
    found = fit("compute-capacity", table, estimator="log-mse", num_resamples=100)
    reason = reason_of(found, "no-effect")
    assert reason.parameters == ("phi",)
    assert "num_loops = 1" in reason.message
    assert found.parameters["phi"] is None
    assert found.certificate.parameter_status("omega") == "ok"


def test_hessian_intervals_are_warned_about() -> None:
    table = budget_table(noise=0.01)
    found = fit("chinchilla", table, estimator="lad", resample_kind="hessian")
    reason = reason_of(found, "hessian-interval")
    assert "several times too small" in reason.message
    honest = fit("chinchilla", table, estimator="lad")
    narrow, wide = found.intervals["beta"], honest.intervals["beta"]
    assert narrow is not None
    assert wide is not None
    assert wide[1] - wide[0] > 2.4 * (narrow[1] - narrow[0])


def test_pairs_on_budgets_say_which_noise_they_assume() -> None:
    found = fit("chinchilla", budget_table(), resample_kind="pairs", num_resamples=100)
    assert reason_of(found, "ignores-clusters").status == "warn"
    assert found.certificate.assumes == "independent rows"
    wild = fit("chinchilla", budget_table(), resample_kind="wild", num_resamples=100)
    assert "62 to 87 %" in reason_of(wild, "wild-undercovers").message
    auto = fit("chinchilla", budget_table())
    assert "runs of one budget share" in auto.certificate.assumes
    assert auto.status == "ok"


def test_statuses_by_parameter_and_whole() -> None:
    certificate = Certificate(
        reasons=(
            Reason(code="x", status="warn", message="", parameters=("E",)),
            Reason(code="y", status="refused", message="", parameters=("alpha",)),
        ),
        parameters=("E", "alpha", "beta"),
        assumes="",
        measures={},
    )
    assert certificate.status == "refused"
    assert not certificate.refused_outright
    assert [certificate.parameter_status(n) for n in certificate.parameters] == [
        "warn",
        "refused",
        "ok",
    ]
    assert worst([]) == "ok"


def test_rows_of_fewer_tokens_than_parameters_are_named_and_can_be_left_out() -> None:
    points = points_from(budget_table(), ("params", "tokens"))
    (unfit,) = unfit_rows(points)
    assert unfit.reason == "fewer tokens than parameters"
    short = points.columns["tokens"] < points.columns["params"]
    assert set(unfit.rows) == set(points.row_numbers[short])
    assert reason_of(fit("chinchilla", points), "rows-unlike-a-law").status == "ok"
    kept = rows_for_laws(points)
    assert kept.num_rows == points.num_rows - len(unfit.rows)
    assert kept.excluded[-1] == unfit
    assert not fit("chinchilla", kept).certificate.has("rows-unlike-a-law")


def test_rows_of_a_fifth_epoch_are_known_by_their_column() -> None:
    table = chinchilla_table().with_columns(epochs=pl.Series([5.0] * 3 + [1.0] * 39))
    (unfit,) = unfit_rows(points_from(table, ("params", "tokens")))
    assert unfit.rows == (1, 2, 3)
    assert "4 epochs" in unfit.reason


def test_no_row_is_unfit_while_units_are_in_doubt() -> None:
    other = budget_table().with_columns(pl.col("params") / 1e6, pl.col("tokens") / 1e9)
    assert unfit_rows(points_from(other, ("params", "tokens"))) == ()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    sizes=st.floats(-9, 9).map(lambda power: 10.0**power),
    tokens=st.floats(-12, 9).map(lambda power: 10.0**power),
    noise=st.sampled_from([0.001, 0.01, 0.05]),
)
def test_a_change_of_units_changes_no_verdict(sizes: float, tokens: float, noise: float) -> None:
    points = points_from(budget_table(noise=noise), ("params", "tokens"))
    columns = dict(points.columns)
    columns["params"], columns["tokens"] = columns["params"] * sizes, columns["tokens"] * tokens
    one = fit("chinchilla", points, num_resamples=100)
    other = fit("chinchilla", replace(points, columns=columns, own_count=True), num_resamples=100)
    for name in one.law.parameters:
        assert one.certificate.parameter_status(name) == other.certificate.parameter_status(name)
    for name, term in one.terms.items():
        assert other.terms[name].value == pytest.approx(term.value, rel=1e-5)
        assert other.terms[name].interval == pytest.approx(term.interval, rel=1e-3)
