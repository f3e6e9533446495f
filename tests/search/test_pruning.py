"""Early stopping: only in the stable phase, only of what the search proposed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from search.propose.pruning import why_prune
from search.record.ledger import TrialRecord
from search.record.trial import CurvePoint, Proposal
from tests.search.records import bowl, play, queued, record_of
from tests.sweeps import toy_experiment

TRAINING = {
    "schedule": "wsd",
    "decay_fraction": 0.2,
    "batch_tokens": 256,
    "batch_reference_flops": 2e9,
    "eval_sequences": 8,
}


def experiment_with(rule: str, **changes):
    return toy_experiment(
        trials=12,
        arms=["dual"],
        budget={"train_flops": [2e9]},
        training=TRAINING,
        pruning={"rule": rule, "first_fraction": 0.25, "startup_trials": 3} | changes,
    )


def curve_of(proposal: Proposal, losses: dict[float, float]) -> tuple[CurvePoint, ...]:
    total = proposal.config.tokens
    return tuple(
        CurvePoint(step=index, tokens=round(share * total), train_flops=0, val_loss_nats=loss)
        for index, (share, loss) in enumerate(losses.items(), start=1)
    )


def finished(proposals: list[Proposal], at_half: list[float]) -> list[TrialRecord]:
    return [
        record_of(p, loss - 1, curve=curve_of(p, {0.25: loss + 1, 0.5: loss, 0.75: loss - 0.5}))
        for p, loss in zip(proposals, at_half, strict=True)
    ]


def running(proposal: Proposal, losses: dict[float, float]) -> TrialRecord:
    record = record_of(proposal, 3.0, curve=curve_of(proposal, losses))
    attempt = replace(record.attempts[0], state="running", curve=record.curve)
    return replace(queued(proposal), state="running", attempts=(attempt,))


@pytest.fixture(scope="module")
def proposals() -> list[Proposal]:
    records = play(experiment_with("none"), bowl)
    return [replace(record.proposal, purpose="search") for record in records]


def test_the_median_rule_stops_what_is_worse_than_the_median(proposals):
    experiment = experiment_with("median")
    others = finished(proposals[:4], [3.0, 3.1, 3.2, 3.3])
    worse = running(proposals[5], {0.25: 9.0, 0.5: 3.2})
    better = running(proposals[5], {0.25: 9.0, 0.5: 3.1})
    assert "above the median 3.1500" in str(why_prune(experiment, worse, others))
    assert why_prune(experiment, better, others) is None
    assert why_prune(experiment_with("none"), worse, others) is None


def test_nothing_is_stopped_before_enough_trials_or_outside_the_stable_phase(proposals):
    experiment = experiment_with("median")
    others = finished(proposals[:4], [3.0, 3.1, 3.2, 3.3])
    assert why_prune(experiment, running(proposals[5], {0.5: 9.0}), others[:2]) is None
    assert why_prune(experiment, running(proposals[5], {0.1: 9.0}), others) is None
    assert why_prune(experiment, running(proposals[5], {0.9: 9.0}), others) is None
    baseline = running(replace(proposals[5], purpose="baseline"), {0.5: 9.0})
    assert why_prune(experiment, baseline, others) is None


def test_halving_keeps_the_best_share_at_a_rung_and_judges_once(proposals):
    experiment = experiment_with("halving", reduction=2)
    others = finished(proposals[:5], [3.0, 3.1, 3.2, 3.3, 3.4])
    at_rung = running(proposals[6], {0.5: 3.25})
    assert "number 4 of 6 at this rung, and 3 go on" in str(why_prune(experiment, at_rung, others))
    assert why_prune(experiment, running(proposals[6], {0.5: 3.15}), others) is None
    passed = running(proposals[6], {0.5: 3.25, 0.6: 9.0})
    assert why_prune(experiment, passed, others) is None


def test_losses_are_compared_at_the_same_share_of_the_tokens(proposals):
    experiment = experiment_with("median")
    others = finished(proposals[:4], [3.0, 3.0, 3.0, 3.0])
    between = running(proposals[5], {0.375: 3.4})  # the others stand at 3.5 there
    assert why_prune(experiment, between, others) is None
    assert why_prune(experiment, running(proposals[5], {0.375: 3.6}), others) is not None


def test_pruning_needs_a_schedule_whose_losses_compare():
    with pytest.raises(ValueError, match="stable phase"):
        toy_experiment(pruning={"rule": "median"})
