"""How do trials run in other processes? In long-lived Ray actors, a pack each; the door to Ray.

An actor that dies is not restarted by Ray (the next call to a restarted actor fails as well): the
pool reports its attempts lost and puts a new actor in its place.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
from ray._private import ray_constants, services
from ray.exceptions import RayActorError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import runners
import search
import spaces
from runners.pools.contract import (
    Assignment,
    Report,
    WorkerLost,
    WorkerOptions,
    require_cores,
    require_one_device,
)
from runners.pools.open_attempts import OpenAttempts
from runners.pools.own_disk import OwnDisk, own_cache
from runners.pools.pack import Pack
from runners.pools.ray_address import (
    NAMED,
    host_of,
    is_this_machine,
    require_cluster,
    require_listening,
    takes_anybody,
)
from runners.text.shipping import TextShelf, files_of, receive_corpus
from runners.trial.training import StopReason
from search.record.redaction import redact
from search.record.trial import Outcome
from spaces.arms.registry import load_arm_file
from spaces.errors import RequestError

PLACE_SECONDS = 20.0
"""A worker that Ray has not placed by then is said to be missing; it imports torch meanwhile."""
WORKERLESS_SECONDS = 60.0
"""So long a pool waits, none of whose workers has a machine, for one to come."""
HEAD_SECONDS = 10.0
"""So long a cluster's head may be unreachable; after 60 s Ray ends this process, wordless."""
GONE_SECONDS = 2.0
"""A worker dies with its raylet, and Ray's head sees the connection of that close at once."""
LOOK_SECONDS = 1.0
"""Time between looks at head and machines."""


MOST_FAILED_STARTS = 3
"""Workers in a row that fail to start on a machine, until no more are tried."""

CODE = [str(Path(str(package.__file__)).parent) for package in (spaces, search, runners)]
"""The packages that a worker imports: they travel to a cluster, whatever its machines have."""

CREATION = "creation task"
"""In Ray's words for a worker that failed by itself, and not because its machine went."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker is."""

    node: str
    """Ray's id of the machine."""
    host: str
    """Its name."""
    unreadable: Path | None = None
    """A file of the prepared text that it cannot read there."""


class Worker:
    """The actor: trains what it is given, and takes more, or the wish to stop, meanwhile."""

    def __init__(self, options: WorkerOptions) -> None:
        for file in options.arm_files:
            load_arm_file(file)
        self._corpus = options.corpus
        self._pack = Pack(options)
        self._own_disk: OwnDisk | None = None

    def place(self) -> Place:
        """Where it is: the answer says that it has a machine."""
        paths = [path for path in files_of(self._corpus).values() if not os.access(path, os.R_OK)]
        return Place(
            node=str(ray.get_runtime_context().get_node_id()),
            host=socket.gethostname(),
            unreadable=paths[0] if paths else None,
        )

    def receive(self, shelf: Any) -> Place:
        """Take the text from a shelf, and keep everything on this machine's own disk. Raises
        OSError."""
        corpus = receive_corpus(
            self._corpus,
            own_cache() / "text",
            piece=lambda field, index: ray.get(shelf.piece.remote(field, index)),
            sha256=lambda field: ray.get(shelf.sha256.remote(field)),
        )
        self._own_disk = OwnDisk(own_cache() / "attempts")
        self._pack.read_from(corpus)
        self._corpus = corpus
        return self.place()

    def serve(self) -> Iterator[Report]:
        """Reports of all that is ever assigned, streamed."""
        for report in self._pack.reports_for_ever():
            if self._own_disk is not None:
                self._own_disk.end(report)
            yield report

    def assign(self, assignment: Assignment) -> None:
        """One more attempt."""
        self._pack.add(assignment if self._own_disk is None else self._own_disk.take(assignment))

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        """Flag an attempt."""
        self._pack.stop(attempt_id, reason)


