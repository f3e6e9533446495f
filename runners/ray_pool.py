"""How do trials run side by side? Long-lived Ray actors, one attempt each; the only door to Ray.

An actor that dies is not restarted by Ray (the next call to a restarted actor fails as well): the
pool reports its attempt lost and puts a new actor in its place.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayActorError

from runners.pool import (
    Assignment,
    Report,
    StopFlag,
    StopReason,
    WorkerLost,
    WorkerOptions,
    train_assignment,
)
from search.trial import Outcome
from spaces.errors import RequestError


class Worker:
    """The actor: trains one assignment at a time and can be asked to stop meanwhile."""

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        self._stop = StopFlag()
        self._attempt_id: int | None = None

    def train(self, assignment: Assignment) -> Iterator[Report]:
        """Reports of one attempt, streamed."""
        self._stop, self._attempt_id = StopFlag(), assignment.attempt_id
        yield from train_assignment(assignment, self._options, self._stop)

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag the running attempt."""
        if attempt_id == self._attempt_id:
            self._stop.reason = reason


@dataclass
class _Slot:
    """One actor and what it is on."""

    actor: Any
    attempt_id: int | None = None
    stream: Any = None


class RayPool:
    """Actors, each with its own CPU cores or one whole GPU; as many as there are, unless told."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        num_workers: int | None,
        cpus_each: int,
        address: str | None = None,
    ) -> None:
        """Start, or join, Ray. Raises `RequestError` where the cluster cannot hold the workers."""
        self._options = options
        on_gpu = options.device == "cuda"
        _start_ray(address, num_cpus=(num_workers or 0) * cpus_each)
        if num_workers is None:
            resources = ray.cluster_resources()
            num_workers = int(resources.get("GPU", 0) if on_gpu else resources["CPU"] // cpus_each)
            num_workers = max(1, num_workers)
        _require(num_workers, "CPU", cpus_each)
        if on_gpu:
            _require(num_workers, "GPU", 1)
        self._actor = ray.remote(
            num_cpus=cpus_each,
            num_gpus=1 if on_gpu else 0,
            max_restarts=0,
            max_concurrency=2,
        )(Worker)
        self._slots = [_Slot(actor=self._start_actor()) for _ in range(num_workers)]

    def _start_actor(self) -> Any:
        return self._actor.remote(self._options)

    @property
    def num_workers(self) -> int:
        """Actors."""
        return len(self._slots)

    def num_free(self) -> int:
        """Actors without an attempt."""
        return sum(slot.attempt_id is None for slot in self._slots)

    def assign(self, assignment: Assignment) -> None:
        """Start an attempt on the first free actor."""
        slot = next(slot for slot in self._slots if slot.attempt_id is None)
        slot.attempt_id = assignment.attempt_id
        slot.stream = slot.actor.train.options(num_returns="streaming").remote(assignment)

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        """One report of every stream that has one."""
        busy = {slot.stream: slot for slot in self._slots if slot.stream is not None}
        if not busy:
            return []
        ready, _ = ray.wait(list(busy), num_returns=1, timeout=timeout_seconds)
        more, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0)
        return [self._pull(busy[stream]) for stream in dict.fromkeys([*ready, *more])]

    def _pull(self, slot: _Slot) -> Report:
        """The next report of one stream."""
        attempt_id = slot.attempt_id
        assert attempt_id is not None
        try:
            report: Report = ray.get(next(slot.stream))
        except (RayActorError, StopIteration) as error:
            slot.attempt_id = slot.stream = None
            slot.actor = self._start_actor()
            reason = f"the worker died: {str(error).splitlines()[0] if str(error) else 'no reason'}"
            lost = WorkerLost(reason=reason)
            return Report(attempt_id=attempt_id, node="", pid=0, content=lost)
        if isinstance(report.content, Outcome):
            slot.attempt_id = slot.stream = None
        return report

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag the attempt on its actor."""
        for slot in self._slots:
            if slot.attempt_id == attempt_id:
                slot.actor.stop.remote(attempt_id, reason)

    def close(self) -> None:
        """Let the actors go and leave Ray."""
        for slot in self._slots:
            ray.kill(slot.actor)
        ray.shutdown()


def _start_ray(address: str | None, *, num_cpus: int) -> None:
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=max(num_cpus, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "locally" if address is None else f"at {address}"
        raise RequestError(f"Ray could not be reached {where}: {error}") from None


def _require(num_workers: int, resource: str, each: int) -> None:
    """Refuse what Ray would silently wait for."""
    exists = int(ray.cluster_resources().get(resource, 0))
    if exists < num_workers * each:
        ray.shutdown()
        raise RequestError(
            f"{num_workers} workers with {each} {resource} each need {num_workers * each}, but "
            f"the cluster has {exists}; lower --workers.count or --workers.cpus-each"
        )
