"""Rows and columns that are no result of a run, or one result twice, and what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.cases.table_kit import (
    TABLES,
    assert_same,
    base,
    codes,
    fitted,
    frame_variant,
    left_out,
    text_variant,
    wrong_request,
)


@pytest.fixture(scope="module")
def right() -> dict[str, Any]:
    """The fit of the right table."""
    from analysis.fit.fitting import fit

    return fit("chinchilla", TABLES / "base.csv").to_dict()


def _joined() -> pl.DataFrame:
    tasks = pl.DataFrame({"task": ["piqa", "boolq", "arc"], "score": [0.5, 0.6, 0.7]})
    return base().join(tasks, how="cross")


SINGLE = pl.col("loss").cast(pl.Float32)

COPIES: dict[str, tuple[Callable[[], pl.DataFrame], int]] = {
    "twice": (lambda: pl.concat([base(), base()]), 42),
    "five times, shuffled": (
        lambda: pl.concat([base()] * 5).sample(fraction=1, shuffle=True, seed=0), 168
    ),
    "one row pasted": (lambda: pl.concat([base(), *[base()[3:4]] * 20]), 20),
    "joined by task": (_joined, 84),
    "with an index": (lambda: pl.concat([base(), base()]).with_row_index("id"), 42),
    "a seed without effect": (
        lambda: pl.concat([base().with_columns(seed=pl.lit(s)) for s in (1, 2)]), 42
    ),
    "in single precision": (
        lambda: pl.concat([base(), base().with_columns(SINGLE.cast(pl.Float64))]), 42
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COPIES)
def test_copies_count_once(
    kind: str, right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, count = COPIES[kind]
    found = fitted(capsys, frame_variant(make())(tmp_path))
    assert left_out(found) == {"a copy of an earlier row": count}
    assert f"{count} rows are each a copy of an earlier row" in codes(found)["copied-rows"]
    assert_same(found, right, rel=1e-6)
    assert found["certificate"]["measures"]["seed_log_std"] is None


def test_shared_copies(right: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    found = fitted(capsys, TABLES / "copied-rows.csv")
    assert_same(found, right)
    assert "(43-84)" in codes(found)["copied-rows"]


def test_columns_in_which_copies_differ_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = fitted(capsys, frame_variant(_joined())(tmp_path))
    assert "they differ in 'task', 'score'" in codes(found)["copied-rows"]


def _seeds(digits: int) -> pl.DataFrame:
    frames = []
    for seed in range(3):
        rough = np.random.default_rng(seed).normal(size=42) * 0.003
        loss = (base()["loss"] * np.exp(rough)).round(digits)
        frames.append(base().with_columns(loss=loss, seed=pl.lit(seed)))
    return pl.concat(frames)


def test_seeds_with_rounded_losses_are_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three digits of seeds meet by chance; they are no copies."""
    found = fitted(capsys, frame_variant(_seeds(2))(tmp_path))
    assert found["data"]["rows"] == 126
    assert "copied-rows" not in codes(found)
    assert found["certificate"]["measures"]["seed_log_std"] == pytest.approx(0.003, rel=0.3)


def _states(name: str, good: object, bad: object, *, loss: object = 9.0) -> pl.DataFrame:
    broken = base()[::3].with_columns(loss=pl.lit(loss, dtype=pl.Float64), state=pl.lit(bad))
    frame = pl.concat([base().with_columns(state=pl.lit(good)), broken])
    return frame.rename({"state": name})


STATES: dict[str, pl.DataFrame] = {
    "W&B": _states("State", "finished", "crashed"),
    "killed": _states("status", "finished", "killed"),
    "MLflow": _states("status", "FINISHED", "FAILED"),
    "Optuna": _states("trial_state", "COMPLETE", "PRUNED"),
    "Ray": _states("status", "TERMINATED", "ERROR"),
    "Slurm": _states("job state", "COMPLETED", "OUT_OF_MEMORY"),
    "still running": _states("state", "finished", "running"),
    "a flag": _states("crashed", False, True),
    "a flag of the end": _states("finished", "yes", "no"),
    "without a loss": _states("state", "finished", "failed", loss=None),
    "with NaN": _states("state", "finished", "diverged", loss=float("nan")),
}


