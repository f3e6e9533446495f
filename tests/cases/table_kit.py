"""What the cases of tables share: the right table, its variants, and running ``fit`` on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from experiments.cli import run

TABLES = Path(__file__).parent / "tables"
"""Copies of the small tables that were made for the purpose."""

Write = Callable[[Path], Path]
"""Writes one variant of the right table into a folder and returns its path."""


def base() -> pl.DataFrame:
    """The right table: 42 rows, six budgets."""
    return pl.read_csv(TABLES / "base.csv")


def fitted(capsys: pytest.CaptureFixture[str], table: Path, *argv: str) -> dict[str, Any]:
    """The JSON document of a fit that is done, refused or not."""
    code = run(["fit", "--table", str(table), *argv, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


def wrong_request(capsys: pytest.CaptureFixture[str], table: Path, *argv: str) -> str:
    """The message of a fit that cannot be asked for."""
    assert run(["fit", "--table", str(table), *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def codes(found: dict[str, Any]) -> dict[str, str]:
    """Message of every reason by its code."""
    return {each["code"]: each["message"] for each in found["certificate"]["reasons"]}


def left_out(found: dict[str, Any]) -> dict[str, int]:
    """Number of rows that were left out by reason."""
    return {each["reason"]: len(each["rows"]) for each in found["data"]["excluded"]}


def assert_same(found: dict[str, Any], right: dict[str, Any], *, rel: float = 1e-9) -> None:
    """Every figure of a fit is the right table's."""
    assert found["certificate"]["status"] == right["certificate"]["status"]
    assert found["parameters"] == pytest.approx(right["parameters"], rel=rel)
    for name, interval in right["intervals"].items():
        assert found["intervals"][name] == pytest.approx(interval, rel=max(rel, 1e-7)), name
    for ours, theirs in zip(_frontier(found), _frontier(right), strict=True):
        assert ours == pytest.approx(theirs, rel=max(rel, 1e-7))


def _frontier(found: dict[str, Any]) -> Sequence[dict[str, float]]:
    return [
        {name: row[name] for name in ("flops", "n_star", "d_star", "loss")}
        for row in found["derived"]["frontier"]
    ]


def text_variant(name: str, text: str | bytes) -> Write:
    """A file of that name with that content."""

    def write(folder: Path) -> Path:
        path = folder / name
        if isinstance(text, bytes):
            path.write_bytes(text)
        else:
            path.write_text(text)
        return path

    return write


def frame_variant(frame: pl.DataFrame, name: str = "table.csv") -> Write:
    """A frame as CSV, or as Parquet where the name says so."""

    def write(folder: Path) -> Path:
        path = folder / name
        if name.endswith(".parquet"):
            frame.write_parquet(path)
        else:
            frame.write_csv(path)
        return path

    return write
