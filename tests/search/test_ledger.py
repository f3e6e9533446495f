"""The ledger: attempts are numbered and fenced, an identity's outcome is accepted once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from search.limits.caps import committed_flops
from search.record.ledger import Ledger
from search.record.spending import spending, worker_seconds
from search.record.trial import CurvePoint, Outcome, OutcomeStatus, Proposal
from spaces.errors import RequestError
from tests.sweeps import complete_outcome, open_ledger, toy_experiment, toy_proposals


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return open_ledger(tmp_path / "home", toy_experiment())


@pytest.fixture
def proposal(tmp_path: Path) -> Proposal:
    return toy_proposals(tmp_path, 1)[0]


def test_a_trial_comes_back_as_it_went_in(ledger: Ledger, proposal: Proposal) -> None:
    assert ledger.add_trial("toy", proposal) == "queued"
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    outcome = complete_outcome(proposal)
    assert ledger.accept(attempt.id, outcome, spent_flops=5.0) == "accepted"
    (record,) = ledger.trials("toy")
    assert record.proposal == proposal
    assert record.outcome == outcome
    assert record.state == "complete"
    assert record.is_result
    assert [(each.number, each.state, each.spent_flops) for each in record.attempts] == [
        (1, "complete", 5.0)
    ]


def test_a_fenced_attempt_is_heard_no_more(ledger: Ledger, proposal: Proposal) -> None:
    ledger.add_trial("toy", proposal)
    first = ledger.start_attempt("toy", proposal.config_hash)
    ledger.fence(first.id, reason="the worker died", state="lost")
    second = ledger.start_attempt("toy", proposal.config_hash)
    assert second.number == 2
    assert not ledger.record_progress(
        first.id, step=3, spent_flops=1.0, curve=(), node="here", pid=1
    )
    outcome = complete_outcome(proposal)
    assert ledger.accept(first.id, outcome, spent_flops=1.0) == "stale"
    (record,) = ledger.trials("toy")
    assert record.outcome is None
    assert ledger.accept(second.id, outcome, spent_flops=1.0) == "accepted"


def test_a_result_is_accepted_once(ledger: Ledger, proposal: Proposal) -> None:
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    outcome = complete_outcome(proposal)
    assert ledger.accept(attempt.id, outcome, spent_flops=1.0) == "accepted"
    assert ledger.accept(attempt.id, outcome, spent_flops=1.0) == "repeated"
    other = replace(outcome, loss_nats=1.0)
    assert ledger.accept(attempt.id, other, spent_flops=1.0) == "conflict"
    (record,) = ledger.trials("toy")
    assert record.outcome == outcome


def test_a_late_stop_contradicts_no_result(ledger: Ledger, proposal: Proposal) -> None:
    ledger.add_trial("toy", proposal)
    first = ledger.start_attempt("toy", proposal.config_hash)
    ledger.fence(first.id, reason="its worker said nothing", state="lost")
    second = ledger.start_attempt("toy", proposal.config_hash)
    ledger.accept(second.id, complete_outcome(proposal), spent_flops=1.0)
    stopped = Outcome(status="preempted", reason="asked to stop at step 3", steps=3, tokens=96)
    assert ledger.accept(first.id, stopped, spent_flops=1.0) == "stale"
    assert [late.conflict for late in ledger.stale_outcomes()] == [False]


def test_progress_is_kept_with_its_worker(ledger: Ledger, proposal: Proposal) -> None:
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    curve = (CurvePoint(step=2, tokens=64, train_flops=7, val_loss_nats=4.5),)
    assert ledger.record_progress(
        attempt.id, step=2, spent_flops=7.0, curve=curve, node="here", pid=11
    )
    (record,) = ledger.trials("toy")
    assert record.state == "running"
    assert record.curve == curve
    assert (record.attempts[0].step, record.attempts[0].pid) == (2, 11)


@pytest.mark.parametrize("status", ["preempted", "lost"])
def test_an_interrupted_trial_waits_for_its_next_attempt(
    ledger: Ledger, proposal: Proposal, status: str
) -> None:
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    ledger.accept(attempt.id, Outcome(status=status), spent_flops=1.0)  # type: ignore[arg-type]
    (record,) = ledger.trials("toy")
    assert record.state == "preempted"
    assert record.outcome is None


def test_another_sweep_of_the_home_reuses_the_result(ledger: Ledger, proposal: Proposal) -> None:
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    outcome = complete_outcome(proposal)
    ledger.accept(attempt.id, outcome, spent_flops=1.0)
    ledger.record_sweep("other", experiment_json="{}", text_fingerprint="x", code_version="t")
    assert ledger.add_trial("other", proposal) == "reused"
    (record,) = ledger.trials("other")
    assert record.is_result
    assert record.outcome == outcome


def test_a_trial_that_waits_in_another_sweep_has_the_result_there_too(
    ledger: Ledger, proposal: Proposal
) -> None:
    ledger.add_trial("toy", proposal)
    stopped = ledger.start_attempt("toy", proposal.config_hash)
    ledger.fence(stopped.id, reason="asked to stop", state="preempted")
    ledger.record_sweep("other", experiment_json="{}", text_fingerprint="x", code_version="t")
    assert ledger.add_trial("other", proposal) == "queued"
    attempt = ledger.start_attempt("other", proposal.config_hash)
    ledger.accept(attempt.id, complete_outcome(proposal), spent_flops=1.0)
    assert [ledger.trials(name)[0].state for name in ("toy", "other")] == ["reused", "complete"]


def test_a_failed_trial_gets_another_try_and_what_it_cost_is_kept(
    ledger: Ledger, proposal: Proposal
) -> None:
    ledger.add_trial("toy", proposal)
    ledger.record_sweep("other", experiment_json="{}", text_fingerprint="x", code_version="t")
    first = ledger.start_attempt("toy", proposal.config_hash)
    failure = Outcome(status="failed", reason="no such operator", steps=1)
    ledger.accept(first.id, failure, spent_flops=3.0)
    assert ledger.add_trial("other", proposal) == "failed"
    assert ledger.reopen("toy", "failed") == 1
    assert ledger.reopen("toy", "failed") == 0
    waiting = [ledger.trials(name)[0] for name in ("toy", "other")]
    assert [(each.state, each.outcome) for each in waiting] == [("preempted", None)] * 2
    assert waiting[0].reason == "no such operator"
    second = ledger.start_attempt("toy", proposal.config_hash)
    ledger.accept(second.id, complete_outcome(proposal), spent_flops=5.0)
    (record,) = ledger.trials("toy")
    assert [each.state for each in record.attempts] == ["failed", "complete"]
    parts = spending([record])
    assert (parts["failed"], sum(parts.values())) == (3.0, 8.0)
    assert ledger.trials("other")[0].state == "reused"


@pytest.mark.parametrize("status", ["diverged", "out_of_memory"])
def test_what_the_trial_itself_did_is_not_tried_again(
    ledger: Ledger, proposal: Proposal, status: OutcomeStatus
) -> None:
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    ledger.accept(attempt.id, Outcome(status=status, reason="it did"), spent_flops=1.0)
    assert ledger.reopen("toy", "failed") == 0


def test_trials_set_aside_are_no_results(ledger: Ledger, proposal: Proposal) -> None:
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", proposal.config_hash)
    ledger.accept(attempt.id, complete_outcome(proposal), spent_flops=1.0)
    ledger.set_aside("toy", {proposal.config_hash: "the text changed"})
    assert not ledger.trials("toy")[0].is_result
    ledger.set_aside("toy", {proposal.config_hash: None})
    assert ledger.trials("toy")[0].is_result


def test_an_empty_home_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="isoflop sweep"):
        Ledger(tmp_path)


def test_an_unknown_sweep_names_the_known_ones(ledger: Ledger) -> None:
    with pytest.raises(RequestError, match="it holds: toy"):
        ledger.sweep("elsewhere")


def test_each_sweep_pays_for_its_own_attempts(ledger: Ledger, proposal: Proposal) -> None:
    ledger.add_trial("toy", proposal)
    stopped = ledger.start_attempt("toy", proposal.config_hash)
    ledger.record_progress(stopped.id, step=1, spent_flops=2.0, curve=(), node="n", pid=1)
    ledger.fence(stopped.id, reason="asked to stop", state="preempted")
    ledger.record_sweep("other", experiment_json="{}", text_fingerprint="x", code_version="t")
    ledger.add_trial("other", proposal)
    attempt = ledger.start_attempt("other", proposal.config_hash)
    outcome = replace(Outcome(status="diverged", reason="rose"), setup_seconds=1.0)
    ledger.accept(attempt.id, outcome, spent_flops=5.0)
    for name, spent in (("toy", 2.0), ("other", 5.0)):
        records = ledger.trials(name)
        assert records[0].state == "diverged"
        assert len(records[0].attempts) == 2
        assert committed_flops(records) == sum(spending(records).values()) == spent
        assert worker_seconds(records)["setup"] == (1.0 if name == "other" else 0.0)


def test_what_was_pruned_is_trained_whole_where_nothing_is_pruned(
    ledger: Ledger, proposal: Proposal
) -> None:
    ledger.add_trial("toy", proposal)
    first = ledger.start_attempt("toy", proposal.config_hash)
    ledger.accept(first.id, Outcome(status="pruned", reason="behind"), spent_flops=3.0)
    ledger.record_sweep("other", experiment_json="{}", text_fingerprint="x", code_version="t")
    assert ledger.add_trial("other", proposal, takes_pruned=False) == "queued"
    second = ledger.start_attempt("other", proposal.config_hash)
    ledger.accept(second.id, complete_outcome(proposal), spent_flops=5.0)
    (mine,), (theirs,) = ledger.trials("toy"), ledger.trials("other")
    assert (mine.state, theirs.state) == ("reused", "complete")
    assert spending([mine])["pruned"] == 3.0
    assert spending([theirs])["search"] == 5.0


def test_a_trial_set_aside_and_asked_for_again_counts_again(
    ledger: Ledger, proposal: Proposal
) -> None:
    ledger.add_trial("toy", proposal)
    ledger.set_aside("toy", {proposal.config_hash: "axes.d_model no longer holds 16"})
    assert ledger.add_trial("toy", replace(proposal, purpose="search")) == "queued"
    (record,) = ledger.trials("toy")
    assert (record.set_aside, record.proposal.purpose, record.number) == (None, "search", 0)


def test_a_home_that_no_database_address_can_hold_is_refused(tmp_path: Path) -> None:
    for name in ("a?b", "a%41b"):
        with pytest.raises(RequestError, match="use another --home"):
            Ledger(tmp_path / name, create=True)
    Ledger(tmp_path / "a b#ü", create=True).close()
