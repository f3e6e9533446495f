"""Does a sweep for laws collect what laws need, and say beforehand what they will be worth?"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from analysis.sweep.expectations import expectations
from runners.trial.branching import shared_tokens, trunk_key
from search.asked.experiment import Experiment
from search.design.information import NOISE
from search.limits.law_rows import why_no_law_uses, why_not_for_laws
from search.propose.coverage import SIZES, covers, log_size
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord
from tests.search.records import bowl, play
from tests.sweeps import toy_experiment

AXES = {
    "num_loops": [1, 2],
    "wide_multiplier": [2, 4],
    "num_layers": [1, 2, 3],
    "d_model": [16, 32, 48, 64, 96, 128, 192, 256],
}
BUDGETS = [1e11, 2e11, 4e11, 8e11]
WSD = {"schedule": "wsd", "warmup_tokens": 4096, "batch_exponent": 0.0, "eval_sequences": 8}


def experiment(goal: str, **changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "trials": 72,
        "arms": ["standard", "dual"],
        "budget": {"train_flops": BUDGETS},
        "axes": AXES,
        "search": {"goal": goal, "replicates_per_budget": 0, "sampler": "random"},
    }
    return toy_experiment(**(fields | changes))


def proposals(asked: Experiment) -> list[Proposal]:
    return [record.proposal for record in play(asked, bowl)]


def of_cell(runs: list[Proposal], arm: str, budget: float) -> list[Proposal]:
    return [run for run in runs if run.arm == arm and run.budget.train_flops == budget]


@pytest.mark.parametrize("goal", ["law", "both"])
def test_sizes_from_a_quarter_to_four_times_the_best_come_first(goal: str) -> None:
    runs = proposals(experiment(goal))
    for arm in ("standard", "dual"):
        for budget in BUDGETS:
            first = of_cell(runs, arm, budget)[:5]
            sizes = [math.exp(log_size(each)) for each in first]
            assert max(sizes) > 5 * min(sizes), (arm, budget)
            covered = [size for size in SIZES if any(covers(each, size) for each in first)]
            assert len(covered) >= 3, (arm, budget)
            loops = {each.config.architecture.num_loops for each in first}
            assert loops == ({1, 2} if arm == "dual" else {1})


def test_a_sweep_for_the_best_is_as_before() -> None:
    spans = {}
    for goal in ("law", "best"):
        runs = of_cell(proposals(experiment(goal, trials=40)), "standard", BUDGETS[-1])
        assert runs[0].purpose == "baseline"
        sizes = [log_size(each) for each in runs]
        spans[goal] = max(sizes) - min(sizes)
    assert spans["law"] > math.log(8)


def test_no_run_of_a_sweep_for_laws_is_one_that_no_law_uses() -> None:
    for run in proposals(experiment("law")):
        assert (
            run.purpose == "baseline" or why_no_law_uses(run.config, num_train_tokens=None) is None
        )


def test_rows_are_left_out_by_design() -> None:
    assert why_not_for_laws(params=10, tokens=9, epochs=1) == "fewer tokens than parameters"
    assert why_not_for_laws(params=10, tokens=10, epochs=4.1) == "more than 4 epochs of its text"
    assert why_not_for_laws(params=10, tokens=10, epochs=4) is None
    assert why_not_for_laws(params=None, tokens=None, epochs=None) is None


def test_budgets_share_trunks_where_asked() -> None:
    budget = {"train_flops": BUDGETS, "trunk": True}
    runs = proposals(experiment("law", budget=budget, training=WSD))
    configs = [run.config for run in runs]
    whole = sum(config.tokens for config in configs)
    assert sum(shared_tokens(configs).values()) > 0.12 * whole
    trunks: dict[str | None, list[int]] = {}
    for config in configs:
        trunks.setdefault(trunk_key(config), []).append(config.tokens)
    assert max(map(len, trunks.values())) >= 3
    with pytest.raises(ValueError, match=r"budget.trunk = true .* needs training.schedule = 'wsd'"):
        experiment("law", budget=budget)


def planned(asked: Experiment) -> list[TrialRecord]:
    """Every trial of an experiment, before any has run."""
    return [replace(each, state="queued", outcome=None) for each in play(asked, bowl)]


def test_what_a_design_will_tell_is_said_beforehand() -> None:
    wide = expectations(planned(experiment("law")), num_train_tokens=None)
    assert [each.family for each in wide] == ["dual", "standard", "all arms"]
    assert {each.results for each in wide} == {0}
    narrow_axes = AXES | {"d_model": [128, 192, 256]}
    narrow = expectations(
        planned(experiment("best", axes=narrow_axes, trials=40)), num_train_tokens=None
    )
    for one, other in zip(wide, narrow, strict=True):
        by_name = {each.name: each.half_width for each in other.expected}
        for each in one.expected:
            if each.name in ("alpha", "a"):
                assert by_name.get(each.name, math.inf) > 2 * each.half_width
    assert narrow[1].verdict == "no law"
    assert "x the expected best" in narrow[1].uncovered[0]


def test_results_replace_the_prior() -> None:
    records = list(play(experiment("law"), bowl))
    told = expectations(records, num_train_tokens=None)
    for law in told:
        assert law.results == law.runs
        assert law.noise != pytest.approx(NOISE)
