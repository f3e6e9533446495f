"""Published figures, refitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from analysis.gauntlet.all_cases import CASES, Gauntlet, run_gauntlet


@pytest.fixture(scope="module")
def gauntlet(reference: Path) -> Gauntlet:
    return run_gauntlet(reference)


@pytest.mark.parametrize("case", CASES)
def test_every_case_is_within_its_tolerance(gauntlet: Gauntlet, case: str) -> None:
    rows = [row for row in gauntlet.comparisons if row.case.startswith(case)]
    assert rows
    assert [row for row in rows if not row.passed] == []


def test_all_expected_cases_are_run(gauntlet: Gauntlet, reference: Path) -> None:
    expected = json.loads((reference / "expected.json").read_text())
    assert set(CASES) == {name for name in expected if not name.startswith("_")}
    assert gauntlet.skipped == ()
    assert gauntlet.passed


def test_sum_and_mean_give_the_same_optimum(gauntlet: Gauntlet) -> None:
    by_figure: dict[str, list[float]] = {}
    for row in gauntlet.comparisons:
        if row.case.startswith("chinchilla_n240_huber"):
            by_figure.setdefault(row.figure, []).append(row.ours)
    for pair in by_figure.values():
        assert pair[0] == pytest.approx(pair[1], rel=1e-7)


def test_absent_data_is_skipped_and_said(tmp_path: Path, reference: Path) -> None:
    nothing = run_gauntlet(tmp_path)
    assert nothing.comparisons == ()
    assert "is absent" in nothing.skipped[0]
    (tmp_path / "expected.json").write_text((reference / "expected.json").read_text())
    partly = run_gauntlet(tmp_path)
    assert {row.case for row in partly.comparisons} == {"a2_bias_pct_Dstar_1e24"}
    assert len(partly.skipped) == len(CASES) - 1
    assert partly.passed
