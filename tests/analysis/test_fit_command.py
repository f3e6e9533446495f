"""The verb fit, as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from experiments.cli import run
from tests.analysis.planted import budget_table, chinchilla_table


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "points.csv"
    frame = budget_table().rename({"params": "Model Size", "flops": "Training FLOP"})
    frame.drop("tokens").write_csv(path)
    return path


COLUMNS = [
    "--column",
    "params=Model Size",
    "--column",
    "flops=Training FLOP",
    "--column",
    "loss=loss",
    "--tokens-from-flops",
    "6nd",
]


def document(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert run(["fit", *argv, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_the_contract_line(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    law = ["--law", "chinchilla", "--estimator", "huber", "--delta", "1e-3"]
    found = document(capsys, "--table", str(table), *law, *COLUMNS)
    assert found["law"] == "chinchilla"
    assert found["parameters"]["alpha"] == pytest.approx(0.348, abs=0.05)
    assert found["certificate"]["status"] == "ok"
    assert found["data"]["conventions"][0] == "tokens = flops / (6 params)"
    assert found["seconds"] < 30


def test_rows_that_no_law_describes_stay_in_a_table_unless_asked(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    every = document(capsys, "--table", str(table), *COLUMNS)
    codes = {reason["code"] for reason in every["certificate"]["reasons"]}
    assert "rows-unlike-a-law" in codes
    chosen = document(capsys, "--table", str(table), *COLUMNS, "--law-rows")
    (left_out,) = chosen["data"]["excluded"]
    assert left_out["reason"] == "fewer tokens than parameters"
    assert chosen["data"]["rows"] == every["data"]["rows"] - len(left_out["rows"])
    curves = document(capsys, "--table", str(table), *COLUMNS, "--law-rows", "--law", "isoflop")
    assert curves["data"]["rows"] == chosen["data"]["rows"]
    assert run(["fit", "--table", str(table), *COLUMNS, "--every-row"]) == 2
    assert "--every-row would not be read here" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["pairs", "clusters", "residual"])
def test_bootstrap_options(table: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    options = ["--bootstrap", "60", "--resample", kind, "--seed", "3"]
    one = document(capsys, "--table", str(table), *COLUMNS, *options)
    two = document(capsys, "--table", str(table), *COLUMNS, *options)
    assert one["resampling"]["kind"] == kind
    assert one["resampling"]["number"] == 60
    assert one["intervals"] == two["intervals"]


def test_isoflop_adds_curves(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--table", str(table), "--law", "isoflop", *COLUMNS)
    assert len(found["curves"]) == 6
    keys = {"budget", "n_star", "d_star", "loss_star", "regret_set", "status"}
    assert keys <= set(found["curves"][0])
    assert found["derived"]["surface"]["surface_a"] is not None


def test_a_refusal_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = chinchilla_table()
    frame.with_columns(tokens=20 * pl.col("params")).write_parquet(tmp_path / "t.parquet")
    found = document(capsys, "--table", str(tmp_path / "t.parquet"))
    assert found["certificate"]["status"] == "refused"
    assert found["parameters"]["alpha"] is None


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--law", "cosmic"], "no law is called 'cosmic'"),
        (["--estimator", "l1"], "an estimator is one of huber"),
        (["--resample", "bayes"], "--resample takes"),
        (["--delta", "0"], "delta must be positive"),
        (["--column", "params=Nowhere"], "no column for"),
        (["--bootstrap", "1"], "at least 2 resamples"),
        (["--curve", "spline", "--law", "isoflop"], "--curve takes"),
        (["--hold-out", "soon"], "--hold-out takes"),
        (["--profile", "A"], "a profile is taken of"),
    ],
)
def test_wrong_requests(
    table: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    columns = [] if "params=Nowhere" in argv else COLUMNS
    assert run(["fit", "--table", str(table), *columns, *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


@pytest.mark.parametrize("entry", ["nan", "-1", "0", "", "inf"])
def test_malformed_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(f"params,tokens,loss\n1e6,1e9,3\n2e6,{entry},2.5\n3e6,1e9,2.4\n")
    assert run(["fit", "--table", str(path), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "row 2: tokens" in captured.err


def test_one_of_three_sources(capsys: pytest.CaptureFixture[str], table: Path) -> None:
    assert run(["fit"]) == 2
    assert run(["fit", "quickstart", "--table", str(table)]) == 2
    assert "one of EXPERIMENT, --table FILE and --gauntlet" in capsys.readouterr().err


def test_text_figures_and_extras(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--hold-out", "largest-budget", "--sensitivity", "--figures", str(tmp_path / "f")]
    assert run(["fit", "--table", str(table), *COLUMNS, *argv]) == 0
    captured = capsys.readouterr()
    for words in ("certificate: ok", "checklist", "rehearsal (largest-budget)", "without rows"):
        assert words in captured.out
    assert "wrote" in captured.err
    assert (tmp_path / "f" / "residuals.svg").is_file()
    assert run(["fit", "--table", str(table), *COLUMNS, "--law", "isoflop"]) == 0
    assert "a by the surface on the same rows" in capsys.readouterr().out


def test_power_law_takes_its_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = budget_table()
    frame.write_csv(tmp_path / "t.csv")
    argv = ["--table", str(tmp_path / "t.csv"), "--law", "power", "--bootstrap", "20"]
    assert run(["fit", *argv]) == 2
    assert "choose with --over ROLE" in capsys.readouterr().err
    assert document(capsys, *argv, "--over", "flops")["formula"] == "L = E + A flops^-alpha"
    assert document(capsys, *argv, "--column", "params=params")["formula"].endswith("params^-alpha")


@pytest.mark.slow
def test_gauntlet(reference: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", "--gauntlet", "--reference", str(reference)]) == 0
    out = capsys.readouterr().out
    assert "DIFFERS" not in out
    assert "published" in out
    assert "tables judged alike in every unit" in out


def test_gauntlet_without_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "--gauntlet", "--reference", str(tmp_path))
    assert found["comparisons"] == []
    assert "absent" in found["skipped"][0]
