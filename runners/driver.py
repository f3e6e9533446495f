"""How does a sweep run? Propose, hand out, listen, write down, until all that is asked for is done.

The driver is the only writer of the ledger. It owns no state that the ledger does not have, so the
same command started again goes on where the last one stopped. Where the disk is full it pauses,
says how much is needed where, and goes on when there is room.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from runners.machine.disk import Shortage, attempt_bytes, find_shortage
from runners.pools.contract import Assignment, Pool, Report, WorkerLost
from runners.trial.branching import trunk_key
from runners.trial.checkpoint import clear_checkpoints
from search.propose.contract import Capped, Done, Proposed, Proposer
from search.record.ledger import Attempt, Ledger, TrialRecord
from search.record.ledger_errors import DiskFull
from search.record.trial import WAITING_STATES, Outcome, Progress, Proposal, TrialState
from spaces.shown import Block, Shown

POLL_SECONDS = 0.5
FAILURES_IN_A_ROW = 5
"""So many trials that fail one after the other with the same error are no fault of theirs."""
MOST_WAITING = 8
"""So many trials may wait for the trunk that they share with one that runs; then no more are
proposed."""
START_SECONDS = 120.0
"""A worker has at least so long for its first word: it starts, imports and reads the text."""

Written = TypeVar("Written")


@dataclass(frozen=True, kw_only=True)
class SweepEvent:
    """One thing that happened, for whoever watches."""

    record: TrialRecord
    """The trial it happened to, as the ledger has it now."""
    kind: str
    """started, progress, finished, lost, stale or reused."""
    steps: int
    """Optimizer steps of the whole trial."""
    note: str = ""
    """What a person should know of it."""


@dataclass(kw_only=True)
class SweepSummary(Shown):
    """What one run of the command did."""

    num_run: int = 0
    """Trials brought to an end."""
    num_failed: int = 0
    """Of these, how many failed (by an error, not by divergence or for want of memory)."""
    num_reused: int = 0
    """Trials whose result this home had already."""
    num_lost: int = 0
    """Attempts that died with their worker."""
    interrupted: bool = False
    """Whether it was asked to stop."""
    stopped_by: str | None = None
    """What ended it before all that was asked for: a cap, or that no more configurations fit."""
    is_capped: bool = False
    """Whether that was a cap of the experiment."""
    notes: list[str] = field(default_factory=list)
    """What a person should know."""

    def blocks(self) -> list[Block]:
        """What was run, what ended it, and the notes."""
        ended = "interrupted; the same call goes on" if self.interrupted else self.stopped_by
        return [
            f"{self.num_run} trials run ({self.num_failed} failed), {self.num_reused} reused, "
            f"{self.num_lost} attempts lost with their worker",
            *([f"ended early: {ended}"] if ended else []),
            *self.notes,
        ]


@dataclass
class _Running:
    proposal: Proposal
    attempt: Attempt
    silent_seconds: float = 0.0
    has_spoken: bool = False
    pruned_because: str | None = None


@dataclass(frozen=True, kw_only=True)
class DriverSettings:
    """How a driver treats workers and trials, whatever is searched for."""

    max_attempts: int = 3
    """Attempts at a trial whose worker dies."""
    silence_seconds: float = 600.0
    """A worker that says nothing for so long is given up."""
    keeps_weights: bool = False
    """Whether every trial leaves its final weights."""
    shares_trunks: bool = False
    """Whether trials that differ in their tokens alone go on from one another's trunk."""


