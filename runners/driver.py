"""How does a sweep run? Propose, hand out, listen, write down, until all that is asked for is done.

The driver is the only writer of the ledger. It owns no state that the ledger does not have, so the
same command started again goes on where the last one stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from runners.pool import Assignment, Pool, Report, WorkerLost
from search.ledger import Attempt, Ledger, TrialRecord
from search.proposer import Proposer
from search.trial import Outcome, Progress, Proposal

POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class SweepEvent:
    """One thing that happened, for whoever watches."""

    record: TrialRecord
    """The trial it happened to, as the ledger has it now."""
    kind: str
    """started, progress, finished, lost or reused."""
    steps: int
    """Optimizer steps of the whole trial."""
    note: str = ""
    """What a person should know of it."""


@dataclass(kw_only=True)
class SweepSummary:
    """What one run of the command did."""

    num_run: int = 0
    """Trials brought to an end."""
    num_reused: int = 0
    """Trials whose result this home had already."""
    num_lost: int = 0
    """Attempts that died with their worker."""
    interrupted: bool = False
    """Whether it was asked to stop."""
    notes: list[str] = field(default_factory=list)
    """What a person should know."""


@dataclass(frozen=True)
class _Running:
    proposal: Proposal
    attempt: Attempt


class Driver:
    """Runs one sweep over one pool."""

    def __init__(
        self,
        *,
        sweep: str,
        ledger: Ledger,
        proposer: Proposer,
        pool: Pool,
        folder: Path,
        watch: Callable[[SweepEvent], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """``folder`` holds what attempts leave on disk: checkpoints, and weights if kept."""
        self._sweep = sweep
        self._ledger = ledger
        self._proposer = proposer
        self._pool = pool
        self._folder = folder
        self._watch = watch
        self._should_stop = should_stop
        self._running: dict[int, _Running] = {}
        self._records: dict[str, TrialRecord] = {}
        self._summary = SweepSummary()

    def run(self) -> SweepSummary:
        """Run until nothing is left to do, or until asked to stop; returns what was done."""
        self._refresh()
        while True:
            if self._should_stop() and not self._summary.interrupted:
                self._summary.interrupted = True
                for attempt_id in self._running:
                    self._pool.stop(attempt_id, "preempted")
            if not self._summary.interrupted:
                self._hand_out()
            if not self._running:
                return self._summary
            for report in self._pool.reports(timeout_seconds=POLL_SECONDS):
                self._hear(report)

    def _refresh(self) -> None:
        self._records = {record.config_hash: record for record in self._ledger.trials(self._sweep)}

    def _hand_out(self) -> None:
        """Give every free worker an attempt, as long as there is one."""
        while self._pool.num_free():
            proposal = self._next_waiting() or self._propose()
            if proposal is None:
                return
            attempt = self._ledger.start_attempt(self._sweep, proposal.config_hash)
            self._running[attempt.id] = _Running(proposal, attempt)
            self._pool.assign(self._assignment(proposal, attempt))
            self._tell("started", proposal)

    def _next_waiting(self) -> Proposal | None:
        """A trial that was queued or interrupted before, oldest first."""
        for record in self._records.values():
            if record.state in ("queued", "preempted") and record.set_aside is None:
                return record.proposal
        return None

    def _propose(self) -> Proposal | None:
        """The next new trial; those this home has results of are written down and passed over."""
        while True:
            proposal = self._proposer.next(list(self._records.values()))
            if proposal is None:
                return None
            state = self._ledger.add_trial(self._sweep, proposal)
            self._refresh()
            if state == "queued":
                return proposal
            self._summary.num_reused += 1
            self._tell("reused", proposal)

    def _assignment(self, proposal: Proposal, attempt: Attempt) -> Assignment:
        keep = self._proposer.experiment.training.save_weights
        weights = self._folder / "weights" / f"{proposal.config_hash}.safetensors"
        return Assignment(
            attempt_id=attempt.id,
            config=proposal.config,
            checkpoint_dir=self._folder / "checkpoints" / proposal.config_hash,
            weights_path=weights if keep else None,
        )

    def _hear(self, report: Report) -> None:
        """Write one report down."""
        running = self._running.get(report.attempt_id)
        if running is None:
            return
        content = report.content
        if isinstance(content, Progress):
            self._ledger.record_progress(
                report.attempt_id,
                step=content.step,
                spent_flops=_spent_flops(running.proposal, content),
                curve=content.curve,
                node=report.node,
                pid=report.pid,
            )
            self._tell("progress", running.proposal)
        elif isinstance(content, Outcome):
            del self._running[report.attempt_id]
            self._ledger.accept(
                report.attempt_id, content, spent_flops=_spent_flops(running.proposal, content)
            )
            self._summary.num_run += content.status != "preempted"
            self._tell("finished", running.proposal, note=content.reason or "")
        else:
            del self._running[report.attempt_id]
            self._lose(report.attempt_id, running.proposal, content)

    def _lose(self, attempt_id: int, proposal: Proposal, content: WorkerLost) -> None:
        """A worker died: try again, unless that happened too often."""
        self._summary.num_lost += 1
        attempts = self._records[proposal.config_hash].attempts
        lost = 1 + sum(attempt.state == "lost" for attempt in attempts)
        limit = self._proposer.experiment.workers.max_attempts
        if lost >= limit:
            reason = f"{lost} workers died on it (workers.max_attempts is {limit}); "
            reason += content.reason
            step = attempts[-1].step if attempts else 0
            outcome = Outcome(status="failed", reason=reason, steps=step)
            spent = attempts[-1].spent_flops if attempts else 0.0
            self._ledger.accept(attempt_id, outcome, spent_flops=spent)
        else:
            self._ledger.fence(attempt_id, reason=content.reason, state="lost")
        self._tell("lost", proposal, note=content.reason)

    def _tell(self, kind: str, proposal: Proposal, *, note: str = "") -> None:
        self._refresh()
        record = self._records[proposal.config_hash]
        steps = proposal.config.num_steps
        self._watch(SweepEvent(record=record, kind=kind, steps=steps, note=note))


def _spent_flops(proposal: Proposal, content: Progress | Outcome) -> float:
    """Training FLOPs of the attempt itself, in the budget's convention."""
    return float((content.tokens - content.resumed_tokens) * proposal.train_flops_per_token)
