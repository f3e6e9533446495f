"""Tuning before comparing, checks of the transfer, and replicates of leaders."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from search.asked.settings import LimitSettings
from search.belief.rate_standing import rate_standings
from search.belief.rates import RATE
from search.limits.caps import caps_in_words, committed_flops
from search.propose.contract import Capped, first_of
from search.propose.proposer import SweepProposer
from search.propose.rate_trials import leader, neighbours
from search.propose.tuned_arms import arm_tunings, tuning_of
from search.propose.tuning import choose_start, choose_value
from search.record.ledger import TrialRecord
from search.record.trial import OutcomeStatus, Proposal
from tests.search.records import bowl, play, queued
from tests.sweeps import GROUND, toy_experiment

TUNING = {"learning_rate_multipliers": [0.25, 0.5, 1, 2, 4]}


def lucky(proposal: Proposal) -> float:
    """The bowl with luck of each seed that is larger than what parts its best shapes."""
    config = proposal.config
    luck = random.Random(config.config_hash).gauss(0, 0.3)
    return bowl(proposal) + (luck if config.init_seed else 0)


def _flops(record: TrialRecord) -> float:
    flops = record.proposal.budget.train_flops
    assert flops is not None
    return flops


def tuned_experiment(**changes):
    fields = {"trials": 30, "arms": ["dual", "standard"], "tuning": TUNING}
    return toy_experiment(**(fields | changes))


def test_a_parabola_chooses_through_noise():
    losses = {0.25: 3.30, 0.5: 3.08, 1.0: 2.99, 2.0: 2.985, 4.0: 3.25}
    choice = choose_value(losses, logarithmic=True)
    assert choice is not None
    assert (choice.value, choice.at_edge) == (1.0, False)


def test_values_that_diverged_are_not_chosen_and_edges_are_named():
    choice = choose_value({1.0: 3.0, 2.0: 2.9, 4.0: None}, logarithmic=True)
    assert choice is not None
    assert (choice.value, choice.at_edge) == (2.0, False)
    falling = choose_value({1.0: 3.0, 2.0: 2.9, 4.0: 2.8, 8.0: 2.7}, logarithmic=True)
    assert falling is not None
    assert falling.at_edge
    assert choose_value({1.0: None}, logarithmic=True) is None


def test_a_start_must_beat_the_axis_s_own_by_more_than_a_tie():
    losses = {-7.0: 3.1, -2.0: 2.995, 0.5: 3.0}
    tie = choose_start(losses, own=0.5, noise_nats=0.005)
    assert tie is not None
    assert (tie.value, tie.at_edge) == (0.5, True)
    won = choose_start(losses | {-2.0: 2.97}, own=0.5, noise_nats=0.005)
    assert won is not None
    assert won.value == -2.0


def test_neighbours_lie_an_octave_away():
    proposal = first_of(SweepProposer(toy_experiment(), GROUND).next([]))
    assert proposal is not None
    assert neighbours(proposal) == (0.5, 2.0)


def test_every_arm_is_tuned_before_arms_are_compared():
    records = play(tuned_experiment(), bowl)
    stage = records[: 2 * len(TUNING["learning_rate_multipliers"])]
    assert {record.proposal.purpose for record in stage} == {"tuning"}
    assert {record.proposal.budget.train_flops for record in stage} == {2e9}
    later = [r for r in records[len(stage) :] if r.proposal.purpose in ("baseline", "search")]
    rates = {r.proposal.axes["learning_rate_multiplier"] for r in later}
    assert rates <= {1.68179, 2.0, 2.37841}  # bowl's best is 2


def test_step_scales_are_tuned_at_the_tuned_rate():
    experiment = tuned_experiment(tuning=TUNING | {"step_scale_inits": [-3, 0, 1]})

    def judge(proposal: Proposal) -> float:
        return bowl(proposal) + 0.1 * abs(float(proposal.axes.get("step_scale_init", -3)) + 3)

    records = play(experiment, judge)
    dual = [r for r in records if r.proposal.arm == "dual" and r.proposal.purpose == "search"]
    assert {record.proposal.axes["step_scale_init"] for record in dual} == {-3.0}
    tried = [r for r in records if r.proposal.purpose == "tuning" and r.proposal.arm == "dual"]
    at_best = [r for r in tried if r.proposal.axes["learning_rate_multiplier"] == 2.0]
    assert {r.proposal.axes["step_scale_init"] for r in at_best} >= {-3.0, 0.0, 1.0}
    found = arm_tunings(records)
    assert found["dual"].learning_rate_multiplier == 2.0  # starts do not stand in for the rate
    assert (found["dual"].step_scale_init, found["dual"].step_scale_at_edge) == (-3.0, True)
    assert found["dual"].start_checked
    assert found["dual"].better_start_at_largest is None
    assert found["standard"].step_scale_init == -3.0  # as free as the dual arm beside it


def test_the_search_waits_for_the_tuning_and_the_plan_does_not():
    proposer = SweepProposer(tuned_experiment(), GROUND)
    records = []
    while (proposal := first_of(proposer.next(records))) is not None:
        records.append(queued(proposal, number=len(records)))
    assert len(records) == 10
    foreseen = list(records)
    while (proposal := first_of(proposer.next(foreseen, foresee=True))) is not None:
        foreseen.append(queued(proposal, number=len(foreseen)))
    assert len(foreseen) == 30


def test_a_resumed_tuned_sweep_goes_on_identically_and_sets_nothing_aside():
    experiment = tuned_experiment()
    whole = play(experiment, bowl)
    for count in (3, 9, 12, 27):
        fresh = SweepProposer(experiment, GROUND)
        assert all(fresh.why_set_aside(record) is None for record in whole[:count])
        again = first_of(fresh.next(whole[:count]))
        assert again is not None
        assert again.config_hash == whole[count].config_hash


def test_the_largest_budget_checks_the_neighbours_of_the_tuned_rate():
    def shifted(proposal: Proposal) -> float:
        flops = proposal.budget.train_flops
        best = 2.0 if flops == 2e9 else 0.5
        rate = float(proposal.axes["learning_rate_multiplier"])
        return bowl(proposal) + math.log(rate / best) ** 2

    def wavering(proposal: Proposal) -> float:
        """At the largest budget half the rate is better, by less than seeds differ."""
        flops, rate = proposal.budget.train_flops, proposal.axes["learning_rate_multiplier"]
        return lucky(proposal) - (0.1 if flops == 4e9 and rate == 1.0 else 0)

    records = play(tuned_experiment(), bowl)
    for arm in ("dual", "standard"):
        there = [r for r in records if r.proposal.arm == arm and _flops(r) == 4e9]
        leading = leader([r for r in there if r.proposal.purpose != "tuning"])
        assert leading is not None
        checked = {r.proposal.axes[RATE] for r in there if r.proposal.purpose == "tuning"}
        assert checked >= set(neighbours(leading.proposal))
    assert {t.better_at_largest for t in arm_tunings(records).values()} == {None}
    noisy = play(tuned_experiment(trials=34, search={"replicates_per_budget": 2}), wavering)
    assert {t.better_at_largest for t in arm_tunings(noisy).values()} == {None}
    moved = rate_standings(play(tuned_experiment(trials=40), shifted))
    best = {standing.best_multiplier for standing in moved if standing.train_flops == 4e9}
    assert all(0.4 < multiplier < 0.8 for multiplier in best)  # the two parabolas' is 0.57


def test_best_knows_tuned_transferred_and_neither():
    records = play(tuned_experiment(), bowl)
    tunings = arm_tunings(records)
    found = {(r.proposal.budget.train_flops, tuning_of(r, tunings)) for r in records}
    assert found == {(2e9, "tuned"), (4e9, "transferred")}
    plain = play(toy_experiment(trials=4), bowl)
    assert {tuning_of(r, arm_tunings(plain)) for r in plain} == {"neither"}


def test_replicates_repeat_leaders_with_other_seeds_paired_by_data_order():
    experiment = toy_experiment(
        trials=30, arms=["dual"], search={"replicates_per_budget": 4, "leaders": 2}
    )
    records = play(experiment, lucky)
    repeats = [r for r in records if r.proposal.purpose == "replicate"]
    assert len(repeats) == 8
    assert all(r.proposal.purpose == "replicate" for r in records[-4:])
    first = [next(r for r in repeats if _flops(r) == budget).number for budget in (2e9, 4e9)]
    assert first == [2, 3]  # noise first: right after the baselines
    for budget in (2e9, 4e9):
        there = [r for r in records if r.proposal.budget.train_flops == budget]
        repeats = [r for r in there if r.proposal.purpose == "replicate"][2:]
        originals = sorted(bowl(r.proposal) for r in there if r.proposal.purpose != "replicate")
        assert {bowl(r.proposal) for r in repeats} <= set(originals[:4])
        seeds = [(r.proposal.config.init_seed, r.proposal.config.data_seed) for r in repeats]
        assert set(seeds) <= {(1, 1), (2, 2), (3, 3)}
    assert len({r.config_hash for r in records}) == len(records)
    assert all(SweepProposer(experiment, GROUND).why_set_aside(r) is None for r in records)


def test_replicates_are_not_spent_on_what_the_noise_tells_from_the_first():
    experiment = toy_experiment(
        trials=30, arms=["dual"], search={"replicates_per_budget": 4, "leaders": 2}
    )
    repeats = [r for r in play(experiment, bowl) if r.proposal.purpose == "replicate"]
    for budget in (2e9, 4e9):  # without luck one repeat is enough to know the first
        later = [r for r in repeats if _flops(r) == budget][2:]
        assert len({bowl(r.proposal) for r in later}) == 1


def test_what_failed_is_neither_repeated_nor_checked():
    def at_largest(proposal: Proposal) -> float | OutcomeStatus:
        return "out_of_memory" if proposal.budget.train_flops == 4e9 else bowl(proposal)

    search = {"replicates_per_budget": 2}
    records = play(tuned_experiment(search=search, arms=["standard"]), at_largest)
    last = [r for r in records if r.proposal.purpose in ("replicate", "tuning")]
    assert {_flops(r) for r in last} == {2e9}


def test_tuning_takes_no_turns_from_the_search():
    records = play(tuned_experiment(), bowl)
    searched = [r for r in records if r.proposal.purpose in ("baseline", "search")]
    turns = Counter(_flops(r) for r in searched if r.proposal.arm == "dual")
    assert max(turns.values()) - min(turns.values()) <= 1


def test_the_flops_cap_stops_before_the_first_trial_that_exceeds_it():
    experiment = toy_experiment(trials=20, limits={"max_flops": 2.1e10})
    records = play(experiment, bowl)
    free = play(toy_experiment(trials=20), bowl)
    assert [r.config_hash for r in records] == [r.config_hash for r in free[: len(records)]]
    spent = committed_flops(records)
    assert spent <= 2.1e10 < spent + free[len(records)].proposal.train_flops
    proposer = SweepProposer(experiment, GROUND)
    answer = proposer.next(records)
    assert isinstance(answer, Capped)
    assert "limits.max_flops" in answer.why


def test_a_queue_counts_against_the_cap():
    proposer = SweepProposer(toy_experiment(trials=20, limits={"max_flops": 2.1e10}), GROUND)
    records = []
    while (proposal := first_of(proposer.next(records))) is not None:
        records.append(queued(proposal, number=len(records)))
    assert sum(r.proposal.train_flops for r in records) <= 2.1e10


def test_replicates_may_not_fill_the_sweep():
    with pytest.raises(ValueError, match="replicates"):
        toy_experiment(trials=6, search={"replicates_per_budget": 3})


def test_caps_say_what_they_no_longer_pay_for():
    records = play(toy_experiment(trials=20, limits={"max_flops": 2.1e10}), bowl)
    budgets = (2e9, 4e9)
    limits = LimitSettings(max_flops=2.1e10, max_hours=1)
    flops, hours = caps_in_words(limits, records, budgets, now=2000.0)
    assert "pays for no further trial of" in flops
    assert "of limits.max_hours = 1 worker-hours" in hours
    (plenty,) = caps_in_words(LimitSettings(max_flops=1e12), records, budgets, now=2000.0)
    assert "no further" not in plenty
    assert caps_in_words(LimitSettings(), records, budgets, now=2000.0) == []
