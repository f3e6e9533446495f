"""Whatever stands around a right table, its fit is the right table's, or a word says otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.fit.fitting import fit
from experiments.cli import run
from tests.cases.table_kit import assert_same, base, codes

TEXTS = st.text(alphabet="ab1.,;é \t-NA", max_size=6)
SCALES = st.sampled_from([1e-3, 1 / 3, 1e3, 1e6, 1e9, 1e12, 1 / 8.64e19])

Odd = Callable[[list[dict[str, Any]]], None]
"""Changes rows in place in a way that must not change the fit."""


@st.composite
def odd_rows(draw: st.DrawFn) -> list[dict[str, str]]:
    """The right table's rows as text, with odd columns, blanks, copies and orders."""
    rows = [{name: str(value) for name, value in row.items()} for row in base().rows(named=True)]
    for name in draw(
        st.lists(st.sampled_from(["note", "x y", "step", "weight", "Loss"]), unique=True)
    ):
        for row in rows:
            row[name] = draw(TEXTS)
    if draw(st.booleans()):
        for row in rows:
            row["state"] = "finished"
        for place in draw(st.lists(st.integers(0, 41), max_size=5)):
            rows.append(
                {
                    **rows[place],
                    "loss": "9.5",
                    "state": draw(st.sampled_from(["crashed", "killed"])),
                }
            )
    for place in draw(st.lists(st.integers(0, 41), max_size=8)):
        rows.append(dict(rows[place]))
    for _ in range(draw(st.integers(0, 3))):
        rows.append(dict.fromkeys(rows[0], ""))
    for place in draw(st.lists(st.integers(0, 41), max_size=3)):
        pad = draw(st.sampled_from([" ", "  ", "\t", "\u00a0"]))
        rows[place] = {name: f"{pad}{value}{pad}" for name, value in rows[place].items()}
    return rows


def written(rows: list[dict[str, str]], kind: str, folder: Path) -> Path:
    """The rows in one of the formats."""
    path = folder / f"odd.{kind}"
    frame = pl.DataFrame(rows)
    if kind == "jsonl":
        frame.write_ndjson(path)
    elif kind == "parquet":
        frame.write_parquet(path)
    else:
        frame.write_csv(path, separator="\t" if kind == "tsv" else ",", quote_style="always")
    return path


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    """The fit of the right table."""
    return fit("chinchilla", base()).to_dict()


SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@given(rows=odd_rows(), kind=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
@SETTINGS
def test_what_must_not_matter_does_not(
    rows: list[dict[str, str]],
    kind: str,
    right: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(rows, kind, tmp_path)
    assert run(["fit", "--table", str(path), "--json", "--hold-out", "none"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert_same(found, right)
    excluded = sum(len(each["rows"]) for each in found["data"]["excluded"])
    assert found["data"]["table_rows"] - excluded == found["data"]["rows"] == 42


@given(
    scales=st.fixed_dictionaries(
        {role: st.none() | SCALES for role in ("params", "tokens", "flops")}
    )
)
@SETTINGS
def test_no_unit_passes_without_a_word(
    scales: dict[str, float | None], right: dict[str, Any]
) -> None:
    """Where FLOPs leave 6 N D, nothing at FLOPs is given; where they stay, sizes are looked at."""
    factors = {role: scale or 1.0 for role, scale in scales.items()}
    table = base().with_columns(pl.col(role) * factor for role, factor in factors.items())
    found = fit("chinchilla", table).to_dict()
    if all(factor == 1.0 for factor in factors.values()):
        assert_same(found, right)
        return
    ratio = factors["flops"] / (factors["params"] * factors["tokens"])
    tiny = table["params"].min() < 1e3 or table["tokens"].min() < 1e4  # type: ignore[operator]
    refused = abs(np.log(ratio)) > np.log(2) or tiny
    given_there = [row["n_star"] is not None for row in found["derived"]["frontier"]]
    assert given_there == [not refused] * 2
    assert refused == bool({"flops-unlike-6nd", "implausible-sizes"} & set(codes(found)))


@given(
    entries=st.lists(
        st.tuples(st.integers(0, 41), st.sampled_from(base().columns), TEXTS), max_size=4
    )
)
@SETTINGS
def test_entries_that_are_no_numbers_are_never_guessed(
    entries: list[tuple[int, str, str]],
    right: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit 0 or 2, never a crash; without a word only where every entry is the right one."""
    rows = [{name: str(value) for name, value in row.items()} for row in base().rows(named=True)]
    for place, name, text in entries:
        rows[place][name] = text
    changed = any(name != "flops" for _, name, _ in entries)
    code = run(
        ["fit", "--table", str(written(rows, "csv", tmp_path)), "--json", "--hold-out", "none"]
    )
    captured = capsys.readouterr()
    assert code in (0, 2)
    if code == 2:
        assert "row" in captured.err or "column" in captured.err
        assert entries
    elif not changed:
        assert_same(json.loads(captured.out), right, rel=1e-5)
