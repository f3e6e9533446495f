"""Where do trials run? The contract between the driver and whatever trains.

A pool takes assignments while it has a free worker and hands back reports: progress, one outcome,
or the news that a worker is gone. Values only; nothing but the driver touches ledger or MLflow.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from runners.machine.device import is_device_failure
from runners.text.corpus import Corpus
from runners.trial.training import Engine, TrainingOptions, run_trial
from search.record.trial import Outcome, Progress, TrialConfig
from spaces.arms.registry import ArmFile
from spaces.errors import RequestError

StopReason = Literal["preempted", "pruned"]


@dataclass(frozen=True, kw_only=True)
class AssignedAttempt:
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
class Assignment:
    """What one worker is given at once: attempts, each with reports and an ending of its own."""

    attempts: tuple[AssignedAttempt, ...]
    """Trained one after the other."""
    num_devices: int = 1
    """Devices of the worker that they need; today's workers have one."""


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
    arm_files: tuple[ArmFile, ...] = ()
    """Sources of arms that do not ship, for the worker's process to load."""


class Pool(Protocol):
    """Trains assignments, several at once. `assign` raises `RequestError` where no worker has the
    devices that are asked for."""

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


class StopFlags:
    """Whether, and why, each attempt of an assignment should end at its next step."""

    def __init__(self) -> None:
        self._reasons: dict[int, StopReason] = {}

    def set(self, attempt_id: int, reason: StopReason) -> None:
        """Ask an attempt to end."""
        self._reasons[attempt_id] = reason

    def of(self, attempt_id: int) -> Callable[[], StopReason | None]:
        """The question that an attempt asks before every step."""
        return lambda: self._reasons.get(attempt_id)


def require_cores(num_workers: int | None, cpus_each: int) -> None:
    """Refuse more workers than this machine has cores for: a Ray that is started here takes any
    number for granted, and so does torch. Raises `RequestError`."""
    asked, cores = (num_workers or 1) * cpus_each, os.cpu_count() or 1
    if asked > cores:
        raise RequestError(
            f"each of {num_workers or 1} workers needs {cpus_each} of this machine's CPU cores, "
            f"{asked} in all, but it has {cores}; lower --workers.count or --workers.cpus-each, or "
            f"leave them out"
        )


def require_one_device(assignment: Assignment) -> None:
    """Raise `RequestError` where an assignment needs more devices than a worker has."""
    if assignment.num_devices != 1:
        raise RequestError(
            f"a worker has one device, but {assignment.num_devices} are asked for; trials on "
            f"several devices need a pool whose workers have them"
        )


def train_assignment(
    assignment: Assignment, options: WorkerOptions, stop: StopFlags
) -> Generator[Report]:
    """What every worker does with an assignment."""
    for attempt in assignment.attempts:
        yield from _train_attempt(attempt, options, stop.of(attempt.attempt_id))


def _train_attempt(
    attempt: AssignedAttempt, options: WorkerOptions, should_stop: Callable[[], StopReason | None]
) -> Generator[Report]:
    """One attempt to its ending.

    Raises `RequestError` where the trial cannot run here at all. Any other error is news of the
    attempt: without room on the disk it is preempted; with another error of the disk, or a GPU that
    this process can use no more, it is lost; what is left is a failure of the trial.
    """
    node, pid = socket.gethostname(), os.getpid()
    last = Progress(step=0, steps=attempt.config.num_steps, tokens=0, resumed_tokens=0)
    try:
        for content in _contents(attempt, options, should_stop):
            if isinstance(content, Progress):
                last = content
            yield Report(attempt_id=attempt.attempt_id, node=node, pid=pid, content=content)
    except RequestError:
        raise
    except Exception as error:
        ending = _ending(error, last)
        yield Report(attempt_id=attempt.attempt_id, node=node, pid=pid, content=ending)


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
    attempt: AssignedAttempt, options: WorkerOptions, should_stop: Callable[[], StopReason | None]
) -> Iterator[Progress | Outcome]:
    return run_trial(
        attempt.config,
        options.corpus,
        TrainingOptions(
            device=options.device,
            engine=options.engine,
            num_threads=options.num_threads,
            checkpoint_dir=attempt.checkpoint_dir,
            checkpoint_seconds=options.checkpoint_seconds,
            weights_path=attempt.weights_path,
        ),
        should_stop=should_stop,
    )
