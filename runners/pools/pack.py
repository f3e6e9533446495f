"""How does one worker train several trials side by side? In turns, each trial on its own.

What a pack shares is time: its trials have separate models, optimizers, data and endings, so one
that diverges, is pruned or finishes leaves the others as they are. On a GPU their steps overlap,
each on a stream of its own (`runners.engine.lanes`). A trial joins as soon as it is there.
"""

from __future__ import annotations

import errno
import os
import queue
import socket
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace

import torch

from runners.engine.graph import USABLE_SHARE
from runners.engine.lanes import LANES
from runners.machine.device import is_device_failure
from runners.pools.contract import Assignment, Report, StopFlags, WorkerLost, WorkerOptions
from runners.text.corpus import Corpus
from runners.trial.training import StopReason, TrainingOptions, run_in_turns
from search.limits.packs import fits_beside
from search.record.trial import Outcome, Progress
from spaces.errors import RequestError

SECONDS_BETWEEN_SIGNS = 30.0
"""A trial that waits for memory says so often that nobody takes its worker for silent."""
IDLE_SECONDS = 1.0
"""A worker with nothing to do looks so often whether it still has to be there."""


@dataclass
class _Member:
    """An attempt of the pack."""

    assignment: Assignment
    turns: Generator[Progress | Outcome | None]
    last: Progress
    spoke: float = field(default_factory=time.monotonic)


class Pack:
    """What one worker trains: attempts that come, take turns and end."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._stop = StopFlags()
        self._arrived: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
        self._waiting: list[_Member] = []
        self._training: list[_Member] = []

    def read_from(self, corpus: Corpus) -> None:
        """Take the text from elsewhere, before the first attempt."""
        self._options = replace(self._options, corpus=corpus)

    def add(self, assignment: Assignment) -> None:
        """Take an attempt in, from any thread."""
        self._arrived.put(assignment)

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Ask an attempt to end at its next step, from any thread."""
        self._stop.set(attempt_id, reason)

    def reports(self) -> Iterator[Report]:
        """Train until nothing is left. Raises `RequestError` where a trial cannot run here."""
        self._welcome()
        while self._waiting or self._training:
            yield from self._begin()
            for member in list(self._training):
                yield from self._turn(member)
            self._welcome()

    def reports_for_ever(self) -> Iterator[Report]:
        """`reports`, again and again: for a worker that lives as long as its process."""
        while True:
            yield from self.reports()
            self._welcome(timeout_seconds=IDLE_SECONDS)

    def _welcome(self, *, timeout_seconds: float = 0.0) -> None:
        """Let those that arrived wait for their first turn."""
        while True:
            try:
                assignment = self._arrived.get(timeout_seconds > 0, timeout_seconds or None)
            except queue.Empty:
                return
            self._waiting.append(self._member(assignment))
            timeout_seconds = 0.0

    def _member(self, assignment: Assignment) -> _Member:
        config, options = assignment.config, self._options
        turns = run_in_turns(
            config,
            options.corpus,
            TrainingOptions(
                device=options.device,
                engine=options.engine,
                num_threads=options.num_threads,
                checkpoint_dir=assignment.checkpoint_dir,
                checkpoint_seconds=options.checkpoint_seconds,
                trunk_dir=assignment.trunk_dir,
                weights_path=assignment.weights_path,
            ),
            should_stop=self._stop.of(assignment.attempt_id),
        )
        start = Progress(step=0, steps=config.num_steps, tokens=0, resumed_tokens=0)
        return _Member(assignment=assignment, turns=turns, last=start)

    def _begin(self) -> Iterator[Report]:
        """Let those that wait start, in order, as far as memory is predicted to hold them."""
        while self._waiting and self._has_memory(self._waiting[0]):
            self._training.append(self._waiting.pop(0))
        for member in self._waiting:
            if time.monotonic() - member.spoke > SECONDS_BETWEEN_SIGNS:
                yield self._report(member, member.last)

    def _has_memory(self, member: _Member) -> bool:
        """The first of a pack starts in any case: it may take smaller micro-batches."""
        if self._options.device != "cuda":
            return True
        if _fits_now(member.assignment):
            return True
        LANES.let_go_idle()
        return not self._training or _fits_now(member.assignment)

    def _turn(self, member: _Member) -> Iterator[Report]:
        """One member's turn.

        An error but `RequestError` is news of the attempt: without room on the disk it is
        preempted; with another error of the disk, or a GPU that this process can use no more, it is
        lost; what is left is a failure of the trial. Lack of memory beside others is none of
        its own: it starts again when there is room.
        """
        try:
            content: Progress | Outcome | WorkerLost | None = next(member.turns)
        except RequestError:
            raise
        except Exception as error:
            content = _ending(error, member.last)
        if content is None:
            return
        if isinstance(content, Progress):
            member.last = content
        else:
            self._training.remove(member)
            member.turns.close()
            if self._training and isinstance(content, Outcome) and _lacks_memory(content):
                self._waiting.insert(0, self._member(member.assignment))
                return
        yield self._report(member, content)

    def _report(self, member: _Member, content: Progress | Outcome | WorkerLost) -> Report:
        member.spoke = time.monotonic()
        attempt_id = member.assignment.attempt_id
        return Report(
            attempt_id=attempt_id, node=socket.gethostname(), pid=os.getpid(), content=content
        )


def _fits_now(assignment: Assignment) -> bool:
    free_bytes, _ = torch.cuda.mem_get_info()
    return fits_beside(assignment.config, free_bytes=USABLE_SHARE * free_bytes)


def _lacks_memory(outcome: Outcome) -> bool:
    return outcome.status == "out_of_memory"


def _ending(error: Exception, last: Progress) -> Outcome | WorkerLost:
    """What an error makes of an attempt that had come so far."""
    reason = f"{type(error).__name__}: {error}"
    if is_device_failure(error):
        return WorkerLost(reason=reason.splitlines()[0])
    if isinstance(error, OSError) and error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return WorkerLost(reason=reason)
    return Outcome(
        status="preempted" if isinstance(error, OSError) else "failed",
        reason=reason,
        steps=last.step,
        tokens=last.tokens,
        resumed_tokens=last.resumed_tokens,
        curve=last.curve,
    )
