"""Does a report say what the ledger has, escape what users named, and load nothing?"""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.report.page_parts import Table, listed
from analysis.report.report_checklist import training_items
from analysis.report.report_figures import draw_on_paper, figure_data
from analysis.report.report_page import render
from analysis.report.report_survival import survival_of
from analysis.report.sweep_report import SweepFindings, data_of, find_out, findings_of, report_of
from analysis.show.palette import COLOURS, arm_styles, budget_colours
from analysis.show.pareto_panel import MOST_MARKS, thinned
from analysis.sweep.conventions import convention_standings, first_arms
from analysis.sweep.pareto import COSTS, on_some_front, pareto_fronts
from search.asked.experiment import Experiment, load_experiment
from search.record.ledger import TrialRecord
from search.record.trial import Outcome
from search.record.trial_records import loss_of
from spaces.arms import registry
from spaces.arms.contract import find_arm
from tests.many_trials import many_trials

EVIL = "<script>alert('$\\frac{x$')</script>"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> SweepFindings:
    home = tmp_path_factory.mktemp("report")
    experiment = many_trials(home, 240)
    return find_out(experiment.name, home)


@pytest.fixture(scope="module")
def page(found: SweepFindings) -> str:
    return render(report_of(found, data_of(found)), {})


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_numbers_of_the_page_are_the_ledger_s(found: SweepFindings, page: str) -> None:
    words = html.unescape(without_scripts(page))
    assert "240 of 240 trials" in words
    for board in found.board.budgets:
        best = board.recommended
        assert f"{board.target_train_flops:.3g}" in words
        mean = np.mean(
            [
                loss_of(each.record)
                for each in board.entries
                if replace_seeds(each.record) == replace_seeds(best)
            ]
        )
        assert f"{mean:.4f}" in words
    assert found.fitted is not None
    for arm in found.fitted.arms:
        for value in arm.surface.parameters.values():
            assert value is None or f"{value:.4g}" in words


def replace_seeds(record: TrialRecord) -> object:
    return replace(record.proposal.config, init_seed=0, data_seed=0)


def test_the_figures_of_the_page_are_the_fit_s(found: SweepFindings, page: str) -> None:
    (text,) = re.findall(
        r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL
    )
    drawn = json.loads(text)
    assert found.fitted is not None
    assert len([name for name in drawn if name.startswith("plot-isoflop_curves-")]) == len(
        found.fitted.arms
    )
    assert len([name for name in drawn if name.startswith("plot-pareto-")]) == 2
    stars = [
        trace["x"][0]
        for name, figure in drawn.items()
        if name.startswith("plot-isoflop_curves-")
        for trace in figure["data"]
        if trace.get("marker", {}).get("symbol") == "star"
    ]
    assert stars == [
        curve.n_star
        for arm in found.fitted.arms
        for curve in arm.isoflop.curves
        if curve.n_star is not None
    ]


def test_a_page_loads_nothing(page: str) -> None:
    words = without_scripts(page)
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", words)
    assert "<link" not in words
    assert "@import" not in words
    assert "url(" not in words
    assert not re.findall(r"<script[^>]*\ssrc=", page)
    assert "default-src 'none'" in words


