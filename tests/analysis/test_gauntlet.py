"""Published figures, refitted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.gauntlet.all_cases import CASES, Gauntlet, run_gauntlet
from analysis.gauntlet.table_statuses import table_statuses
from analysis.report.fit_text import gauntlet_text


@pytest.fixture(scope="module")
def gauntlet(reference: Path) -> Gauntlet:
    return run_gauntlet(reference, with_tables=False)


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
    partly = run_gauntlet(tmp_path, with_tables=False)
    assert {row.case for row in partly.comparisons} == {"a2_bias_pct_Dstar_1e24"}
    assert len(partly.skipped) == len(CASES) - 1
    assert partly.passed


def test_open_tables_are_refused_in_every_unit(tmp_path: Path) -> None:
    tables = table_statuses(tmp_path)
    assert len(tables) == 3
    assert all(table.passed and table.status == "refused" for table in tables)
    changed = replace(tables[0], settles=True, status="ok")
    assert not changed.passed
    said = gauntlet_text(Gauntlet(comparisons=(), skipped=(), tables=(*tables, changed)))
    assert "3 of 4 tables judged alike in every unit" in said
    assert said.count("DIFFERS") == 1


@pytest.mark.slow
def test_no_published_table_is_judged_by_its_units(reference: Path) -> None:
    tables = table_statuses(reference)
    assert len(tables) > 10
    assert [table for table in tables if not table.passed] == []
    assert next(t for t in tables if t.table == "chinchilla").status == "ok"
