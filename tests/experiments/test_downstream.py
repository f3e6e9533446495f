"""Is a planted law of a score found again, from a table and from a sweep's evaluations?"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import isoflop
from experiments.cli import run
from search.record.evaluations import Evaluation, Score
from search.record.ledger import Ledger
from tests.experiments.test_confirm import planted_sweep
from tests.experiments.toy import run_json

pytestmark = pytest.mark.filterwarnings("default")

SCALE, EXPONENT, ITEMS = 200.0, 0.125, 20_000


def table(folder: Path, *, seed: int = 0) -> Path:
    """Two runs at each of eight budgets, of so many questions each."""
    flops = np.repeat(np.geomspace(1e18, 1e21, 8), 2)
    right = np.random.default_rng(seed).binomial(ITEMS, np.exp(-SCALE * flops**-EXPONENT))
    pl.DataFrame({"flops": flops, "acc": right / ITEMS}).write_csv(folder / "scores.csv")
    return folder / "scores.csv"


def test_a_planted_law_is_found_in_a_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", str(table(tmp_path)), "--score", "acc", "--chance", "0.25", "--items", "20000"]
    found = run_json(capfd, *words)
    assert (found["law"], found["certificate"]["status"]) == ("downstream", "ok")
    assert found["parameters"]["E"] == 0
    assert found["parameters"]["alpha"] == pytest.approx(EXPONENT, rel=0.03)
    assert found["parameters"]["A"] == pytest.approx(SCALE, rel=0.15)
    for name in ("alpha", "A"):
        low, high = found["intervals"][name]
        assert low < found["parameters"][name] < high


def test_the_interval_holds_the_exponent_as_often_as_it_says(tmp_path: Path) -> None:
    from analysis.evaluation.downstream import DIRECT_LAW, HELD, direct_points
    from analysis.fit.fitting import fit
    from analysis.points.table_reading import points_from

    held = 0
    for seed in range(40):
        points = points_from(table(tmp_path, seed=seed), ("flops",), roles={"loss": "acc"})
        points = direct_points(points, np.zeros(16))
        fitted = fit(DIRECT_LAW, points, fixed=HELD, num_resamples=100, seed=seed)
        low, high = fitted.interval("alpha")
        held += low <= EXPONENT <= high
    assert held >= 33


def test_budgets_at_chance_are_refused_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--table", str(table(tmp_path)), "--score", "acc", "--chance", "0.45"]
    found = run_json(capfd, *words, "--items", "20000")
    assert found["certificate"]["status"] == "refused"
    assert found["parameters"]["alpha"] is None
    (reason,) = [r for r in found["certificate"]["reasons"] if r["code"] == "near-chance"]
    assert "1e+18, 2.68e+18, 7.2e+18 FLOPs are not above chance (rows 1-6" in reason["message"]
    kept = run_json(capfd, *words, "--keep", "flops > 7.3e18")
    assert kept["certificate"]["status"] != "refused"
    assert kept["data"]["rows"] == 10


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--score", "acc"], "--score of a table needs --chance"),
        (["--score", "acc", "--chance", "25"], "between 0 and 1"),
        (["--score", "acc", "--chance", "0.5", "--items", "0"], "number of questions"),
        (["--score", "flops", "--chance", "0.5"], "divide percentages by 100"),
        (["--score", "none", "--chance", "0.5"], "no column for loss (column 'none')"),
        (["--score", "acc", "--chance", "0.5", "--law", "power"], "--score would not be read"),
        (["--chance", "0.5", "--law", "power"], "--chance would not be read"),
    ],
)
def test_a_wrong_request_is_explained(
    tmp_path: Path, words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["fit", "--table", str(table(tmp_path)), *words]) == 2
    assert said in capfd.readouterr().err


def evaluate_on_paper(home: Path, *, chance: float) -> None:
    """A planted score for every run but one; those of worse shapes are worse still."""
    frame = isoflop.sweep_frame("toy", home)
    least = pl.col("loss_nats").min().over("arm", "target_train_flops").alias("least")
    rows = frame.with_columns(least).sort("config_hash").to_dicts()
    with contextlib.closing(Ledger(home)) as ledger, ledger.held():
        for row in rows[1:]:
            excess = row["loss_nats"] - row["least"]
            share = float(np.exp(-30 * row["target_train_flops"] ** -0.15)) * (1 - 0.05 * excess)
            p_chance = 1e-9 if share > chance else 0.4
            score = Score(
                rule="acc", value=share, standard_error=0.003, chance=chance, p_chance=p_chance
            )
            bits = Score(rule="answer_bits_per_byte", value=1 - share, standard_error=0.003)
            ledger.keep_evaluation(
                Evaluation(
                    config_hash=row["config_hash"],
                    task="arc_easy",
                    fingerprint="0",
                    num_items=2376,
                    num_cut=0,
                    headline="acc",
                    scores=(score, bits),
                    wall_seconds=1.0,
                    evaluated_at=1.0,
                    code_version="test",
                )
            )


def test_a_sweep_is_fitted_by_its_best_run_of_each_budget(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _, home = planted_sweep(tmp_path)
    evaluate_on_paper(home, chance=0.2)
    words = ["fit", "toy", "--home", str(home), "--every-row"]
    assert run([*words, "--score", "arc_easy.acc"]) == 0
    said = capfd.readouterr()
    assert "1 results have no eval.arc_easy.acc" in said.err
    assert "-ln(score) = E + A flops^-alpha" in said.out
    found = run_json(capfd, *words, "--score", "eval.arc_easy.acc", "--keep", "arm = 'dual'")
    assert found["data"]["rows"] == 4
    assert found["parameters"]["alpha"] == pytest.approx(0.15, rel=0.02)
    assert found["parameters"]["A"] == pytest.approx(30, rel=0.3)
    bits = run_json(capfd, *words, "--score", "arc_easy.answer_bits_per_byte")
    assert bits["law"] == "power"
    assert run([*words, "--score", "arc_easy.none"]) == 2
    assert "eval.arc_easy.acc" in capfd.readouterr().err
    evaluate_on_paper(home, chance=0.36)
    refused = run_json(capfd, *words, "--score", "arc_easy.acc")
    assert refused["certificate"]["status"] == "refused"
    (reason,) = [r for r in refused["certificate"]["reasons"] if r["code"] == "near-chance"]
    assert "4e+09" in reason["message"]
