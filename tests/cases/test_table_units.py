"""Units that do not fit are found, guessed and said, and nothing in a wrong unit is printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests.cases.table_kit import TABLES, base, codes, fitted, frame_variant

PLACED = ("n_star", "d_star", "loss", "tokens_per_param")
C, N, D = pl.col("flops"), pl.col("params"), pl.col("tokens")

OTHER_UNITS: dict[str, tuple[list[pl.Expr], str]] = {
    "PF-days": ([C / 8.64e19], "FLOPs in PF-days"),
    "GFLOPs": ([C / 1e9], "FLOPs in GFLOPs"),
    "TFLOPs": ([C / 1e12], "FLOPs in TFLOPs"),
    "EFLOPs": ([C / 1e18], "FLOPs in EFLOPs"),
    "forward only": ([C / 3], "forward pass only"),
    "per token": ([C / D], "FLOPs per token"),
    "params in millions": ([N / 1e6], "params in millions"),
    "params in billions": ([N / 1e9], "params in billions"),
    "params in thousands": ([N / 1e3], "params in thousands"),
    "tokens in millions": ([D / 1e6], "tokens in millions"),
    "tokens in billions": ([D / 1e9], "tokens in billions"),
    "both": ([N / 1e6, D / 1e9], "params in millions and tokens in billions"),
    "both and GFLOPs": ([N / 1e6, D / 1e9, C / 1e9], "params in millions"),
    "forward in PFLOPs": ([C / 3e15], "FLOPs in PFLOPs"),
}


def assert_withheld(found: dict[str, Any], code: str = "flops-unlike-6nd") -> str:
    assert found["certificate"]["status"] == "refused"
    for row in found["derived"]["frontier"]:
        assert [row[name] for name in PLACED] == [None] * 4
    assert found["parameters"]["alpha"] == pytest.approx(0.33502265, rel=1e-5)
    assert found["certificate"]["parameters"]["alpha"] == "ok"
    return codes(found)[code]


def test_shared_units(capsys: pytest.CaptureFixture[str]) -> None:
    message = assert_withheld(fitted(capsys, TABLES / "flops-in-pf-days.csv"))
    assert "FLOPs are 1.16e-20 of 6 N D (median of 42 rows" in message
    assert "PF-days (8.64e19)" in message
    message = assert_withheld(fitted(capsys, TABLES / "params-in-millions.csv"))
    assert "FLOPs are 1e+15 of 6 N D" in message
    assert "params in millions and tokens in billions" in message


@pytest.mark.parametrize("kind", OTHER_UNITS)
def test_other_units(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes, guess = OTHER_UNITS[kind]
    found = fitted(capsys, frame_variant(base().with_columns(*changes))(tmp_path))
    assert guess in assert_withheld(found)


@pytest.mark.parametrize("kind", ["PF-days", "params in millions", "forward only"])
def test_curves_withhold_their_optima(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame_variant(base().with_columns(*OTHER_UNITS[kind][0]))(tmp_path)
    found = fitted(capsys, table, "--law", "isoflop")
    assert found["certificate"]["status"] == "refused"
    assert found["parameters"]["a"] is not None
    assert found["parameters"]["n_coefficient"] is None
    assert found["derived"]["frontier"] == []
    assert {curve["n_star"] for curve in found["curves"]} == {None}


@pytest.mark.parametrize(("unit", "words"), [(1e6, "millions"), (1e9, "billions")])
@pytest.mark.parametrize("role", ["params", "tokens"])
def test_sizes_that_no_run_has(
    role: str, unit: float, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = base().drop("flops").with_columns(pl.col(role) / unit)
    found = fitted(capsys, frame_variant(table)(tmp_path))
    assert f"{role} in " in assert_withheld(found, "implausible-sizes")
    assert words in codes(found)["implausible-sizes"] or unit == 1e9


@pytest.mark.parametrize(("count", "status"), [(1.1, "ok"), (4 / 3, "warn"), (1.9, "warn")])
def test_a_count_near_6nd_is_no_refusal(
    count: float, status: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fitted(capsys, frame_variant(base().with_columns(C * count))(tmp_path))
    assert found["certificate"]["status"] == status
    assert found["derived"]["frontier"][0]["n_star"] is not None
    assert ("flops-unlike-6nd" in codes(found)) == (status != "ok")
    if count == 4 / 3:
        assert "8 N D" in codes(found)["flops-unlike-6nd"]


@pytest.mark.parametrize("role", ["params", "tokens", "flops"])
def test_rows_of_mixed_units(role: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = pl.int_range(pl.len())
    mixed = pl.when(row.is_in([4, 5, 20])).then(pl.col(role) / 1e6).otherwise(pl.col(role))
    found = fitted(capsys, frame_variant(base().with_columns(mixed.alias(role)))(tmp_path))
    assert found["certificate"]["status"] == "refused"
    assert "in 3 of 42 (rows 5-6, 21)" in codes(found)["mixed-units"]


def test_loops_count_every_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    looped = base().with_columns(C * 3, params_once=pl.lit(0.0), params_deep=N, num_loops=pl.lit(3))
    assert fitted(capsys, frame_variant(looped)(tmp_path))["certificate"]["status"] == "ok"


def test_budgets_in_another_unit_label_groups(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = base().with_columns(budget=C / 8.64e19).drop("flops")
    found = fitted(capsys, frame_variant(table)(tmp_path))
    assert "the budget labels groups; it is no number of FLOPs" in found["data"]["conventions"]
    assert found["derived"]["frontier"][0]["n_star"] == pytest.approx(3.05e7, rel=1e-3)
    assert found["certificate"]["status"] == "ok"