def test_what_users_named_is_escaped(
    found: SweepFindings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An arm of somebody's own, and a sweep's name that no experiment may have."""
    wide = type(find_arm("wide"))
    evil_arm = type("Evil", (wide,), {"name": EVIL, "family": EVIL})()
    monkeypatch.setitem(registry._FROM_FILES, EVIL, evil_arm)
    records = [
        replace(record, proposal=replace(record.proposal, arm=EVIL))
        if record.proposal.arm == "wide"
        else record
        for record in found.records
    ]
    asked = found.asked | {"arms": [EVIL, "dual"]}
    sweep = replace(found.sweep, name=EVIL, code_version=EVIL, experiment_json=json.dumps(asked))
    evil = findings_of(sweep, records)
    page = render(report_of(evil, data_of(evil)), {})
    assert draw_on_paper(data_of(evil), tmp_path)
    assert EVIL not in page
    assert html.escape(EVIL, quote=False).replace("'", "&#39;") in page
    assert page.count("<script") == 3 + without_own_scripts(page)
    (text,) = re.findall(
        r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL
    )
    assert "<" not in text


def without_own_scripts(page: str) -> int:
    """How often plotly.js itself writes the word."""
    from analysis.show.interactive import plotly_script

    return plotly_script().count("<script")


def test_the_experiment_comes_back_from_its_file(found: SweepFindings, tmp_path: Path) -> None:
    path = tmp_path / "again.toml"
    path.write_text(found.experiment_toml)
    assert load_experiment(str(path)) == Experiment.model_validate_json(found.sweep.experiment_json)


def test_no_result_yet_is_a_report_too(found: SweepFindings) -> None:
    queued = replace(found.records[0], state="queued", outcome=None, attempts=())
    empty = findings_of(found.sweep, [queued])
    said = report_of(empty, data_of(empty))
    assert "no answer yet" in said.answer
    assert "No law was fitted" in said.section("laws").words[0]
    render(said, {})


def test_every_law_has_the_checklist_and_says_what_is_unknown(found: SweepFindings) -> None:
    said = report_of(found, data_of(found))
    assert found.fitted is not None
    for arm in found.fitted.arms:
        table = said.section(f"law-{arm.arm}").tables[-1]
        answers = {item: answer for _, item, answer in table.rows}
        assert answers["Form"] == arm.surface.law.formula
        assert answers["How many points?"].startswith(str(arm.surface.points.num_rows))
        assert answers["Objective"] == arm.surface.estimator.convention
        assert answers["Tested on runs it never saw?"].startswith("no: no forecast")
    training = {item: answer for _, item, answer in said.section("laws").tables[-1].rows}
    assert training["Optimiser"].startswith("AdamW")
    assert training["Is text repeated?"] == "at most 0.5 epochs"
    unknown = training_items(found.sweep, found.asked, [])
    assert {each.question for each in unknown if each.answer is None} >= {"Optimiser", "Schedule"}


def test_every_flop_and_every_failure_is_told(found: SweepFindings) -> None:
    records = list(found.records)
    for place in range(3):
        records[place] = replace(
            records[place],
            state="diverged",
            outcome=Outcome(status="diverged", reason="the loss is not finite"),
        )
    broken = findings_of(found.sweep, records)
    spent, failures, environment = report_of(broken, data_of(broken)).section("spending").tables
    assert spent.rows[-1][1] == f"{sum(a.spent_flops for r in records for a in r.attempts):.3g}"
    assert {(row[0], row[-1]) for row in failures.rows} == {("diverged", "the loss is not finite")}
    assert sum(int(row[2]) for row in failures.rows) == 3
    assert ("device", "not recorded", "237") in environment.rows


def test_fronts_are_what_nothing_beats(found: SweepFindings) -> None:
    fronts = pareto_fronts(found.records)
    assert [front.cost for front in fronts] == list(COSTS)
    for front in fronts:
        for each in front.candidates:
            beaten = any(
                other.costs[front.cost] <= each.costs[front.cost]
                and other.loss_nats < each.loss_nats
                for other in front.candidates
            )
            assert beaten or each in front.front or _is_twin(each, front.front, front.cost)
    assert not fronts[2].front, "no memory was measured"
    members = on_some_front(fronts)
    losses = [candidate.loss_nats for candidate, _ in members]
    assert losses == sorted(losses)
    assert {cost for _, costs in members for cost in costs} == {*COSTS} - {"peak_memory_bytes"}


def _is_twin(each, front, cost) -> bool:
    return any(
        other.costs[cost] <= each.costs[cost] and other.loss_nats == each.loss_nats
        for other in front
    )


def test_the_own_convention_ranks_as_the_leaderboard(found: SweepFindings) -> None:
    standings = convention_standings(found.records, found.board.rates)
    own = found.board.budgets[0].convention
    by_arm = {(each.arm, each.train_flops): each.config_hash for each in found.board.rates}
    losses = {record.config_hash: record for record in found.records}
    for each in standings:
        if each.convention == own and each.rank is not None:
            leader = losses[by_arm[each.arm, each.target_train_flops]]
            assert each.train_flops == leader.proposal.train_flops
    firsts = first_arms(standings)
    assert set(firsts) == {board.target_train_flops for board in found.board.budgets}
    for target in firsts:
        mine = [s for s in standings if s.target_train_flops == target and s.convention == own]
        assert [s.loss_nats for s in mine] == sorted(s.loss_nats for s in mine if s.loss_nats)
    assert "three FLOP conventions" in survival_of(standings, found.board.gaps)


def test_many_marks_are_thinned_and_the_lowest_are_kept() -> None:
    chance = np.random.default_rng(0)
    x, y = np.exp(chance.uniform(0, 9, 20_000)), chance.normal(size=20_000)
    chosen = thinned(x, y, 1000)
    assert len(chosen) == len(set(chosen.tolist())) == 1000
    assert np.argmin(y) in chosen
    np.testing.assert_array_equal(thinned(x[:50], y[:50], 1000), np.arange(50))


def test_what_is_not_marked_is_said(found: SweepFindings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.report.report_figures.MOST_MARKS", 40)
    data = figure_data(found.fitted, found.fronts)
    assert set(data.left_unmarked) == {"isoflop_curves", "pareto"}
    said = report_of(found, data)
    drawn, there = data.left_unmarked["pareto"]
    assert drawn < there
    assert f"Of {there:,} marks {drawn:,} are drawn" in said.section("pareto").figures[0].caption
    assert MOST_MARKS > 40


def test_an_arm_has_one_colour_everywhere() -> None:
    shipped = arm_styles(["dual", "loop", "wide", "standard", "unrolled", "moe"])
    assert len({style.colour for style in shipped.values()}) == 6
    assert arm_styles(["wide", "dual"])["wide"] == shipped["wide"]
    assert arm_styles(["dual", "mine"])["mine"].colour not in {s.colour for s in shipped.values()}
    many = arm_styles([f"own{number:02d}" for number in range(20)])
    assert len({(style.colour, style.symbol) for style in many.values()}) == 20
    assert budget_colours(["1", "2", "3"]).keys() == {"1", "2", "3"}
    assert len(COLOURS) == 7


def test_columns_of_numbers_are_known() -> None:
    table = Table.of(
        "",
        ("shape", "n", "interval", "empty", "gap"),
        [
            ("6 x 160, wide 640", "*=1", "[0.1, 2e+04]", "", "-0.01 [-0.03, +0.1]"),
            ("1", "2.5M", "–", "", "–"),
        ],
    )
    assert table.header == ("shape", "n", "interval", "gap")
    assert table.columns_of_numbers == (False, True, True, True)


def test_lists_read_as_sentences() -> None:
    assert [listed(x) for x in (["a"], ["a", "b"], ["a", "b", "c"])] == [
        "a",
        "a and b",
        "a, b and c",
    ]
