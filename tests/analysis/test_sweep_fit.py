"""The laws of a sweep: every arm, tiny sweeps included."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.laws.law_registry import law_named
from analysis.sweep.sweep_fit import (
    at_best_rates,
    draw_sweep,
    fit_sweep,
    of_one_schedule,
    with_head_used_once,
)
from spaces.errors import RequestError
from tests.analysis.planted import CAPACITY


def sweep_frame(num_budgets: int = 4, num_sizes: int = 8, noise: float = 0.002) -> pl.DataFrame:
    """Three arms on iso-FLOP grids, planted with the compute-capacity law."""
    generator = np.random.default_rng(1)
    law, rows = law_named("compute-capacity"), []
    for budget in np.geomspace(1e17, 1e19, num_budgets):
        for arm, loops, wide in (("dual", 2, 0.5), ("loop", 4, 0.0), ("standard", 1, 0.0)):
            for params in np.sqrt(budget) * np.geomspace(0.01, 0.6, num_sizes):
                deep, once = 0.95 * params * (1 - wide), 0.05 * params
                per_token = 6 * (once + loops * deep + 0.95 * params * wide)
                rows.append(
                    {
                        "arm": arm,
                        "budget": budget,
                        "flops": budget * float(generator.uniform(0.999, 1.001)),
                        "params": params,
                        "params_once": once,
                        "params_deep": deep,
                        "params_wide": 0.95 * params * wide,
                        "num_loops": loops,
                        "tokens": budget / per_token,
                        "seed": 0,
                    }
                )
    frame = pl.DataFrame(rows)
    columns = {role: frame[role].to_numpy().astype(float) for role in law.roles}
    losses = law.loss(columns, CAPACITY) * np.exp(noise * generator.normal(size=frame.height))
    return frame.with_columns(loss=pl.Series(losses))


def test_every_arm_and_one_law_across(tmp_path: Path) -> None:
    found = fit_sweep(sweep_frame())
    assert [arm.arm for arm in found.arms] == ["dual", "loop", "standard"]
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert set(document["arms"]) == {"dual", "loop", "standard"}
    assert document["arms"]["dual"]["surface"]["law"] == "chinchilla"
    assert len(document["arms"]["loop"]["isoflop"]["curves"]) == 4
    assert document["compute_capacity"]["law"] == "compute-capacity"
    assert found.capacity is not None
    assert found.capacity.replicates is not None
    assert found.capacity.replicates.kind == "components"
    phi = found.capacity.intervals["phi"]
    assert phi is not None
    assert phi[0] <= CAPACITY["phi"] <= phi[1]
    names = {path.name for path in draw_sweep(found, tmp_path)}
    drawn = ("isoflop_curves", "frontier", "arm_gaps")
    assert names == {f"{name}.{kind}" for name in drawn for kind in ("png", "svg")}
    pairs = [(trend["one"], trend["other"]) for trend in document["arm_trends"]]
    assert pairs == [("dual", "loop"), ("dual", "standard"), ("loop", "standard")]


def test_a_tiny_sweep_is_refused_with_reasons() -> None:
    frame = sweep_frame(num_budgets=2, num_sizes=2)
    found = fit_sweep(frame)
    for arm in found.arms:
        assert arm.surface.status == "refused"
        assert arm.isoflop.status == "refused"
        assert arm.surface.certificate.reasons[0].message
    json.dumps(found.to_dict(), allow_nan=False)


def test_one_arm_has_no_law_across() -> None:
    found = fit_sweep(sweep_frame().filter(pl.col("arm") == "loop"))
    assert found.capacity is None
    assert found.to_dict()["compute_capacity"] is None


def test_runs_without_a_loss_are_left_out() -> None:
    frame = sweep_frame()
    missing = frame.with_columns(
        loss=pl.when(pl.int_range(pl.len()) < 3).then(None).otherwise(pl.col("loss"))
    )
    found = fit_sweep(missing, every_row=True)
    assert sum(arm.surface.points.num_rows for arm in found.arms) == frame.height - 3
    starved = missing.filter(pl.col("tokens") < pl.col("params")).drop_nulls("loss").height
    found = fit_sweep(missing)
    used = sum(arm.surface.points.num_rows for arm in found.arms)
    assert starved
    assert used == frame.height - 3 - starved
    said = f"left out by design, never by loss: {starved} with fewer tokens than parameters"
    assert said in found.conventions
    with pytest.raises(RequestError, match="no trial of this sweep has a loss yet"):
        fit_sweep(frame.with_columns(loss=pl.lit(None, dtype=pl.Float64)))
    with pytest.raises(RequestError, match="needs the column arm"):
        fit_sweep(frame.drop("arm"))


def test_a_rate_is_a_nuisance_and_no_row_is_chosen_by_its_loss() -> None:
    frame = sweep_frame()
    plain, said = at_best_rates(frame)
    assert plain.equals(frame)
    assert "unknown" in said
    worse = frame.with_columns(pl.col("loss") + 0.02, rate_cost_nats=pl.lit(0.02))
    hopeless = frame.with_columns(pl.col("loss") - 1.0, rate_cost_nats=pl.lit(0.2))
    both = pl.concat([frame.with_columns(rate_cost_nats=pl.lit(0.0)), worse, hopeless])
    kept, said = at_best_rates(both)
    assert kept.height == 2 * frame.height  # the lowest losses are left out, for their rate
    assert kept["loss"].to_list() == pytest.approx(frame["loss"].to_list() * 2)
    assert f"{frame.height} rows" in said


def test_a_sweep_of_two_schedules_is_judged_by_the_one_that_most_rows_have() -> None:
    frame = sweep_frame().with_columns(
        schedule=pl.when(pl.int_range(pl.len()) < 5).then(pl.lit("wsd")).otherwise(pl.lit("cosine"))
    )
    kept, said = of_one_schedule(frame)
    assert kept.height == frame.height - 5
    assert said.startswith(f"a law is of one schedule: {frame.height - 5} rows of cosine are used")
    assert said.endswith("5 of wsd left out")
    assert of_one_schedule(sweep_frame())[1] == ""
    found = fit_sweep(frame, every_row=True)
    assert sum(arm.surface.points.num_rows for arm in found.arms) == frame.height - 5
    assert any(said in each for each in found.conventions)


def test_the_head_is_used_once_where_its_flops_are_paid() -> None:
    frame = sweep_frame().rename({"params_once": "parameters_shared"})
    frame = frame.with_columns(parameters_head=pl.col("params") * 0.01)
    once = with_head_used_once(frame)["parameters_shared"]
    expected = frame["parameters_shared"] + frame["parameters_head"]
    np.testing.assert_allclose(once, expected)
    found = fit_sweep(frame, every_row=True)
    assert found.capacity is not None
    np.testing.assert_allclose(
        np.sort(found.capacity.points.columns["params_once"]), np.sort(expected)
    )
    assert any("gates, norms and the head" in each for each in found.conventions)
    plain = sweep_frame()
    assert with_head_used_once(plain).equals(plain)
