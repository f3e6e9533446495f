"""Where do trials run? The contract between the driver and whatever trains.

A pool takes assignments while it has a free worker and hands back reports: progress, one outcome,
or the news that a worker is gone. Values only; nothing but the driver touches ledger or MLflow.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from runners.machine.device import is_device_failure
from runners.text.corpus import Corpus
from runners.trial.training import Engine, TrainingOptions, run_trial
from search.record.trial import Outcome, Progress, TrialConfig
from spaces.errors import RequestError

StopReason = Literal["preempted", "pruned"]


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One attempt at a trial, as it travels to a worker."""

    attempt_id: int
    """Fencing token; every report carries it."""
    config: TrialConfig
    """What to train."""
    checkpoint_dir: Path
    """Where the attempt saves, and finds what an earlier one saved."""
    weights_path: Path | None
    """Where to leave the final weights, if they are kept."""


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """The worker died with the attempt it was on."""

    reason: str
    """What is known of its end."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """News of one attempt."""

    attempt_id: int
    """Which."""
    node: str
    """Host of the worker."""
    pid: int
    """Process of the worker."""
    content: Progress | Outcome | WorkerLost
    """The news; after an `Outcome` or `WorkerLost` no more come."""


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What every worker of a pool is told once."""

    corpus: Corpus
    """The prepared text."""
    device: str
    """cpu or cuda."""
    num_threads: int
    """torch threads of a worker."""
    checkpoint_seconds: float
    """Time between checkpoints."""
    engine: Engine = "auto"
    """How steps run on a GPU."""


class Pool(Protocol):
    """Trains assignments, several at once."""

    @property
    def num_workers(self) -> int:
        """Attempts that can run at once."""

    def num_free(self) -> int:
        """Workers without an attempt."""

    def assign(self, assignment: Assignment) -> None:
        """Start an attempt on a free worker."""

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        """News since the last call; waits at most that long for the first."""

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Ask an attempt to save and end at its next step; its outcome says so."""

    def abandon(self, attempt_id: int) -> None:
        """Put another worker in the place of a silent one; what that still says is reported."""

    def close(self) -> None:
        """Let every worker go."""


class StopFlag:
    """Whether, and why, a running attempt should end at its next step."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None

    def __call__(self) -> StopReason | None:
        return self.reason


def train_assignment(
    assignment: Assignment, options: WorkerOptions, stop: StopFlag
) -> Generator[Report]:
    """What every worker does with an assignment.

    Raises `RequestError` where the trial cannot run here at all. Any other error is news of the
    attempt: without room on the disk it is preempted; with another error of the disk, or a GPU that
    this process can use no more, it is lost; what is left is a failure of the trial.
    """
    node, pid = socket.gethostname(), os.getpid()
    last = Progress(step=0, steps=assignment.config.num_steps, tokens=0, resumed_tokens=0)
    try:
        for content in _contents(assignment, options, stop):
            if isinstance(content, Progress):
                last = content
            yield Report(attempt_id=assignment.attempt_id, node=node, pid=pid, content=content)
    except RequestError:
        raise
    except Exception as error:
        ending = _ending(error, last)
        yield Report(attempt_id=assignment.attempt_id, node=node, pid=pid, content=ending)


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


def _contents(
    assignment: Assignment, options: WorkerOptions, stop: StopFlag
) -> Iterator[Progress | Outcome]:
    return run_trial(
        assignment.config,
        options.corpus,
        TrainingOptions(
            device=options.device,
            engine=options.engine,
            num_threads=options.num_threads,
            checkpoint_dir=assignment.checkpoint_dir,
            checkpoint_seconds=options.checkpoint_seconds,
            weights_path=assignment.weights_path,
        ),
        should_stop=stop,
    )