class Driver:
    """Runs one sweep over one pool."""

    def __init__(
        self,
        *,
        sweep: str,
        ledger: Ledger,
        proposer: Proposer,
        pool: Pool,
        settings: DriverSettings,
        folder: Path,
        watch: Callable[[SweepEvent], None],
        say: Callable[[str], None],
        should_stop: Callable[[], bool],
    ) -> None:
        """``folder`` holds what attempts leave on disk: checkpoints, and weights if kept."""
        self._sweep = sweep
        self._ledger = ledger
        self._proposer = proposer
        self._pool = pool
        self._folder = folder
        self._watch = watch
        self._say = say
        self._should_stop = should_stop
        self._settings = settings
        self._running: dict[int, _Running] = {}
        self._given_up: dict[int, _Running] = {}
        self._records: dict[str, TrialRecord] = {}
        self._pause: Shortage | None = None
        self._out_of_hours = False
        self._failures: list[str | None] = []
        self._summary = SweepSummary()

    def run(self) -> SweepSummary:
        """Run until nothing is left to do, or until asked to stop; returns what was done."""
        self._records = {record.config_hash: record for record in self._ledger.trials(self._sweep)}
        self._clear_finished()
        while True:
            self._stop_if_asked()
            self._stop_at_hours_cap()
            outage = self._pool.outage
            is_ending = (
                self._summary.interrupted
                or self._out_of_hours
                or self._is_failing()
                or outage is not None
            )
            if not is_ending:
                self._hand_out()
            if self._running:
                self._listen()
            elif is_ending or (self._pause is None and self._pool.num_workers):
                if outage is not None:
                    self._summary.notes.append(outage)
                return self._summary
            else:
                time.sleep(POLL_SECONDS)

    def _stop_if_asked(self) -> None:
        if self._should_stop() and not self._summary.interrupted:
            self._summary.interrupted = True
            for attempt_id in self._running:
                self._pool.stop(attempt_id, "preempted")

    def _stop_at_hours_cap(self) -> None:
        """Save what runs and start nothing more, once the experiment's worker-hours are spent."""
        why = self._proposer.why_stop(list(self._records.values()), now=time.time())
        if why is not None and not self._out_of_hours:
            self._out_of_hours = True
            self._note_end(why, is_capped=True)
            for attempt_id in self._running:
                self._pool.stop(attempt_id, "preempted")

    def _is_paid_for(self, proposal: Proposal) -> bool:
        """Whether the experiment's FLOPs still pay for a trial, besides what runs."""
        why = self._proposer.why_not_start(proposal, list(self._records.values()))
        self._note_end(why, is_capped=why is not None)
        return why is None

    def _note_end(self, why: str | None, *, is_capped: bool) -> None:
        self._summary.stopped_by, self._summary.is_capped = why, is_capped

    def _is_failing(self) -> bool:
        """Whether the last trials all failed with one error."""
        return len(self._failures) >= FAILURES_IN_A_ROW

    def _note_failure(self, outcome: Outcome) -> None:
        """Count the trials that failed with one error since another ended otherwise."""
        if outcome.status == "preempted":
            return
        if outcome.status != "failed" or self._failures[-1:] not in ([], [outcome.reason]):
            self._failures = []
        if outcome.status == "failed":
            self._summary.num_failed += 1
            self._failures.append(outcome.reason)
        if len(self._failures) == FAILURES_IN_A_ROW:
            self._summary.notes.append(
                f"{FAILURES_IN_A_ROW} trials in a row failed with the same error, so no more are "
                f"started: {outcome.reason}"
            )

    def _listen(self) -> None:
        """Write down what workers say, and give up on those that say nothing for too long."""
        began = time.monotonic()
        for report in self._pool.reports(timeout_seconds=POLL_SECONDS):
            self._hear(report)
        # A machine that slept for hours has not listened for hours: a round counts a second at most
        waited = min(time.monotonic() - began, 1.0)
        for attempt_id, running in list(self._running.items()):
            running.silent_seconds += waited
            if running.silent_seconds > self._patience(running):
                self._give_up(attempt_id)

    def _patience(self, running: _Running) -> float:
        """Seconds of silence that an attempt may keep."""
        if running.has_spoken:
            return self._settings.silence_seconds
        return max(self._settings.silence_seconds, START_SECONDS)

    def _hand_out(self) -> None:
        """Fill the workers' places, as long as there are trials and room for them."""
        while self._pool.has_place():
            proposal = self._next_waiting()
            if proposal is None and len(self._waiting()) < MOST_WAITING:
                proposal = self._propose()
            if proposal is None or not self._is_paid_for(proposal):
                return
            if self._waits_for_trunk(proposal):
                continue
            assignment = self._assignment(proposal)
            if not self._pool.has_place(assignment) or not self._has_room(proposal):
                return
            attempt = self._write(
                partial(self._ledger.start_attempt, self._sweep, proposal.config_hash)
            )
            self._running[attempt.id] = _Running(proposal, attempt)
            self._pool.assign(replace(assignment, attempt_id=attempt.id))
            self._tell("started", proposal)

    def _next_waiting(self) -> Proposal | None:
        """A trial that was queued or interrupted before, oldest first; of a trunk, the shortest."""
        waiting = [each for each in self._waiting() if not self._waits_for_trunk(each)]
        if not waiting:
            return None
        trunk = self._trunk(waiting[0])
        same = [each for each in waiting if trunk is not None and self._trunk(each) == trunk]
        return min(same or waiting[:1], key=lambda each: each.config.tokens)

    def _waiting(self) -> list[Proposal]:
        return [
            record.proposal
            for record in self._records.values()
            if record.state in WAITING_STATES and record.set_aside is None
        ]

    def _trunk(self, proposal: Proposal) -> str | None:
        """The trunk that a trial may share."""
        return trunk_key(proposal.config) if self._settings.shares_trunks else None

    def _waits_for_trunk(self, proposal: Proposal) -> bool:
        """Whether another trial is at work on what this one would go on from."""
        trunk = self._trunk(proposal)
        if trunk is None:
            return False
        return any(self._trunk(each.proposal) == trunk for each in self._running.values())

    def _propose(self) -> Proposal | None:
        """The next new trial; those this home has results of are written down and passed over."""
        while True:
            answer = self._proposer.next(list(self._records.values()))
            self._note_end(
                answer.why if isinstance(answer, Capped | Done) else None,
                is_capped=isinstance(answer, Capped),
            )
            if not isinstance(answer, Proposed):
                return None
            waiting = [each for each in answer.proposals if self._add(each) in WAITING_STATES]
            if waiting:
                return waiting[0]

    def _add(self, proposal: Proposal) -> TrialState:
        """Write a new trial down; its state, which is not to wait where its result is known."""
        takes_pruned = self._proposer.may_prune(proposal)
        add = partial(self._ledger.add_trial, self._sweep, proposal, takes_pruned=takes_pruned)
        state = self._write(add)
        self._refresh(proposal)
        if state not in WAITING_STATES:
            self._summary.num_reused += 1
            self._tell("reused", proposal)
        return state

    def _assignment(self, proposal: Proposal) -> Assignment:
        """What a worker is told; the attempt is not made yet. After a worker died on it, a trial
        is tried alone: it takes no others with it, and no other takes it."""
        weights = self._folder / "weights" / f"{proposal.config_hash}.safetensors"
        attempts = self._records[proposal.config_hash].attempts
        return Assignment(
            attempt_id=0,
            config=proposal.config,
            checkpoint_dir=self._checkpoint_dir(proposal.config_hash),
            weights_path=weights if self._settings.keeps_weights else None,
            trunk_dir=self._folder / "trunks" if self._settings.shares_trunks else None,
            is_alone=bool(attempts) and attempts[-1].state == "lost",
        )

    def _checkpoint_dir(self, config_hash: str) -> Path:
        return self._folder / "checkpoints" / config_hash

    def _hear(self, report: Report) -> None:
        """Write one report down."""
        running, content = self._running.get(report.attempt_id), report.content
        if running is None:
            self._hear_late(report)
            return
        running.silent_seconds, running.has_spoken = 0.0, True
        if isinstance(content, Progress):
            self._write(partial(self._record_progress, report, content, running.proposal))
            self._tell("progress", running.proposal)
            self._prune_if_hopeless(report.attempt_id, running.proposal)
        elif isinstance(content, Outcome):
            self._accept(report.attempt_id, content, running.proposal)
        else:
            del self._running[report.attempt_id]
            self._lose(report.attempt_id, running.proposal, content)

    def _prune_if_hopeless(self, attempt_id: int, proposal: Proposal) -> None:
        """End a trial that its arm and budget have left behind, if the experiment asks for it."""
        record = self._records[proposal.config_hash]
        why = self._proposer.why_prune(record, list(self._records.values()))
        if why is not None:
            self._running[attempt_id].pruned_because = why
            self._pool.stop(attempt_id, "pruned")

    def _record_progress(self, report: Report, content: Progress, proposal: Proposal) -> bool:
        return self._ledger.record_progress(
            report.attempt_id,
            step=content.step,
            spent_flops=_spent_flops(proposal, content),
            curve=content.curve,
            node=report.node,
            pid=report.pid,
        )

    def _accept(self, attempt_id: int, outcome: Outcome, proposal: Proposal) -> None:
        """An attempt ended: its outcome counts from the moment the ledger has it."""
        if outcome.status == "pruned":
            outcome = replace(outcome, reason=self._running[attempt_id].pruned_because)
        spent = _spent_flops(proposal, outcome)
        self._write(partial(self._ledger.accept, attempt_id, outcome, spent_flops=spent))
        del self._running[attempt_id]
        self._note_failure(outcome)
        if outcome.status != "preempted":
            self._summary.num_run += 1
            clear_checkpoints(self._checkpoint_dir(proposal.config_hash))
        elif not self._summary.interrupted:
            time.sleep(POLL_SECONDS)  # it could not go on, for want of room: look again soon
        self._tell("finished", proposal, note=outcome.reason or "")

    def _hear_late(self, report: Report) -> None:
        """A worker that was given up woke: what it found is kept as stale and never counted."""
        late, outcome = self._given_up.get(report.attempt_id), report.content
        if late is None or not isinstance(outcome, Outcome):
            return
        del self._given_up[report.attempt_id]
        proposal = late.proposal
        spent = _spent_flops(proposal, outcome)
        acceptance = self._write(
            partial(self._ledger.accept, report.attempt_id, outcome, spent_flops=spent)
        )
        self._clear_finished()
        note = f"attempt {late.attempt.number} came too late: {acceptance}, not counted"
        if acceptance == "conflict":
            self._summary.notes.append(
                f"trial {proposal.config_hash}: a late result contradicts the accepted one; "
                f"`isoflop doctor` shows both"
            )
        self._tell("stale", proposal, note=note)

    def _give_up(self, attempt_id: int) -> None:
        """Fence an attempt whose worker is silent, and put another worker in its place."""
        running = self._running.pop(attempt_id)
        self._given_up[attempt_id] = running
        self._pool.abandon(attempt_id)
        reason = f"its worker said nothing for {self._patience(running):g} s"
        self._lose(attempt_id, running.proposal, WorkerLost(reason=reason))

    def _lose(self, attempt_id: int, proposal: Proposal, content: WorkerLost) -> None:
        """A worker died: try again, unless that happened too often, machines that went apart."""
        self._summary.num_lost += 1
        if content.with_its_machine:
            fence = partial(
                self._ledger.fence, attempt_id, reason=content.reason, state="preempted"
            )
            self._write(fence)
            self._tell("lost", proposal, note=content.reason)
            return
        attempts = self._records[proposal.config_hash].attempts
        since = itertools.takewhile(lambda each: each.state != "failed", reversed(attempts))
        lost = 1 + sum(attempt.state == "lost" for attempt in since)
        limit = self._settings.max_attempts
        if lost < limit:
            fence = partial(self._ledger.fence, attempt_id, reason=content.reason, state="lost")
            self._write(fence)
        else:
            reason = f"{lost} workers died on it (workers.max_attempts is {limit}); "
            outcome = Outcome(
                status="failed",
                reason=reason + content.reason,
                steps=attempts[-1].step,
                curve=attempts[-1].curve,
            )
            spent = attempts[-1].spent_flops
            self._write(partial(self._ledger.accept, attempt_id, outcome, spent_flops=spent))
            self._note_failure(outcome)
            self._summary.num_run += 1
        self._tell("lost", proposal, note=content.reason)

    def _write(self, action: Callable[[], Written]) -> Written:
        """Write to the ledger; where there is no room for it, wait until there is."""
        said = False
        while True:
            try:
                return action()
            except DiskFull as error:
                if not said:
                    self._say(f"paused: {error}")
                    said = True
                if self._should_stop():
                    raise KeyboardInterrupt from error
                time.sleep(POLL_SECONDS)

    def _has_room(self, proposal: Proposal) -> bool:
        """Whether the disk takes one more attempt besides those that run."""
        keep = self._settings.keeps_weights
        configs = [proposal.config, *(each.proposal.config for each in self._running.values())]
        needed = sum(attempt_bytes(config, keep_weights=keep) for config in configs)
        shortage = find_shortage(self._folder, needed)
        if shortage is None:
            self._pause = None
            return True
        if self._pause is None:
            self._say(f"paused: {shortage}; the sweep goes on when there is room")
        self._pause = shortage
        return False

    def _clear_finished(self) -> None:
        """Remove checkpoints of trials that are not run again."""
        for record in self._records.values():
            if record.outcome is not None:
                clear_checkpoints(self._checkpoint_dir(record.config_hash))

    def _refresh(self, proposal: Proposal) -> TrialRecord:
        record = self._ledger.trial(self._sweep, proposal.config_hash)
        self._records[proposal.config_hash] = record
        return record

    def _tell(self, kind: str, proposal: Proposal, *, note: str = "") -> None:
        record = self._refresh(proposal)
        steps = proposal.config.num_steps
        self._watch(SweepEvent(record=record, kind=kind, steps=steps, note=note))


def _spent_flops(proposal: Proposal, content: Progress | Outcome) -> float:
    """Training FLOPs of the attempt itself, in the budget's convention."""
    return float((content.tokens - content.resumed_tokens) * proposal.train_flops_per_token)
