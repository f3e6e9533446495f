"""What does the ledger know of a sweep, a trial and an attempt?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from search.record.evaluations import Evaluation
from search.record.trial import CurvePoint, Outcome, Proposal, TrialState

AttemptState = Literal[
    "running", "complete", "preempted", "lost", "diverged", "out_of_memory", "failed", "pruned"
]


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at a trial."""

    id: int
    """Fencing token."""
    number: int
    """1 for the first."""
    state: AttemptState
    """How it stands or ended."""
    reason: str | None
    """Why, where it did not complete."""
    started_at: float
    """Unix seconds."""
    ended_at: float | None
    """Unix seconds."""
    node: str | None
    """Host of the worker."""
    pid: int | None
    """Process of the worker."""
    step: int
    """Optimizer steps of the trial done so far."""
    spent_flops: float
    """Training FLOPs that this attempt itself spent, in the sweep's convention."""
    curve: tuple[CurvePoint, ...]
    """The curve so far."""
    sweep: str = ""
    """The sweep that made it, and pays for it."""


@dataclass(frozen=True)
class Throughput:
    """How fast a trial trained."""

    device: str
    """Product's name."""
    tokens_per_second: float
    """Training tokens."""
    parameters: int
    """Of the whole model."""
    forward_flops_per_token: int
    """In the ``full`` convention."""


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """A trial of a sweep with all that is known of it."""

    number: int
    """Order of proposal in its sweep, from 0."""
    proposal: Proposal
    """What was asked for, and why."""
    state: TrialState
    """Where it stands."""
    set_aside: str | None
    """Why the trial does not belong to the experiment as it is written now; None if it does."""
    attempts: tuple[Attempt, ...]
    """Attempts of this identity in this home, first to last."""
    outcome: Outcome | None
    """The accepted outcome."""
    accepted_at: float | None
    """Unix seconds."""
    mlflow_run_id: str | None = None
    """Its run in MLflow, once projected."""
    created_at: float | None = None
    """When it was proposed, Unix seconds; None for a trial that is only planned."""
    sweep: str = ""
    """The sweep whose trial it is; empty for a trial that is only planned."""
    evaluations: tuple[Evaluation, ...] = ()
    """What its model scored on tasks, by name."""

    @property
    def own_attempts(self) -> tuple[Attempt, ...]:
        """Those that this sweep made and pays for, not another sweep of the home."""
        return tuple(attempt for attempt in self.attempts if attempt.sweep == self.sweep)

    @property
    def is_own_outcome(self) -> bool:
        """Whether the outcome is there, and of this sweep's own attempt."""
        return self.outcome is not None and self.attempts[-1:] == self.own_attempts[-1:] != ()

    @property
    def config_hash(self) -> str:
        """Identity of the trial."""
        return self.proposal.config_hash

    @property
    def reason(self) -> str | None:
        """Why it ended, or was last interrupted, as it did; None where there is nothing to say."""
        if self.outcome is not None:
            return self.outcome.reason
        return self.attempts[-1].reason if self.attempts else None

    @property
    def is_result(self) -> bool:
        """Whether it counts: complete or reused, and part of the experiment as it is now."""
        return self.state in ("complete", "reused") and self.set_aside is None

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """The accepted curve, or that of the newest attempt."""
        if self.outcome is not None:
            return self.outcome.curve
        return self.attempts[-1].curve if self.attempts else ()


@dataclass(frozen=True, kw_only=True)
class SweepRecord:
    """A sweep as the ledger knows it."""

    name: str
    experiment_json: str
    text_fingerprint: str
    code_version: str
    created_at: float
    updated_at: float
    tracking_uri: str | None
    """Where it is in MLflow; None: in the home's own database."""
    mlflow_experiment_id: str | None
    mlflow_run_id: str | None

    @property
    def commit(self) -> str:
        """Commit of the code that last ran the sweep; empty where it ran outside a checkout."""
        return self.code_version.partition(" ")[2]


@dataclass(frozen=True, kw_only=True)
class StaleOutcome:
    """An outcome that came too late to count."""

    config_hash: str
    """Trial it is of."""
    attempt_number: int
    """Attempt that sent it, after it had been given up."""
    outcome: Outcome
    """What it said."""
    conflict: bool
    """Whether it contradicts the accepted outcome."""


def is_pending(record: TrialRecord) -> bool:
    """Whether a trial of the experiment has no end yet."""
    return record.state in ("queued", "running", "preempted") and record.set_aside is None


def loss_of(record: TrialRecord) -> float:
    """The validation loss of a result."""
    assert record.outcome is not None
    assert record.outcome.loss_nats is not None
    return record.outcome.loss_nats


def planned_record(proposal: Proposal, *, number: int, known: Outcome | None = None) -> TrialRecord:
    """The record that a sweep would begin with, given what its home knows of the identity."""
    state: TrialState = "queued"
    if known is not None:
        state = "reused" if known.status == "complete" else cast(TrialState, known.status)
    return TrialRecord(
        number=number,
        proposal=proposal,
        state=state,
        set_aside=None,
        attempts=(),
        outcome=known,
        accepted_at=None,
        mlflow_run_id=None,
    )
