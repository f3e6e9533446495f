"""Proposals: pure, on the budget, never twice, baselines first, away from what failed."""

from __future__ import annotations

import contextlib
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from search.asked.experiment import Experiment
from search.asked.settings import SearchSettings
from search.belief.arm_models import recommend
from search.propose.cell_search import CellSearch
from search.propose.cells import Cell, cell_axes, cell_of
from search.propose.contract import first_of
from search.propose.proposer import SweepProposer
from search.record.trial import Proposal
from spaces.errors import InfeasibleError, RequestError
from tests.search.records import bowl, play, queued, record_of
from tests.sweeps import GROUND, toy_experiment

WIDE_AXES = {
    "num_loops": [1, 2, 3],
    "wide_multiplier": [1, 2, 4],
    "num_layers": [1, 2, 3],
    "d_model": [16, 32, 48, 64],
    "learning_rate_multiplier": [0.25, 0.5, 1, 2, 4, 8, 16],
}

RANDOM = SearchSettings(sampler="random")
ALL_SAMPLERS = ["tpe", "gp", "random", "quasi-random", "grid"]


def everywhere(experiment: Experiment, cell: Cell) -> Iterator[Proposal]:
    """Every feasible point of a cell."""
    search, axes = CellSearch(experiment, GROUND), cell_axes(experiment, cell.arm)
    for values in itertools.product(*axes.values()):
        with contextlib.suppress(InfeasibleError):
            point = dict(zip(axes, values, strict=True))
            yield search.resolve(cell, point, purpose="search")


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_every_sampler_stays_on_the_budget_and_never_repeats(sampler):
    experiment = toy_experiment(
        trials=12, arms=["dual"], axes=WIDE_AXES, search={"sampler": sampler, "startup_trials": 4}
    )
    records = play(experiment, bowl)
    assert len(records) == 12
    assert len({record.config_hash for record in records}) == 12
    for record in records:
        proposal = record.proposal
        assert proposal.train_flops == pytest.approx(proposal.budget.train_flops, rel=1e-3)


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
@pytest.mark.parametrize("solve", ["deep_ffn", "wide_ffn", "both_ffn", "d_model"])
def test_every_sampler_searches_every_solve_mode_unchanged(solve, sampler):
    experiment = toy_experiment(
        trials=12,
        arms=["dual", "standard"],
        axes=WIDE_AXES | {"alpha": [0.4, 0.5, 0.6]},
        budget={"train_flops": [4e10], "solve": solve, "forward_flops_per_token": 4e5},
        architecture={"head_dim": 8, "context_length": 32, "ffn_multiple": 1},
        search={"sampler": sampler, "startup_trials": 3},
    )
    records = play(experiment, bowl)
    assert len({record.config_hash for record in records}) == len(records) > 4
    for record in records:
        assert record.proposal.train_flops == pytest.approx(4e10, rel=1e-3)
    free = set(records[0].proposal.axes)
    assert ("d_model" in free) == (solve != "d_model")


@pytest.mark.parametrize("sampler", ALL_SAMPLERS)
def test_the_same_records_give_the_same_proposal_in_another_process(sampler):
    experiment = toy_experiment(
        trials=40, axes=WIDE_AXES, arms=["dual"], search={"sampler": sampler, "startup_trials": 4}
    )
    before = play(experiment.model_copy(update={"search": RANDOM}), bowl, limit=20)
    fresh = first_of(SweepProposer(experiment, GROUND).next(before))
    warm = SweepProposer(experiment, GROUND)
    for count in (0, 12, 19):
        first_of(warm.next(before[:count]))
    assert first_of(warm.next(before)) == fresh


def test_a_cell_starts_with_its_baselines():
    experiment = toy_experiment(trials=24)
    records = play(experiment, bowl)
    seen = set()
    for record in records:
        cell = cell_of(record.proposal)
        if cell not in seen:
            assert record.proposal.purpose == "baseline"
        seen.add(cell)
    assert len(seen) == 10


def test_a_finite_space_ends_the_sweep_instead_of_repeating():
    axes = {"num_loops": [1], "num_layers": [1, 2], "d_model": [16, 32]}
    budget = {"train_flops": [2e10, 4e10]}
    experiment = toy_experiment(
        trials=100,
        arms=["loop"],
        axes=axes,
        budget=budget,
        search={"replicates_per_budget": 0},
    )
    assert len(play(experiment, bowl)) == 8  # four shapes at two budgets


def test_the_search_finds_the_bottom_of_a_bowl():
    experiment = toy_experiment(trials=60, arms=["dual"], axes=WIDE_AXES)
    chance = random.Random(0)

    def judge(proposal: Proposal) -> float:
        return bowl(proposal) + chance.gauss(0, 0.01)

    found = recommend(play(experiment, judge))
    assert len(found) == 2
    for recommended in found.values():
        best = min(map(bowl, everywhere(experiment, cell_of(recommended.proposal))))
        assert bowl(recommended.proposal) - best < 0.03


