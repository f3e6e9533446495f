"""Standard and unrolled are one family: a result of one answers a question about the other."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.comparisons import describe_tuning
from search.belief.rates import RATE
from search.belief.seed_noise import by_configuration, configuration_key
from search.propose.cells import Cell, resolve
from search.propose.contract import Done, Proposed, Proposer, Waiting, first_of
from search.propose.listed import ListedProposer
from search.propose.proposer import SweepProposer
from search.propose.tuned_arms import arm_tunings
from search.propose.tuning_stages import edge_checks
from search.record.trial import Proposal, Purpose
from search.record.trial_records import TrialRecord
from spaces.axes import AxisValue
from tests.search.records import queued, record_of
from tests.sweeps import GROUND, toy_experiment

RATES = [0.5, 1, 2]
EXPERIMENT = toy_experiment(
    trials=40,
    arms=["standard", "unrolled"],
    tuning={"learning_rate_multipliers": RATES},
    axes={"num_loops": [2], "num_layers": [1, 2], "d_model": [16, 32], "deep_multiplier": [2.5]},
)
SMALL, LARGE = EXPERIMENT.budget.budgets()


def trial(arm: str, budget: Any, rate: float, purpose: Purpose, *, layers: int = 2) -> Proposal:
    """A model of that many layers of width 16, as an arm asks for it."""
    shape: dict[str, Any] = {"num_layers": layers}
    if arm == "unrolled":
        shape = {"num_loops": 2, "num_layers": layers // 2}
    axes = {**shape, "deep_multiplier": 2.5, "d_model": 16, "learning_rate_multiplier": rate}
    return resolve(EXPERIMENT, GROUND, Cell(arm=arm, budget=budget), axes, purpose=purpose)


def tuned_records() -> list[TrialRecord]:
    """Standard tuned to the rule's rate; its leader at the largest budget; unrolled at twice it."""
    asked = [
        (trial("standard", SMALL, 0.5, "tuning"), 3.30),
        (trial("standard", SMALL, 1, "tuning"), 3.00),
        (trial("standard", SMALL, 2, "tuning"), 3.10),
        (trial("standard", LARGE, 1, "baseline"), 2.944),
        (trial("standard", LARGE, 0.5, "tuning"), 2.990),
        (trial("unrolled", LARGE, 2, "search"), 2.921),
    ]
    return [record_of(proposal, loss, number=i) for i, (proposal, loss) in enumerate(asked)]


def test_the_same_model_is_one_configuration_whoever_asks_for_it() -> None:
    one = trial("standard", LARGE, 1, "search")
    other = trial("unrolled", LARGE, 1, "search")
    assert one.config_hash == other.config_hash
    assert configuration_key(one) == configuration_key(other)
    records = [record_of(one, 3.0), record_of(trial("unrolled", LARGE, 2, "search"), 2.9)]
    assert len(by_configuration(records)) == 2


def test_a_rate_that_the_other_arm_tried_is_a_check_that_was_done() -> None:
    tuning = arm_tunings(tuned_records())["standard"]
    assert tuning.better_at_largest == 2
    assert tuning.checked_sides == ("lower", "higher")
    assert "but 2 x the rule did better at the largest" in describe_tuning(tuning)


def test_a_check_that_did_not_run_is_not_called_no_better() -> None:
    without = [r for r in tuned_records() if r.proposal.arm == "standard"]
    tuning = arm_tunings(without)["standard"]
    assert tuning.checked_sides == ("lower",)
    assert "a lower rate did no better, a higher one was not tried" in describe_tuning(tuning)
    alone = [r for r in without if r.proposal.axes["learning_rate_multiplier"] == 1]
    assert "not checked at the largest budget" in describe_tuning(
        arm_tunings([*alone, *without[:3]])["standard"]
    )


def test_what_the_other_arm_tried_is_no_longer_owed() -> None:
    records = tuned_records()

    def at(leader: TrialRecord, point: dict[str, AxisValue]) -> Proposal:
        layers = leader.proposal.config.architecture.num_layers
        return trial("standard", LARGE, float(point[RATE]), "tuning", layers=layers)

    largest = LARGE.train_flops
    assert largest is not None
    assert edge_checks(at, ["standard"], records, largest=largest) == []
    owed = edge_checks(at, ["standard"], records[:4], largest=largest)
    assert [each.axes["learning_rate_multiplier"] for each in owed] == [0.5, 2.0]


@pytest.mark.parametrize("kind", ["sweep", "listed"])
def test_every_proposer_keeps_the_contract(kind: str) -> None:
    """Proposes what is new, the same again for the same records, and comes to an end."""
    listed = [trial("standard", SMALL, rate, "search") for rate in RATES]
    proposer: Proposer = (
        ListedProposer(listed)
        if kind == "listed"
        else SweepProposer(toy_experiment(trials=6), GROUND)
    )
    records: list[TrialRecord] = []
    while isinstance(answer := proposer.next(records), Proposed):
        assert first_of(proposer.next(records)) == answer.proposals[0]
        for proposal in answer.proposals:
            assert proposal.config_hash not in {record.config_hash for record in records}
            records.append(queued(proposal, number=len(records)))
            assert proposer.why_set_aside(records[-1]) is None
    assert isinstance(answer, Waiting | Done)
    ended = [record_of(r.proposal, 3.0, number=r.number) for r in records]
    assert isinstance(proposer.next(ended), Done)
    assert proposer.why_stop(ended, now=0.0) is None
    assert not any(proposer.may_prune(record.proposal) for record in ended)


def test_a_search_without_further_configurations_says_so() -> None:
    narrow = toy_experiment(
        trials=30,
        arms=["standard"],
        axes={"num_layers": [1], "d_model": [16], "deep_multiplier": [2.5]},
    )
    proposer, records = SweepProposer(narrow, GROUND), list[TrialRecord]()
    while isinstance(answer := proposer.next(records), Proposed):
        (proposal,) = answer.proposals
        records.append(record_of(proposal, 3.0, number=len(records)))
    assert isinstance(answer, Done)
    assert answer.why is not None
    assert f"{len(records)} of 30 trials: no further configuration" in answer.why
