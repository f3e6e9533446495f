"""Does ``isoflop skip`` give a curve with its baselines, and say what it cannot do?"""

from __future__ import annotations

import contextlib
from pathlib import Path

import polars as pl
import pytest

from experiments.cli import run
from search.record.ledger import Ledger
from spaces.flops import forward_flops_per_token
from tests.experiments.test_gates import trained
from tests.experiments.toy import run_json
from tests.runners.small import small_architecture


def skip(home: Path, *others: str) -> list[str]:
    return ["skip", "toy/0", "--home", str(home), "--device", "cpu", *others]


def test_a_curve_starts_at_the_model_and_stands_beside_random_exits(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "h"
    name = trained(home)
    found = run_json(capfd, *skip(home, "--draws", "2"))
    assert [curve["by"] for curve in found["curves"]] == ["gate", "router"]
    with contextlib.closing(Ledger(home)) as ledger:
        outcome = ledger.trials("toy")[0].outcome
    assert outcome is not None
    assert found["whole"]["loss_nats"] == pytest.approx(outcome.loss_nats, abs=1e-5)
    full = forward_flops_per_token(small_architecture("dual")).full
    wide = forward_flops_per_token(small_architecture("wide")).full
    gate, router = ([p["flops_per_token"] for p in each["points"]] for each in found["curves"])
    assert (gate[0], gate[-1]) == (wide + 2 * 4 * 16, full), "a wide model with gates; the model"
    assert router[-1] == full
    rows = pl.read_parquet(found["rows"])
    assert set(rows["model"]) == {name}
    costs = rows.group_by("by", "threshold", "sequence").agg(pl.col("flops_full").n_unique())
    assert set(costs["flops_full"]) == {1}, "random exits cost the same, sequence by sequence"
    assert "no run of this home was trained" in found["curves"][0]["verdict"][1]
    assert run(skip(home, "--by", "gate", "--thresholds", "0.4", "0.5")) == 0
    assert "8 validation sequences" in " ".join(capfd.readouterr().out.split())


def refused(capfd: pytest.CaptureFixture[str], words: list[str]) -> str:
    capfd.readouterr()
    assert run(words) == 2
    return capfd.readouterr().err


def test_what_cannot_be_skipped_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loop, wide = tmp_path / "l", tmp_path / "w"
    trained(loop, "loop")
    trained(wide, "wide")
    assert "the wide arm has neither gates nor a router" in refused(capfd, skip(wide))
    for others, said in (
        (["--by", "gate"], "the loop arm has none"),
        (["--thresholds", "-1"], "--thresholds must be 0 or more"),
        (["--draws", "0"], "--draws must be at least 1"),
    ):
        assert said in refused(capfd, skip(loop, *others))


def test_a_run_without_weights_says_how_to_keep_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    trained(tmp_path / "h", keeps_weights=False)
    assert "--training.save-weights" in refused(capfd, skip(tmp_path / "h"))
