"""Records of trials that never ran, for tests of what the search makes of results."""

from __future__ import annotations

import math
from collections.abc import Callable

from search.asked.experiment import Experiment
from search.propose.contract import first_of
from search.propose.proposer import SweepProposer
from search.record.ledger import Attempt, TrialRecord
from search.record.trial import CurvePoint, Outcome, OutcomeStatus, Proposal
from tests.sweeps import GROUND

Judge = Callable[[Proposal], float | OutcomeStatus]
"""A loss, or how the trial failed."""


def record_of(
    proposal: Proposal,
    answer: float | OutcomeStatus,
    *,
    number: int = 0,
    spent: float | None = None,
    curve: tuple[CurvePoint, ...] = (),
) -> TrialRecord:
    """A trial that ended with a loss or with a failure."""
    complete = not isinstance(answer, str)
    outcome = Outcome(
        status="complete" if complete else answer,
        loss_nats=float(answer) if complete else None,
        bits_per_byte=float(answer) / math.log(2) if complete else None,
        epochs=0.5 if complete else None,
        steps=proposal.config.num_steps if complete else 1,
        tokens=proposal.config.tokens,
        curve=curve,
    )
    attempt = attempt_of(outcome.status, spent=proposal.train_flops if spent is None else spent)
    return TrialRecord(
        number=number,
        proposal=proposal,
        state=outcome.status,  # type: ignore[arg-type]
        set_aside=None,
        attempts=(attempt,),
        outcome=outcome,
        accepted_at=1.0,
        mlflow_run_id=None,
    )


def attempt_of(state: str, *, spent: float, number: int = 1, seconds: float = 60.0) -> Attempt:
    """An attempt that took a minute."""
    return Attempt(
        id=number,
        number=number,
        state=state,  # type: ignore[arg-type]
        reason=None,
        started_at=1000.0,
        ended_at=None if state == "running" else 1000.0 + seconds,
        node="n",
        pid=1,
        step=1,
        spent_flops=spent,
        curve=(),
    )


def queued(proposal: Proposal, *, number: int = 0) -> TrialRecord:
    """A trial that waits."""
    return TrialRecord(
        number=number,
        proposal=proposal,
        state="queued",
        set_aside=None,
        attempts=(),
        outcome=None,
        accepted_at=None,
        mlflow_run_id=None,
    )


def play(experiment: Experiment, judge: Judge, *, limit: int = 1000) -> list[TrialRecord]:
    """A whole sweep, one trial after the other, every outcome by ``judge``."""
    proposer = SweepProposer(experiment, GROUND)
    records: list[TrialRecord] = []
    while len(records) < limit and (proposal := first_of(proposer.next(records))) is not None:
        records.append(record_of(proposal, judge(proposal), number=len(records)))
    return records


def bowl(proposal: Proposal) -> float:
    """A loss with one minimum in the logs of width, depth and learning rate."""
    config = proposal.config
    a = config.architecture
    return (
        2.0
        + 0.2 * math.log(a.d_model / 32) ** 2
        + 0.1 * math.log(a.effective_depth / 2) ** 2
        + 0.1 * math.log(float(proposal.axes["learning_rate_multiplier"]) / 2) ** 2
        + 300 * config.tokens**-0.5
    )
