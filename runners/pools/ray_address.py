"""Is there a Ray cluster at an address? Asked before it is joined, since joining waits for minutes.

A name that cannot be one is refused at once, a place where nothing listens within seconds, and one
that listens but is no Ray once `ANSWER_SECONDS` are over.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from urllib.parse import urlsplit

from search.record.redaction import redact
from spaces.errors import RequestError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0

TOKENS = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
NAMED = ("auto", "local")
"""Addresses that are words: the cluster of this machine, and one that is started for the sweep."""


def host_of(address: str) -> str:
    """The host that an address names. Raises `RequestError` where it is none."""
    return _place(address)[0]


def require_cluster(address: str) -> None:
    """Raise `RequestError` where no Ray cluster can be joined at an address; within 30 s."""
    require_listening(address)
    if address != "local":
        _require_answer(address)


def require_listening(address: str) -> None:
    """Raise `RequestError` where an address has no form of one, or nobody listens there; a
    stranger who does is shown nothing."""
    if address not in ("local", "auto"):
        _require_listening(address, *_place(address))


def is_this_machine(host: str) -> bool:
    """Whether a host is one of this machine's own addresses: only those can be bound."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def takes_anybody(address: str) -> bool:
    """Whether a cluster lets this machine join without any token. Asked by another process."""
    environment = {name: value for name, value in os.environ.items() if name not in TOKENS}
    environment |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_gcs_rpc_server_connect_timeout_s": "3",
    }
    try:
        return _join(address, environment).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _place(address: str) -> tuple[str, int]:
    """Host and port. Raises `RequestError`."""
    if address.startswith("ray://"):
        raise RequestError(
            f"{redact(address)} names Ray's client, which cannot run a sweep: its connection ends "
            f"with the head's; name the cluster as HOST:PORT, 6379 unless it was started with "
            f"another"
        )
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.path or "://" in address:
        raise RequestError(
            f"workers.address is auto or HOST:PORT, got {redact(address)!r}; a cluster's port is "
            f"6379 unless it was started with another"
        )
    return host, port


def _require_listening(address: str, host: str, port: int) -> None:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return
    except OSError as error:
        raise _nothing_there(address, error.strerror or str(error)) from None


NO_NODE = 3
"""What the other process returns where Ray has no node on this machine."""

JOINING = f"""
import logging, sys, ray
from ray._private import services
from ray._raylet import GcsClient
GcsClient(address=sys.argv[1]).get_all_node_info(timeout={CONNECT_SECONDS})
if not services.find_node_ids():
    sys.exit({NO_NODE})
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
"""


def _require_answer(address: str) -> None:
    """Let another process join and leave again, since Ray's own wait cannot be cut short."""
    try:
        done = _join(address, None)
    except subprocess.TimeoutExpired:
        why = f"no answer within {ANSWER_SECONDS:g} s (one that wants a token: RAY_AUTH_MODE=token)"
        raise _nothing_there(address, why) from None
    if done.returncode == NO_NODE:
        raise RequestError(
            redact(
                f"Ray joins {address} only through a node on this machine, and none runs here; "
                f"make one that trains nothing: `ray start --address {address} --num-cpus 0 "
                f"--num-gpus 0`"
            )
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise _nothing_there(address, lines[-1])


def _join(address: str, environment: dict[str, str] | None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", JOINING, address],
        capture_output=True,
        text=True,
        timeout=ANSWER_SECONDS,
        env=environment,
    )


def _nothing_there(address: str, why: str) -> RequestError:
    return RequestError(
        redact(
            f"no Ray cluster can be joined at {address}: {why}; start one there (`ray start "
            f"--head`) or correct --workers.address, or leave it out to run on this machine"
        )
    )
