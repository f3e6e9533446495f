"""Ten thousand rows are fitted in seconds, and whoever waits is told how far it is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from analysis.objective.progress import listening, report
from analysis.report import progress_line
from experiments.verbs import fit as verb
from tests.cases.table_kit import fitted, frame_variant

TRUTH = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}


def scattered(num_rows: int) -> pl.DataFrame:
    """Rows of Chinchilla's law with 0.3 % of noise, no two of one budget."""
    random = np.random.default_rng(0)
    params = np.exp(random.uniform(np.log(1e6), np.log(1e10), num_rows))
    tokens = params * np.exp(random.uniform(np.log(2), np.log(200), num_rows))
    exact = 1.82 + 482 * params**-0.348 + 2085 * tokens**-0.366
    loss = exact * np.exp(0.003 * random.normal(size=num_rows))
    return pl.DataFrame(
        {"params": params, "tokens": tokens, "flops": 6 * params * tokens, "loss": loss}
    )


def test_ten_thousand_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_line, "SECONDS_BETWEEN_LINES", 0.0)
    table = frame_variant(scattered(10_000))(tmp_path)
    began = time.process_time()  # 8 s on an idle core; other work makes CPU seconds longer too
    told: list[str] = []
    monkeypatch.setattr(verb, "talk", told.append)
    found = fitted(capsys, table)
    assert time.process_time() - began < 40.0
    assert found["parameters"] == pytest.approx(TRUTH, rel=0.02)
    assert found["resampling"]["number"] == 1000
    assert any("of 1000 refits" in line for line in told)
    assert any("of 2304 cells" in line for line in told)


def test_short_work_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from experiments.cli import run

    table = frame_variant(scattered(60))(tmp_path)
    assert run(["fit", "--table", str(table), "--bootstrap", "20"]) == 0
    assert capsys.readouterr().err == ""


def test_reports_reach_whoever_listens() -> None:
    heard: list[tuple[str, int, int]] = []
    report("refits", 1, 2)
    with listening(lambda *what: heard.append(what)):
        report("refits", 2, 2)
    report("refits", 3, 2)
    assert heard == [("refits", 2, 2)]
