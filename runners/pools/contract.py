"""Where do trials run? The contract between the driver and whatever trains.

A pool takes assignments while it has a free worker and hands back reports: progress, one outcome,
or the news that a worker is gone. Values only; nothing but the driver touches ledger or MLflow.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from runners.text.corpus import Corpus
from runners.trial.training import Engine, StopReason
from search.record.trial import Outcome, Progress, TrialConfig
from spaces.arms.registry import ArmFile
from spaces.errors import RequestError


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
    trunk_dir: Path | None = None
    """Where trials of one recipe and several lengths share what they have in common."""
    is_alone: bool = False
    """Whether nothing may train beside it: its last worker died."""
    num_devices: int = 1
    """Devices of the worker that it needs; today's workers have one."""


@dataclass(frozen=True, kw_only=True)
class WorkerLost:
    """The worker died with the attempt it was on."""

    reason: str
    """What is known of its end."""
    with_its_machine: bool = False
    """Whether its machine went, which is no fault of the trial."""


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
    pack: int = 1
    """Most trials that the worker trains side by side."""
    engine: Engine = "auto"
    """How steps run on a GPU."""
    keeps_weights: bool = False
    """Whether attempts leave weights in the home, which a worker must then see."""
    arm_files: tuple[ArmFile, ...] = ()
    """Sources of arms that do not ship, for the worker's process to load."""


class Pool(Protocol):
    """Trains assignments, several at once. `assign` raises `RequestError` where no worker has the
    devices that are asked for."""

    @property
    def num_workers(self) -> int:
        """Workers that take assignments."""

    @property
    def outage(self) -> str | None:
        """Why no worker will take work any more, and what to do; None while one does or may."""

    def has_place(self, assignment: Assignment | None = None) -> bool:
        """Whether a worker can start that attempt now; left out: whether any might be started."""

    def assign(self, assignment: Assignment) -> None:
        """Start an attempt where there is a place for it."""

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        """News since the last call; waits at most that long for the first."""

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Ask an attempt to save and end at its next step; its outcome says so."""

    def abandon(self, attempt_id: int) -> None:
        """Put another worker in the place of a silent one; what that still says is reported."""

    def close(self) -> None:
        """Let every worker go."""


class StopFlags:
    """Whether, and why, each of a worker's attempts should end at its next step."""

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
