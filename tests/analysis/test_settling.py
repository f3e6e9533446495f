"""Does the change that `plan` offers make laws stand, by what `plan` then says of it?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.sweep.expectations import expectations, expected_gaps
from analysis.sweep.settling import change_in_words, smallest_change
from search.asked.experiment import Experiment
from search.record.trial_records import TrialRecord
from tests.search.records import bowl, play
from tests.search.test_coverage import AXES, BUDGETS, experiment
from tests.sweeps import GROUND

NARROW = AXES | {"d_model": [64, 96, 128]}
"""Sizes that begin above the best one."""


def narrow(**changes: object) -> Experiment:
    fields = {"arms": ["standard"], "trials": 80, "axes": NARROW} | changes
    return experiment("best", **fields)


def queued(asked: Experiment) -> list[TrialRecord]:
    return [replace(each, state="queued", outcome=None) for each in play(asked, bowl)]


@pytest.fixture(scope="module")
def change():
    found = smallest_change(narrow(), GROUND, [])
    assert found is not None
    return found


def test_the_change_widens_what_keeps_laws_from_standing(change) -> None:
    assert change.standing == ("standard",)
    assert 'search.goal = "law"' in change.changes
    before = expectations(queued(narrow()), num_train_tokens=None)
    assert before[0].verdict != "stands"


def test_a_plan_of_the_changed_experiment_agrees(change) -> None:
    records = queued(change.experiment)
    (law,) = expectations(records, num_train_tokens=None)
    assert law.verdict == "stands"
    spent = sum(each.proposal.train_flops for each in records)
    assert spent == pytest.approx(change.train_flops, rel=0.25)


def test_its_words_name_every_setting(change) -> None:
    words = change_in_words(change, 1e12)
    assert "the cheapest change that is expected to make every law stand (standard)" in words
    for each in change.changes:
        assert each in words
    assert change.to_dict()["standing"] == ["standard"]


def test_where_nothing_helps_the_nearest_is_named() -> None:
    found = smallest_change(narrow(trials=2, budget={"train_flops": BUDGETS[:1]}), GROUND, [])
    assert found is not None
    assert found.standing == ()
    assert "is expected to make any law stand; nearest comes" in change_in_words(found, 1e12)


def test_a_text_that_is_too_short_is_part_of_the_change() -> None:
    short = replace(GROUND, num_train_tokens=20_000)
    found = smallest_change(narrow(), short, [])
    assert found is not None
    assert found.standing == ("standard",)
    assert any(each.startswith("a text of ") for each in found.changes)


def test_results_keep_the_heads_that_they_have() -> None:
    done = play(narrow(trials=12), bowl)
    found = smallest_change(narrow(), GROUND, done)
    assert found is not None
    assert not any("head_dim" in each for each in found.changes)
    assert found.trials >= len(done)


def test_gaps_that_the_runs_will_tell_are_expected() -> None:
    asked = experiment("law")
    records = queued(asked)
    gaps = expected_gaps(asked, GROUND, records)
    assert {(each.one, each.other) for each in gaps} == {("standard", "dual")}
    assert all(0 < each.half_width_nats < 0.5 for each in gaps)
    (law, *_) = expectations(records, num_train_tokens=None)
    assert law.prediction is not None
    flops, relative = law.prediction
    assert flops == pytest.approx(4 * max(BUDGETS))
    assert 0 < relative < 0.2