@dataclass
class _Slot:
    """One actor and what it is on."""

    actor: Any
    stream: Any
    open: OpenAttempts
    placing: Any
    """The answer to come of where it is."""
    began: float
    node: str | None = None
    """Where it is; None until it said so, and until then it is given no work."""
    unreadable: Path | None = None
    """The file for whose sake the text is being sent to it."""
    is_missed: bool = False
    """Whether a person was told that it has no machine."""
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
        say: Callable[[str], None] = print,
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
            address = resolve_address(address)
            if not insecure:
                require_authentication(address)
            require_listening(address)
            if not insecure:
                require_closed(address)  # before a head is shown our token
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
        self._shelf: Any = None
        self._told: set[str] = set()
        self._say = say
        self._head = ray.get_runtime_context().gcs_address
        self._head_seen = self._workers_seen = time.monotonic()
        self._looked = 0.0
        self._failed_starts = 0
        self._outage: str | None = None
        self._slots = [self._start() for _ in range(num_workers)]
        placing = [slot.placing for slot in self._slots]
        ray.wait(placing, num_returns=len(placing), timeout=PLACE_SECONDS)
        self._look()

    def _start(self, **resources: float) -> _Slot:
        """A new actor that listens."""
        actor = self._actor.options(**resources).remote(self._options)
        placing = actor.place.remote()
        stream = actor.serve.options(num_returns="streaming").remote()
        return _Slot(
            actor=actor,
            stream=stream,
            open=OpenAttempts.of(self._options),
            placing=placing,
            began=time.monotonic(),
        )

    @property
    def num_workers(self) -> int:
        """Actors that take work."""
        return sum(slot.node is not None and not slot.is_abandoned for slot in self._slots)

    @property
    def outage(self) -> str | None:
        """That the head is gone, or no machine left."""
        self._look()
        return self._outage

    def _look(self) -> None:
        """Hear which workers have a machine by now, whether the head is there, and say what is
        missing, once."""
        now = time.monotonic()
        if self._outage is not None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if not _is_reachable(self._head):
            if now - self._head_seen > HEAD_SECONDS:
                self._outage = (
                    f"the head of the Ray cluster at {self._head} does not answer; start it again "
                    f"(`ray start --head`), or go on elsewhere with --workers.address or without"
                )
            return
        self._head_seen = now
        alive = {each["NodeID"] for each in ray.nodes() if each["Alive"]}
        for slot in list(self._slots):
            if slot.node is None:
                self._hear_place(slot, now)
            elif slot.node not in alive and not slot.open:
                self._lose(slot, WorkerLost(reason="its machine went", with_its_machine=True))
        if self.num_workers or any(slot.open for slot in self._slots):
            self._workers_seen = now
        elif now - self._workers_seen > WORKERLESS_SECONDS:
            self._outage = (
                f"no machine of the Ray cluster at {self._head} has room for a worker; join one "
                f"(`ray start --address {self._head}`), or lower --workers.cpus-each"
            )

    def _hear_place(self, slot: _Slot, now: float) -> None:
        ready, _ = ray.wait([slot.placing], timeout=0)
        if ready:
            try:
                place: Place = ray.get(slot.placing)
            except RayActorError as error:  # its machine went, or it could not start
                self._slots.remove(slot)
                self._failed_starts += CREATION in str(error)
                if self._failed_starts < MOST_FAILED_STARTS or self.num_workers:
                    self._slots.append(replace(self._start(), is_missed=slot.is_missed))
                else:
                    self._outage = (
                        f"workers cannot start on the Ray cluster at {self._head} "
                        f"({_last_line(error)}); its machines need the libraries of isoflop "
                        f"in the Python that `ray start` ran in (docs/clusters.md)"
                    )
                return
            except RayTaskError as error:
                what = f"the text ({slot.unreadable}) did not reach a machine"
                self._leave_out(slot, f"{what}: {_last_line(error)}")
                return
            if place.unreadable is not None:
                self._send_text(slot, place)
                return
            slot.node, self._failed_starts = place.node, 0
            if slot.is_missed:
                self._say(f"a machine came: {self.num_workers} of {len(self._slots)} workers run")
        elif not slot.is_missed and slot.unreadable is None and now - slot.began > PLACE_SECONDS:
            slot.is_missed = True
            self._say(
                f"a worker has no machine to run on: {self.num_workers} of {len(self._slots)} run, "
                f"and more once a machine comes"
            )

    def _send_text(self, slot: _Slot, place: Place) -> None:
        """Bring the text to a machine that cannot read it where it lies."""
        slot.unreadable = place.unreadable
        seen = f"the machine {place.host} cannot read {place.unreadable}"
        if self._options.keeps_weights:
            self._leave_out(
                slot, f"{seen}, and with training.save_weights every machine must see the home"
            )
            return
        if self._shelf is None:
            here = NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=False
            )
            shelf = ray.remote(num_cpus=0, scheduling_strategy=here)(TextShelf)
            self._shelf = shelf.remote(self._options.corpus)
        if place.host not in self._told:
            self._told.add(place.host)
            self._say(
                f"{seen}: the text is sent to it and its checkpoints stay there, so that a trial "
                f"begins again where it goes on elsewhere"
            )
        slot.placing = slot.actor.receive.remote(self._shelf)

    def _leave_out(self, slot: _Slot, why: str) -> None:
        """A worker whose machine cannot read the text is of no use."""
        self._remove(slot)
        why = (
            f"{why}; put the home into a folder that every machine of the cluster has under the "
            f"same path (docs/clusters.md)"
        )
        if self._slots:
            self._say(f"{why}; it is left out, {len(self._slots)} workers stay")
        else:
            self._outage = why

    def _places(self, assignment: Assignment | None) -> list[_Slot]:
        """Actors that take an attempt, those with the least to do first."""
        self._look()
        if self._outage is not None:
            return []
        willing = [each for each in self._slots if each.node and not each.is_abandoned]
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
        self._look()
        if self._outage is not None:
            lost = WorkerLost(reason=self._outage, with_its_machine=True)
            return [report for slot in busy.values() for report in self._lose(slot, lost)]
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
            lost = WorkerLost(reason=reason, with_its_machine=_has_gone(slot.node))
            return self._lose(slot, lost)
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
        if not slot.is_abandoned and self._outage is None:
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
        for slot in self._slots if self._outage is None else ():
            ray.kill(slot.actor)
        with _signal_handlers_kept():
            ray.shutdown()
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)


