"""How do trials run in other processes? In long-lived Ray actors, a pack each; the door to Ray.

An actor that dies is not restarted by Ray (the next call to a restarted actor fails as well): the
pool reports its attempts lost and puts a new actor in its place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray.exceptions import RayActorError, RayTaskError

from runners.pools.contract import (
    Assignment,
    Report,
    WorkerLost,
    WorkerOptions,
    require_cores,
    require_one_device,
)
from runners.pools.open_attempts import OpenAttempts
from runners.pools.pack import Pack
from runners.pools.ray_address import NAMED, host_of, require_cluster
from runners.trial.training import StopReason
from search.record.redaction import redact
from search.record.trial import Outcome
from spaces.arms.registry import load_arm_file
from spaces.errors import RequestError


class Worker:
    """The actor: trains what it is given, and takes more, or the wish to stop, meanwhile."""

    def __init__(self, options: WorkerOptions) -> None:
        for file in options.arm_files:
            load_arm_file(file)
        self._pack = Pack(options)

    def serve(self) -> Iterator[Report]:
        """Reports of all that is ever assigned, streamed."""
        yield from self._pack.reports_for_ever()

    def assign(self, assignment: Assignment) -> None:
        """One more attempt."""
        self._pack.add(assignment)

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag an attempt."""
        self._pack.stop(attempt_id, reason)


@dataclass
class _Slot:
    """One actor and what it is on."""

    actor: Any
    stream: Any
    open: OpenAttempts
    is_abandoned: bool = False
    """Given up as silent: still listened to, never given work again."""


