"""Profiles, rehearsals and sensitivity."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from analysis.fit.fitting import fit
from analysis.fit.profile import profile
from analysis.fit.rehearsal import held_out, rehearse
from analysis.fit.sensitivity import sensitivity
from analysis.points.table_reading import points_from
from analysis.report.further_findings import extras_of
from analysis.solve.solving import solve
from spaces.errors import RequestError
from tests.analysis.planted import CHINCHILLA, budget_table, chinchilla_table, ratio_columns
from tests.analysis.planted import with_losses as planted


def test_profile_of_squares_is_the_f_interval() -> None:
    """The rise at any value is the F statistic of fixing the parameter there."""
    found = fit("chinchilla", chinchilla_table(), estimator="log-mse", num_resamples=50)
    profiled = profile(found, "beta", num_values=9)
    value = float(profiled.values[0])
    held = solve(found.points, found.law, found.estimator, fixed={"beta": value})
    assert found.objective is not None
    statistic = (held.objective / found.objective - 1) * (42 - 5)
    assert profiled.rise[0] == pytest.approx(statistic, rel=1e-6)
    assert profiled.rise.min() == pytest.approx(0.0, abs=1e-6)
    low, high = profiled.interval
    assert low is not None
    assert high is not None
    assert low < CHINCHILLA["beta"] < high


@pytest.mark.parametrize("estimator", ["huber", "mse"])
def test_profile_and_resamples_agree_on_clean_noise(estimator: str) -> None:
    columns = ratio_columns((5, 10, 20, 40, 80), 30)
    table = planted("chinchilla", columns, CHINCHILLA, 0.004, 5)
    found = fit("chinchilla", table, estimator=estimator, num_resamples=300)  # type: ignore[arg-type]
    low, high = profile(found, "alpha", num_values=21).interval
    interval = found.interval("alpha")
    assert interval is not None
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(interval[1] - interval[0], rel=0.4)


def test_an_offset_at_zero_is_profiled_unasked() -> None:
    columns = {role: values / 100 for role, values in ratio_columns((5, 20, 80), 10).items()}
    values = {"E": 0.0, "A": 40.0, "B": 50.0, "alpha": 0.2, "beta": 0.22}
    found = fit("chinchilla", planted("chinchilla", columns, values, 0.01, 2), num_resamples=50)
    assert found.certificate.has("offset-at-zero")
    extras = extras_of(found)
    profiled = extras.profiles[0]
    assert profiled.parameter == "E"
    low, high = profiled.interval
    assert low is None
    assert high is not None
    assert 0.0 < high < found.points.losses.min()
    assert extras.lines()[0].startswith("profile of E: accepted up to")
    json.dumps(extras.to_dict(), allow_nan=False)


def test_profiles_that_cannot_be_taken() -> None:
    found = fit("chinchilla", chinchilla_table(), num_resamples=50)
    with pytest.raises(RequestError, match="a profile is taken of E, alpha, beta, got 'A'"):
        profile(found, "A")
    nothing = fit("chinchilla", chinchilla_table()[:3])
    with pytest.raises(RequestError, match="no fit took place"):
        profile(nothing, "E")


def test_rehearsal_holds_out_the_largest_budget() -> None:
    found = fit("chinchilla", budget_table())
    rehearsed = rehearse(found, "largest-budget")
    assert rehearsed.rows.tolist() == list(range(36, 43))
    assert rehearsed.fit.points.num_rows == 35
    assert rehearsed.prediction is not None
    assert rehearsed.errors is not None
    again = rehearsed.fit.predict(
        {role: found.points.columns[role][35:] for role in ("params", "tokens")}
    )
    np.testing.assert_allclose(rehearsed.errors, again.losses - found.points.losses[35:])
    assert np.abs(rehearsed.errors).max() < 0.05
    document = json.loads(json.dumps(rehearsed.to_dict(), allow_nan=False))
    assert document["num_held_out"] == 7
    assert document["coverage"] == rehearsed.coverage
    assert document["runs"][0]["outside_data_factor"] > 1.0


def test_rehearsal_covers() -> None:
    """Runs of the largest budget lie inside their 95 % interval in 9 of 10 sweeps and more."""
    covers = [
        rehearse(fit("chinchilla", budget_table(seed=s)), "largest-budget") for s in range(12)
    ]
    assert np.mean([each.coverage for each in covers]) > 0.9


def test_no_prediction_without_a_rehearsal() -> None:
    assert extras_of(fit("chinchilla", budget_table())).rehearsal is not None
    scattered = extras_of(fit("chinchilla", chinchilla_table(), num_resamples=50))
    assert scattered.rehearsal is not None
    assert scattered.rehearsal.hold_out == "0.2"
    assert extras_of(fit("chinchilla", chinchilla_table()[:3])).rehearsal is None
    assert extras_of(fit("chinchilla", budget_table()), hold_out=None).rehearsal is None


def test_what_can_be_held_out() -> None:
    points = points_from(budget_table(), ("params", "tokens"))
    assert held_out(points, "largest-budgets:2").sum() == 14
    assert held_out(points, "0.25").sum() == 10
    largest = held_out(points, "sizes:3")
    assert points.columns["params"][largest].min() > points.columns["params"][~largest].max()
    for spec in ("everything", "1.5", "sizes:many"):
        with pytest.raises(RequestError, match="--hold-out"):
            held_out(points, spec)
    with pytest.raises(RequestError, match="needs budgets"):
        held_out(points_from(chinchilla_table(), ("params", "tokens")), "largest-budget")
    found = fit("chinchilla", budget_table(), num_resamples=50)
    with pytest.raises(RequestError, match="holds out 42 of 42 rows"):
        rehearse(found, "largest-budgets:6")


def test_a_refused_rehearsal_is_a_result() -> None:
    found = fit("chinchilla", budget_table())
    rehearsed = rehearse(found, "largest-budgets:5")
    assert rehearsed.prediction is None
    assert rehearsed.to_dict()["coverage"] is None
    assert rehearsed.to_dict()["status"] == "refused"


def test_one_bad_row_is_found() -> None:
    table = chinchilla_table(noise=0.001)
    losses = table["loss"].to_numpy().copy()
    losses[41] *= 1.08
    found = fit("chinchilla", table.with_columns(loss=pl.Series(losses)), estimator="log-mse")
    shifts = sensitivity(found).dropped
    for shift in shifts:
        if shift.parameter == "beta":
            assert 42 in shift.rows
    first = next(s for s in shifts if s.parameter == "beta" and len(s.rows) == 1)
    clean = fit("chinchilla", table[:41], estimator="log-mse", num_resamples=20)
    assert first.value == pytest.approx(clean.optimum["beta"], rel=1e-6)


def test_leaving_out_budgets_is_refitting() -> None:
    table = budget_table()
    found = fit("chinchilla", table)
    shifts = sensitivity(found).budgets
    assert len(shifts) == 12
    (shift,) = (s for s in shifts if s.rows[0] == 15 and s.parameter == "alpha")
    rest = solve(
        points_from(pl.concat([table[:14], table[21:]]), ("params", "tokens")),
        found.law,
        found.estimator,
    )
    assert shift.value == pytest.approx(rest.optimum["alpha"], rel=1e-6)
    with pytest.raises(RequestError, match="needs a fit of all parameters"):
        sensitivity(fit("chinchilla", table[:3]))
