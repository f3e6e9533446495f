"""Scores that are no loss, places that are none, parameters that are held, laws without noise."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from experiments.cli import run
from tests.cases.table_kit import (
    TABLES,
    base,
    codes,
    fitted,
    frame_variant,
    wrong_request,
)

SCORES: dict[str, pl.Expr] = {
    "accuracy": 1.0 / pl.col("loss"),
    "percent": 100.0 / pl.col("loss"),
    "likelihood per token": (-pl.col("loss")).exp(),
    "tokens": pl.col("tokens") * pl.col("params"),
}


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("law", ["chinchilla", "isoflop"])
def test_a_score_is_no_loss(
    kind: str, law: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame_variant(base().with_columns(score=SCORES[kind]))(tmp_path)
    found = fitted(capsys, table, "--column", "loss=score", "--law", law)
    assert found["certificate"]["status"] == "refused"
    assert set(found["parameters"].values()) == {None}
    assert "rise with params and tokens" in codes(found)["not-a-loss"]


def test_shared_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    table = TABLES / "accuracy.csv"
    found = fitted(capsys, table, "--column", "loss=accuracy")
    assert "they are not a loss but an accuracy" in codes(found)["not-a-loss"]
    argv = ("--column", "loss=accuracy", "--law", "power", "--over", "flops")
    assert "rise with flops" in codes(fitted(capsys, table, *argv))["not-a-loss"]


def test_a_perplexity_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = frame_variant(base().with_columns(pl.col("loss").exp()))(tmp_path)
    assert "perplexity" in codes(fitted(capsys, table))["loss-too-large"]


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
@pytest.mark.parametrize(
    ("option", "law"),
    [("--at-flops", "chinchilla"), ("--target-loss", "chinchilla"), ("--at-flops", "isoflop")],
)
def test_places_are_positive(
    option: str, value: str, law: str, capsys: pytest.CaptureFixture[str]
) -> None:
    message = wrong_request(capsys, TABLES / "base.csv", f"{option}={value}", "--law", law)
    assert f"{option} takes positive finite numbers, got {value}" in message


def test_a_parameter_is_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exact = base().with_columns(loss=50 * pl.col("params") ** -0.2 + 90 * pl.col("tokens") ** -0.25)
    table = frame_variant(exact)(tmp_path)
    found = fitted(capsys, table, "--fix", "E=0")
    truth = {"E": 0.0, "A": 50.0, "B": 90.0, "alpha": 0.2, "beta": 0.25}
    assert found["parameters"] == pytest.approx(truth, rel=1e-6)
    assert found["fixed"] == {"E": 0.0}
    assert found["intervals"]["E"] is None
    assert "E = 0 held as asked" in codes(found)["held-fixed"]
    assert found["certificate"]["status"] == "ok"
    both = fitted(capsys, table, "--fix", "E=0", "--fix", "alpha=0.2", "--sensitivity")
    assert both["parameters"]["beta"] == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--fix", "E"], "--fix takes NAME=NUMBER"),
        (["--fix", "E=low"], "--fix takes NAME=NUMBER"),
        (["--fix", "A=3"], "got 'A'"),
        (["--fix", "E=9"], "E lies under every loss"),
        (["--fix", "alpha=-1"], "alpha lies"),
        (["--fix", "E=0", "--fix", "E=1"], "one value"),
        (["--fix", "E=0", "--law", "isoflop"], "--fix would not be read here"),
        (["--target-loss", "3", "--law", "isoflop"], "--target-loss would not be read here"),
        (["--seed=-1"], "--seed takes a whole number from 0"),
        (["--over", "params"], "--over is for --law power"),
        (["--fix", "E=0", "--profile", "E"], "a profile is taken of alpha, beta"),
    ],
)
def test_what_cannot_be_held(
    argv: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in wrong_request(capsys, TABLES / "base.csv", *argv)


def test_a_table_may_stand_where_an_experiment_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(TABLES / "base.csv")]) == 0
    assert "alpha           0.335" in capsys.readouterr().out
    assert run(["fit", "nowhere.parquet"]) == 2
    assert "there is no table at nowhere.parquet" in capsys.readouterr().err


@pytest.mark.parametrize("digits", [16, 12, 10, 8, 6, 5])
@pytest.mark.parametrize("kind", ["jackknife", "pairs"])
def test_a_law_without_noise(
    digits: int, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loss = 1.8 + 130 * pl.col("params") ** -0.335 + 260 * pl.col("tokens") ** -0.3
    frame = base().with_columns(loss=loss.round(digits))
    frame = frame if kind == "jackknife" else frame.with_columns(flops=pl.col("flops").sqrt())
    table = frame.drop("flops") if kind == "pairs" else frame
    found = fitted(capsys, frame_variant(table)(tmp_path), "--resample", kind)
    assert "resamples-failed" not in codes(found)
    assert found["resampling"]["share_converged"] > 0.95
    assert "noise-free" in codes(found)
    assert found["parameters"]["alpha"] == pytest.approx(0.335, rel=1e-5)
