"""From any table to points; every bad row named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.fit.fitting import fit
from analysis.isoflop.isoflop_fit import fit_isoflop
from analysis.points.checked_points import groups_of_equal
from analysis.points.column_roles import parse_roles
from analysis.points.table_files import read_frame
from analysis.points.table_reading import points_from
from spaces.errors import RequestError
from tests.analysis.planted import budget_table, chinchilla_table

NEEDED = ("params", "tokens")


def write(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text)
    return path


def test_csv_and_parquet_give_the_same_points(tmp_path: Path) -> None:
    frame = chinchilla_table()
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    tables = [points_from(tmp_path / f"a.{kind}", NEEDED) for kind in ("csv", "parquet")]
    np.testing.assert_allclose(tables[0].losses, tables[1].losses, rtol=1e-15)
    np.testing.assert_array_equal(tables[0].row_numbers, np.arange(1, 43))


def test_malformed_rows_are_all_named(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "N,D,L\n1e6,1e8,3.1\n2e6,nan,3.0\n-3e6,1e8,2.9\nfoo,1e8,2.8\n4e6,,2.7\n5e6,1e8,0\n6e6,inf,2\n",
    )
    with pytest.raises(RequestError) as caught:
        points_from(path, NEEDED, roles={"params": "N", "tokens": "D", "loss": "L"})
    message = str(caught.value)
    for part in (
        "6 rows",
        "row 2: D",
        "row 3: N",
        "row 4: N = 'foo'",
        "row 5: D = empty",
        "row 6: L",
    ):
        assert part in message
    assert "row 7: D" in message
    assert "row 1:" not in message
    assert "--keep" in message


def test_keep_leaves_rows_out_and_lists_them(tmp_path: Path) -> None:
    path = write(tmp_path, "N,D,L\n1e6,1e8,3.1\n2e6,1e8,nan\n3e6,1e8,9.0\n4e6,1e8,2.7\n")
    roles = {"params": "N", "tokens": "D", "loss": "L"}
    points = points_from(path, NEEDED, roles=roles, keep=["L < 5"])
    assert points.losses.tolist() == [3.1, 2.7]
    assert points.row_numbers.tolist() == [1, 4]
    assert points.to_dict()["excluded"] == [{"reason": "not L < 5", "rows": [2, 3]}]
    with pytest.raises(RequestError, match="no row to fit after --keep"):
        points_from(path, NEEDED, roles=roles, keep=["L < 0"])
    with pytest.raises(RequestError, match="--keep takes an SQL condition"):
        points_from(path, NEEDED, roles=roles, keep=["L <"])


def test_tokens_from_flops() -> None:
    frame = pl.DataFrame({"C": [6e15, 1.2e16], "N": [1e6, 2e6], "loss": [3.0, 2.5]})
    roles = {"flops": "C", "params": "N"}
    points = points_from(frame, NEEDED, roles=roles, tokens_from_flops="6nd")
    assert points.columns["tokens"].tolist() == [1e9, 1e9]
    assert "tokens = flops / (6 params)" in points.conventions
    with pytest.raises(RequestError, match="takes 6nd"):
        points_from(frame, NEEDED, roles=roles, tokens_from_flops="2nd")
    with pytest.raises(RequestError, match="not from both"):
        points_from(frame, NEEDED, roles={**roles, "tokens": "C"}, tokens_from_flops="6nd")


def test_missing_columns_are_named() -> None:
    with pytest.raises(RequestError, match=r"no column for tokens \(column 'D'\); it has 'params'"):
        points_from(pl.DataFrame({"params": [1.0], "loss": [2.0]}), NEEDED, roles={"tokens": "D"})


def test_roles_are_checked() -> None:
    assert parse_roles(["params=Model Size", "loss=a=b"]) == {"params": "Model Size", "loss": "a=b"}
    with pytest.raises(RequestError, match="no column role is called 'size'"):
        parse_roles(["size=N"])
    with pytest.raises(RequestError, match="takes ROLE=COLUMN"):
        parse_roles(["params"])
    with pytest.raises(RequestError, match="given twice"):
        parse_roles(["params=N", "params=M"])


def test_unreadable_tables(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no table at"):
        read_frame(tmp_path / "none.csv")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(RequestError, match=r"a table is a \.csv, \.tsv"):
        read_frame(tmp_path / "a.txt")
    (tmp_path / "b.parquet").write_text("not parquet")
    with pytest.raises(RequestError, match="cannot be read as a table"):
        read_frame(tmp_path / "b.parquet")
    (tmp_path / "c.csv").write_text("")
    with pytest.raises(RequestError, match="cannot be read as a table"):
        read_frame(tmp_path / "c.csv")


def test_parts_of_a_model_may_be_zero_but_loops_start_at_one() -> None:
    row = {"params_once": 1.0, "params_deep": 0.0, "params_wide": 5.0, "num_loops": 1.0}
    needed = tuple(row)
    points = points_from(pl.DataFrame([{**row, "loss": 2.0}]), needed)
    assert points.columns["params_deep"].tolist() == [0.0]
    with pytest.raises(RequestError, match=r"num_loops = 0\.5"):
        points_from(pl.DataFrame([{**row, "num_loops": 0.5, "loss": 2.0}]), needed)


def test_budgets_from_a_column_or_from_flops() -> None:
    frame = budget_table()
    assert points_from(frame, NEEDED).num_budgets == 6
    assert points_from(frame, NEEDED).budget_source == "groups of equal flops"
    named = frame.with_columns(budget=pl.col("flops").round(2)).drop("flops")
    points = points_from(named, NEEDED)
    assert points.budget_source == "the budget column"
    assert points.flops is not None
    assert points_from(chinchilla_table(), NEEDED).budgets is None


def test_groups_of_equal_values() -> None:
    jitter = np.random.default_rng(0).uniform(0.995, 1.005, 30)
    values = np.repeat([1e18, 3e18, 1e19], 10) * jitter
    groups = groups_of_equal(values)
    assert groups is not None
    np.testing.assert_array_equal(groups, np.repeat([0, 1, 2], 10))
    assert groups_of_equal(np.geomspace(1, 10, 100)) is None
    assert groups_of_equal(np.repeat([1.0, 2.0], 10)) is None


def test_selection_relabels_budgets() -> None:
    points = points_from(budget_table(), NEEDED)
    assert points.budgets is not None
    rest = points.select(points.budgets != 2, "held out")
    assert rest.num_budgets == 5
    assert rest.excluded[-1].rows == tuple(range(15, 22))


def test_rows_of_two_schedules_share_no_law() -> None:
    table = budget_table().with_columns(schedule=pl.Series(["cosine", "wsd"] * 21))
    found = fit("chinchilla", table)
    reason = next(r for r in found.certificate.reasons if r.code == "mixed-schedules")
    assert reason.status == "refused"
    assert found.status == "refused"
    assert found.parameters["alpha"] is None
    assert "21 of 'cosine', 21 of 'wsd'" in reason.message
    assert "--keep \"schedule = 'cosine'\"" in reason.message
    one = fit("chinchilla", table, keep=["schedule = 'wsd'"])
    assert one.points.num_rows == 21
    assert not one.certificate.has("mixed-schedules")
    assert all(curve.n_star is None for curve in fit_isoflop(table, with_surface=False).curves)


def test_data_seeds_and_trunks_are_groups_whatever_they_are_called() -> None:
    table = budget_table().with_columns(
        data_seed=pl.Series([3, 7] * 21), trunk=pl.Series([f"run {i % 14}" for i in range(42)])
    )
    points = points_from(table, ("params", "tokens"))
    assert points.clusters["trunk"].max() == 13
    named = points.shared_noise
    assert list(named) == ["budget and data seed", "trunk"]
    assert named["budget and data seed"].max() == 11
    chosen = points.select(points.clusters["data_seed"] == 0, "one seed")
    assert chosen.clusters["data_seed"].max() == 0
    assert list(chosen.shared_noise) == ["budget", "trunk"]