def test_what_failed_is_never_proposed_again_and_its_neighbours_less():
    experiment = toy_experiment(trials=70, arms=["dual"], axes=WIDE_AXES)

    def judge(proposal: Proposal) -> float | str:
        rate = float(proposal.axes["learning_rate_multiplier"])
        return "diverged" if rate > 3 else bowl(proposal)

    records = play(experiment, judge)  # type: ignore[arg-type]
    assert len({record.config_hash for record in records}) == len(records)
    failed = [record.state == "diverged" for record in records]
    assert sum(failed[32:]) <= 2  # one risk is taken per 25 trials without a failure


def test_running_trials_are_not_proposed_again():
    experiment = toy_experiment(trials=40, arms=["dual"], axes=WIDE_AXES)
    records = play(experiment, bowl, limit=20)
    proposer = SweepProposer(experiment, GROUND)
    for _ in range(4):
        proposal = first_of(proposer.next(records))
        assert proposal is not None
        assert proposal.config_hash not in {record.config_hash for record in records}
        records.append(queued(proposal, number=len(records)))


def test_set_aside_names_the_axis_or_the_change():
    experiment = toy_experiment(trials=4, arms=["dual"])
    record = play(experiment, bowl)[0]
    narrowed = toy_experiment(
        trials=4, arms=["dual"], axes=WIDE_AXES | {"d_model": [48], "learning_rate_multiplier": [1]}
    )
    assert "axes.d_model no longer holds" in str(
        SweepProposer(narrowed, GROUND).why_set_aside(record)
    )
    changed = toy_experiment(
        trials=4,
        arms=["dual"],
        training={"batch_tokens": 256, "batch_reference_flops": 2e9, "weight_decay": 0.5},
    )
    changed = changed.model_copy(
        update={"training": changed.training.model_copy(update={"eval_sequences": 8})}
    )
    assert "training.weight_decay" in str(SweepProposer(changed, GROUND).why_set_aside(record))
    assert SweepProposer(experiment, GROUND).why_set_aside(record) is None
    limited = toy_experiment(trials=4, arms=["dual"], limits={"memory_bytes": 1000})
    assert "no longer fits" in str(SweepProposer(limited, GROUND).why_set_aside(record))


def test_nothing_feasible_is_an_error_that_states_the_law():
    experiment = toy_experiment(limits={"memory_bytes": 1000})
    with pytest.raises(RequestError, match="at most 1e\\+03 bytes"):
        SweepProposer(experiment, GROUND).next([])


def test_a_pruned_trial_counts_as_seen_but_not_as_a_result():
    experiment = toy_experiment(trials=40, arms=["dual"], axes=WIDE_AXES)
    records = play(experiment, bowl, limit=24)
    pruned = record_of(records[20].proposal, "pruned", number=20)
    records[20] = pruned
    proposal = first_of(SweepProposer(experiment, GROUND).next(records))
    assert proposal is not None
    assert proposal.config_hash != pruned.config_hash
    assert math.isfinite(proposal.train_flops)


def test_the_plan_of_what_is_open_costs_no_model(monkeypatch):
    experiment = toy_experiment(trials=60, arms=["dual"], axes=WIDE_AXES)
    records = play(experiment, bowl, limit=20)
    proposer = SweepProposer(experiment, GROUND)
    first = first_of(proposer.next(records, foresee=True))
    assert first == first_of(SweepProposer(experiment, GROUND).next(records))
    assert first is not None
    records.append(queued(first, number=20))
    monkeypatch.setattr("search.propose.samplers.CellStudy._open", None)
    later = first_of(proposer.next(records, foresee=True))
    assert later is not None
    assert proposer.depends_on_results(later, records)


def test_the_search_seed_changes_what_is_proposed():
    one = toy_experiment(trials=12, arms=["dual"], axes=WIDE_AXES)
    other = one.model_copy(update={"seeds": one.seeds.model_copy(update={"search": 1})})
    hashes = [{record.config_hash for record in play(each, bowl)} for each in (one, other)]
    assert hashes[0] != hashes[1]


def test_seeds_of_weights_and_data_are_part_of_the_identity_only():
    one = play(toy_experiment(trials=2, arms=["dual"]), bowl)[0].proposal
    again = replace(one.config, init_seed=7)
    assert again.config_hash != one.config_hash
    assert again.architecture == one.config.architecture


def test_a_baseline_that_another_arm_of_the_family_has_asked_for_is_not_asked_again() -> None:
    axes = {"num_loops": [3], "num_layers": [1, 3], "d_model": [16]}
    experiment = toy_experiment(trials=24, arms=["unrolled", "standard"], axes=axes)
    records = play(experiment, bowl, limit=200)
    assert len({record.config_hash for record in records}) == len(records)