@pytest.mark.parametrize("kind", STATES)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_unfinished_runs_are_left_out(
    kind: str,
    suffix: str,
    right: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = fitted(capsys, frame_variant(STATES[kind], f"t.{suffix}")(tmp_path))
    assert sum(left_out(found).values()) == 14
    assert "14 rows of runs that did not finish" in codes(found)["unfinished-runs"]
    assert_same(found, right)


def test_a_condition_on_the_state_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame_variant(STATES["W&B"])(tmp_path)
    found = fitted(capsys, table, "--keep", "State IN ('finished', 'crashed')")
    assert found["data"]["rows"] == 56
    assert "unfinished-runs" not in codes(found)


def test_the_last_attempt_counts(
    right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"run-{i}" for i in range(42)]
    again = base().with_columns(run=pl.Series(names), attempt=pl.lit(2))
    first = base()[:9].with_columns(pl.col("loss") + 1, run=pl.Series(names[:9]), attempt=pl.lit(1))
    once = base().with_columns(run=pl.Series(names), attempt=pl.lit(1))[9:]
    found = fitted(capsys, frame_variant(pl.concat([first, again[:9], once]))(tmp_path))
    assert left_out(found) == {"an earlier attempt by attempt": 9}
    assert_same(found, right)


@pytest.mark.parametrize("entry", ["", "nan", "NaN", "inf", "-inf", "NA", "crashed", "0", "-1"])
def test_rows_without_a_loss_are_counted_and_named(
    entry: str, right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (TABLES / "base.csv").read_text().splitlines()
    bad = [",".join([*line.split(",")[:3], entry]) for line in lines[1:15]]
    table = text_variant("t.csv", "\n".join([*lines, *bad]))(tmp_path)
    message = wrong_request(capsys, table)
    assert "14 rows hold others: row 43: loss = " in message
    assert 'for example --keep "loss > 0"' in message
    found = fitted(capsys, table, "--keep", "loss > 0")
    assert left_out(found) == {"not loss > 0": 14}
    assert_same(found, right)


def test_mostly_text(right: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    table = TABLES / "mostly-crashed.csv"
    for condition in ("loss < 100", "loss < 100 AND params > 1", "loss IS NOT NULL AND loss < 50"):
        found = fitted(capsys, table, "--keep", condition)
        assert left_out(found) == {f"not {condition}": 84}
        assert_same(found, right)
    found = fitted(capsys, table, "--keep", "loss <> 'crashed' AND loss <> 'NA'")
    assert_same(found, right)
    message = wrong_request(capsys, table)
    assert "84 rows hold others" in message
    assert "loss is 63 times 'NA', 21 times 'crashed'" in message


def test_blanks_in_a_column_that_is_not_read(
    right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = TABLES / "blank-unneeded-flops.csv"
    found = fitted(capsys, table)
    assert found["data"]["rows"] == 42
    assert_same(found, right, rel=1e-6)
    assert "flops is not used: 11 of 42 entries" in codes(found)["column-not-used"]
    found = fitted(capsys, table, "--law", "power", "--over", "params")
    assert found["data"]["rows"] == 42
    assert "flops is not used" in codes(found)["column-not-used"]
    for role in ("budget", "loss_std"):
        odd = base().with_columns(pl.when(N_ROW > 30).then(1.0).alias(role))
        found = fitted(capsys, frame_variant(odd)(tmp_path))
        assert f"{role} is not used" in codes(found)["column-not-used"]
        assert_same(found, right)
    text = base().with_columns(pl.lit("n/a").alias("num_loops"), note=pl.lit(None, pl.String))
    assert_same(fitted(capsys, frame_variant(text)(tmp_path)), right)


ODD_TYPES: dict[str, pl.Expr] = {
    "lists": pl.concat_list("params"),
    "structs": pl.struct("params"),
    "true": pl.lit(True),
    "dates": pl.lit("2026-01-01").str.to_date(),
    "nothing": pl.lit(None),
    "negative": -pl.col("params"),
}


@pytest.mark.parametrize("kind", ODD_TYPES)
@pytest.mark.parametrize("role", ["flops", "loss_std", "note"])
def test_odd_columns_that_are_not_read(
    kind: str,
    role: str,
    right: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = base().with_columns(ODD_TYPES[kind].alias(role))
    found = fitted(capsys, frame_variant(odd, "t.parquet")(tmp_path))
    assert_same(found, right, rel=1e-6)
    told = codes(found).get("column-not-used", "")
    assert (f"{role} is not used" in told) == (role != "note")


def test_a_column_that_differs_in_case_alone_is_told(
    right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame_variant(base().with_columns(Loss=pl.lit(3.0)))(tmp_path)
    found = fitted(capsys, table)
    assert_same(found, right)
    assert "the column 'Loss' is not used, 'loss' is" in codes(found)["column-not-used"]


N_ROW = pl.int_range(pl.len())


def test_a_weight_is_used_when_asked(
    right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame_variant(base().with_columns(weight=1.0 + N_ROW))(tmp_path)
    found = fitted(capsys, table)
    assert_same(found, right)
    assert "'weight' is not used; --column weight=weight" in codes(found)["column-not-used"]
    asked = fitted(capsys, table, "--column", "weight=weight")
    assert asked["parameters"]["E"] != pytest.approx(right["parameters"]["E"], rel=1e-6)
    assert "column-not-used" not in codes(asked)


def test_standard_deviations_are_said_to_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame_variant(base().with_columns(loss_std=pl.lit(0.01)))(tmp_path)
    assert "divide the residuals" in codes(fitted(capsys, table))["loss-std-used"]
    assert "loss-std-used" not in codes(fitted(capsys, table, "--column", "loss_std=loss_std"))


def test_two_columns_of_one_name(
    right: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (TABLES / "base.csv").read_text().splitlines()
    for header in ("loss", " loss "):
        twice = "\n".join([f"{lines[0]},{header}", *(f"{line},3.0" for line in lines[1:])])
        message = wrong_request(capsys, text_variant("t.csv", twice)(tmp_path))
        assert "more than one column 'loss'" in message
    for name in ("loss.1", "loss_duplicated_0"):
        table = frame_variant(base().with_columns(pl.lit(3.0).alias(name)))(tmp_path)
        assert f"has '{name}' beside 'loss'" in wrong_request(capsys, table)
        assert_same(fitted(capsys, table, "--column", "loss=loss"), right)
    other = "\n".join([f"{lines[0]},note,note", *(f"{line},a,b" for line in lines[1:])])
    assert_same(fitted(capsys, text_variant("t.csv", other)(tmp_path)), right)
    doubled = text_variant("t.jsonl", '{"params": 1, "tokens": 1, "loss": 1, "loss": 2}\n')
    assert "more than one column 'loss'" in wrong_request(capsys, doubled(tmp_path))


LABELS: dict[str, Callable[[pl.DataFrame], pl.Expr]] = {
    "text": lambda f: pl.format("trunk {}", pl.col("flops").rank("dense")),
    "ids from 0": lambda f: pl.col("flops").rank("dense") - 1,
    "ids from 1": lambda f: pl.col("flops").rank("dense"),
    "negative ids": lambda f: -pl.col("flops").rank("dense").cast(pl.Int64),
    "true and false and more": lambda f: pl.col("flops").rank("dense").cast(pl.String) + ",5",
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_any_label_names_a_cluster(
    kind: str,
    suffix: str,
    right: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for frame in (base(), base().drop("flops")):
        labelled = base().select(LABELS[kind](frame).alias("run"))["run"]
        table = frame_variant(frame.with_columns(labelled), f"t.{suffix}")(tmp_path)
        found = fitted(capsys, table, "--column", "budget=run")
        assert found["data"]["budgets"] == 6
        assert_same(found, right, rel=1e-6)


def test_shared_checkpoints(capsys: pytest.CaptureFixture[str]) -> None:
    found = fitted(capsys, TABLES / "checkpoints-of-runs.csv", "--column", "budget=run")
    assert found["data"]["budgets"] == 14
    assert found["resampling"]["kind"] == "components"
    assert found["certificate"]["status"] == "ok"
    message = wrong_request(
        capsys, TABLES / "mostly-crashed.csv", "--column", "budget=loss", "--keep", "params > 0"
    )
    assert "loss = 'NA'" in message