def _last_line(error: Exception) -> str:
    """What an error says in the end; Ray's begin with where and end with why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return redact(lines[-1]) if lines else "no reason given"


def _is_reachable(address: str) -> bool:
    """Whether the head takes calls, asked below Ray: its own calls would wait for it."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2.0):
            return True
    except OSError:
        return False


def _has_gone(node: str | None) -> bool:
    """Whether Ray counts a machine among those that live no more; within some seconds it knows."""
    if node is None:
        return True
    until = time.monotonic() + GONE_SECONDS
    while time.monotonic() < until:
        if not any(each["NodeID"] == node and each["Alive"] for each in ray.nodes()):
            return True
        time.sleep(0.2)
    return False


def require_authentication(address: str) -> None:
    """Refuse a Ray of another machine without token authentication.

    Whoever reaches an open Ray cluster runs code on it, and on whoever joins it. Raises
    `RequestError`.
    """
    if address in NAMED or is_this_machine(host_of(address)):
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


def resolve_address(address: str) -> str:
    """The address that "auto" stands for: RAY_ADDRESS, or the cluster that this machine is in.

    Raises `RequestError`.
    """
    if address != "auto":
        return address
    try:
        found = services.canonicalize_bootstrap_address("auto")
    except (ConnectionError, ValueError) as error:
        raise RequestError(redact(f"--workers.address auto finds no cluster: {error}")) from None
    if found is None:
        raise RequestError(
            "--workers.address auto finds no Ray cluster on this machine; start one (`ray start "
            "--head`), name it as HOST:PORT, or leave --workers.address out"
        )
    return str(found)


def require_closed(address: str) -> None:
    """Refuse a Ray of another machine that lets in who has no token, though we have one. Raises
    `RequestError`."""
    if address in NAMED or is_this_machine(host_of(address)) or not takes_anybody(address):
        return
    raise RequestError(
        f"the Ray cluster at {redact(address)} takes anybody's work: it was started without token "
        f"authentication; start it with RAY_AUTH_MODE=token and your token, or add --insecure"
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
        if address in (None, "local"):
            with _kept_to_this_machine():
                ray.init(
                    address="local",
                    _temp_dir=None if scratch is None else str(scratch),
                    num_cpus=max(num_cpus, os.cpu_count() or 1),
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        else:
            ray.init(
                address=address,
                runtime_env={"py_modules": CODE, "excludes": ["**/__pycache__"]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = "locally" if address is None else f"at {address}"
        raise RequestError(redact(f"Ray could not be reached {where}: {error}")) from None


@contextlib.contextmanager
def _kept_to_this_machine() -> Iterator[None]:
    """Let a Ray that is started here listen on 127.0.0.1 only, and take nobody's work but ours: by
    a token of this process, in no file."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False  # what Ray itself does where firewalls would ask
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _require(num_workers: int, resource: str, each: int) -> None:
    """Refuse what Ray would silently wait for."""
    exists = int(ray.cluster_resources().get(resource, 0))
    if exists < num_workers * each:
        ray.shutdown()
        raise RequestError(
            f"{num_workers} workers with {each} {resource} each need {num_workers * each}, but "
            f"the cluster has {exists}; lower --workers.count or --workers.cpus-each"
        )