class RayPool:
    """Actors, each with its own CPU cores or one whole GPU; as many as there are, unless told."""

    def __init__(
        self,
        options: WorkerOptions,
        *,
        num_workers: int | None,
        cpus_each: int,
        address: str | None = None,
        insecure: bool = False,
        scratch: Path | None = None,
    ) -> None:
        """Start, or join, Ray. Raises `RequestError` where the cluster cannot hold the workers, or
        is another machine's and takes anybody's work (unless ``insecure``).

        ``scratch``: where a local Ray keeps its sockets and logs, removed at the end; a short path.
        """
        self._options = options
        self._scratch = scratch
        on_gpu = options.device == "cuda"
        if address is None:
            require_cores(num_workers, cpus_each)
        else:
            if not insecure:
                require_authentication(address)
            require_cluster(address)
        with _signal_handlers_kept():
            _start_ray(address, num_cpus=(num_workers or 0) * cpus_each, scratch=scratch)
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
            max_concurrency=2,  # one thread trains, the other takes what comes meanwhile
        )(Worker)
        self._slots = [self._start() for _ in range(num_workers)]

    def _start(self, **resources: float) -> _Slot:
        """A new actor that listens."""
        actor = self._actor.options(**resources).remote(self._options)
        stream = actor.serve.options(num_returns="streaming").remote()
        return _Slot(actor=actor, stream=stream, open=OpenAttempts.of(self._options))

    @property
    def num_workers(self) -> int:
        """Actors that take work."""
        return sum(not slot.is_abandoned for slot in self._slots)

    def _places(self, assignment: Assignment | None) -> list[_Slot]:
        """Actors that take an attempt, those with the least to do first."""
        willing = [each for each in self._slots if not each.is_abandoned]
        places = [slot for slot in willing if slot.open.has_place(assignment)]
        return sorted(places, key=lambda slot: len(slot.open))

    def has_place(self, assignment: Assignment | None = None) -> bool:
        """Whether an actor takes one more."""
        return bool(self._places(assignment))

    def assign(self, assignment: Assignment) -> None:
        """Hand an attempt to the actor with the least to do."""
        require_one_device(assignment)
        slot = self._places(assignment)[0]
        slot.open.add(assignment)
        slot.actor.assign.remote(assignment)

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        """One report of every stream that has one."""
        busy = {slot.stream: slot for slot in self._slots if slot.open}
        if not busy:
            return []
        ready, _ = ray.wait(list(busy), num_returns=1, timeout=timeout_seconds)
        more, _ = ray.wait(list(busy), num_returns=len(busy), timeout=0)
        streams = dict.fromkeys([*ready, *more])
        return [report for stream in streams for report in self._pull(busy[stream])]

    def _pull(self, slot: _Slot) -> list[Report]:
        """The next report of one stream; of a worker that died, one of every attempt it had."""
        try:
            report: Report = ray.get(next(slot.stream))
        except RayTaskError as error:
            if isinstance(error.cause, RequestError):
                raise error.cause from None
            raise
        except (RayActorError, StopIteration) as error:
            reason = f"the worker died: {str(error).splitlines()[0] if str(error) else 'no reason'}"
            return self._lose(slot, WorkerLost(reason=reason))
        if isinstance(report.content, WorkerLost):
            ray.kill(slot.actor)  # what broke it, a GPU's context say, would break the next attempt
            return [report, *self._lose(slot, report.content, but=report.attempt_id)]
        if isinstance(report.content, Outcome):
            slot.open.end(report.attempt_id)
            if slot.is_abandoned and not slot.open:
                self._remove(slot)
        return [report]

    def _lose(self, slot: _Slot, lost: WorkerLost, *, but: int | None = None) -> list[Report]:
        """News that a worker took its open attempts with it; another is put in its place."""
        self._slots.remove(slot)
        if not slot.is_abandoned:
            self._slots.append(self._start())
        gone = [attempt_id for attempt_id in slot.open.ids if attempt_id != but]
        return [Report(attempt_id=each, node="", pid=0, content=lost) for each in gone]

    def _remove(self, slot: _Slot) -> None:
        ray.kill(slot.actor)
        self._slots.remove(slot)

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag the attempt on its actor."""
        for slot in self._slots:
            if attempt_id in slot.open:
                slot.actor.stop.remote(attempt_id, reason)

    def abandon(self, attempt_id: int) -> None:
        """A new actor takes the place; the silent one is told to stop, should it wake.

        The new one asks for no cores, which the silent one still holds; a GPU it must wait for, so
        there the silent one is killed.
        """
        silent = next((slot for slot in self._slots if attempt_id in slot.open), None)
        if silent is None or silent.is_abandoned:  # with another attempt of its pack
            return
        silent.is_abandoned = True
        if self._options.device == "cuda":
            self._remove(silent)
            self._slots.append(self._start())
        else:
            for each in silent.open.ids:
                silent.actor.stop.remote(each, "preempted")
            self._slots.append(self._start(num_cpus=0))

    def close(self) -> None:
        """Let the actors go, leave Ray, and remove what it kept on the disk."""
        for slot in self._slots:
            ray.kill(slot.actor)
        with _signal_handlers_kept():
            ray.shutdown()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def require_authentication(address: str) -> None:
    """Refuse a Ray of another machine without token authentication.

    Whoever reaches an open Ray cluster runs code on it, and on whoever joins it. Raises
    `RequestError`.
    """
    if address in NAMED or host_of(address).lower() in ("localhost", "127.0.0.1", "::1"):
        return
    places = (os.environ.get("RAY_AUTH_TOKEN_PATH"), Path.home() / ".ray" / "auth_token")
    has_token = bool(os.environ.get("RAY_AUTH_TOKEN")) or any(
        place and Path(place).is_file() for place in places
    )
    if os.environ.get("RAY_AUTH_MODE", "token").lower() == "token" and has_token:
        return
    raise RequestError(
        f"a Ray cluster on another machine needs token authentication, but {redact(address)} would "
        f"be joined without; give both sides the same token (`ray get-auth-token --generate`, then "
        f"RAY_AUTH_MODE=token and RAY_AUTH_TOKEN), or add --insecure"
    )


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Ray installs its own handler of SIGTERM; the sweep's own is put back."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start_ray(address: str | None, *, num_cpus: int, scratch: Path | None) -> None:
    if scratch is not None:
        shutil.rmtree(scratch, ignore_errors=True)
    try:
        if address is None:
            ray.init(
                address="local",
                _temp_dir=None if scratch is None else str(scratch),
                num_cpus=max(num_cpus, os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "locally" if address is None else f"at {address}"
        raise RequestError(redact(f"Ray could not be reached {where}: {error}")) from None


def _require(num_workers: int, resource: str, each: int) -> None:
    """Refuse what Ray would silently wait for."""
    exists = int(ray.cluster_resources().get(resource, 0))
    if exists < num_workers * each:
        ray.shutdown()
        raise RequestError(
            f"{num_workers} workers with {each} {resource} each need {num_workers * each}, but "
            f"the cluster has {exists}; lower --workers.count or --workers.cpus-each"
        )
