"""Is there a Ray cluster at an address? Asked before it is joined, since joining waits for minutes.

A name that cannot be one is refused at once, a place where nothing listens within seconds, and one
that listens but is no Ray once `ANSWER_SECONDS` are over.
"""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from urllib.parse import urlsplit

from search.record.redaction import redact
from spaces.errors import RequestError

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0

NAMED = ("auto", "local")
"""Addresses that are words: the cluster of this machine, and one that is started for the sweep."""


def host_of(address: str) -> str:
    """The host that an address names. Raises `RequestError` where it is none."""
    return _place(address)[0]


def require_cluster(address: str) -> None:
    """Raise `RequestError` where no Ray cluster can be joined at an address; within 30 s."""
    if address == "local":
        return
    if address != "auto":
        host_of(address)
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise RequestError(
            f"joining {redact(address)} needs Ray's client, which is not installed here; "
            f"`pip install 'ray[client]'`, or name the cluster as HOST:PORT (port 6379 unless it "
            f"was started with another)"
        )
    if address != "auto":
        _require_listening(address, *_place(address))
    if not address.startswith("ray://"):
        _require_answer(address)


def _place(address: str) -> tuple[str, int]:
    """Host and port. Raises `RequestError`."""
    scheme, separator, rest = address.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port or parts.path or (separator and scheme != "ray"):
        raise RequestError(
            f"workers.address is auto, HOST:PORT or ray://HOST:PORT, got {redact(address)!r}; a "
            f"cluster's port is 6379 (of ray:// 10001) unless it was started with another"
        )
    return host, port


def _require_listening(address: str, host: str, port: int) -> None:
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return
    except OSError as error:
        raise _nothing_there(address, error.strerror or str(error)) from None


JOINING = """
import logging, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.ERROR)
"""


def _require_answer(address: str) -> None:
    """Let another process join and leave again, since Ray's own wait cannot be cut short."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", JOINING, address],
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
        )
    except subprocess.TimeoutExpired:
        why = f"no answer within {ANSWER_SECONDS:g} s (one that wants a token: RAY_AUTH_MODE=token)"
        raise _nothing_there(address, why) from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise _nothing_there(address, lines[-1])


def _nothing_there(address: str, why: str) -> RequestError:
    return RequestError(
        redact(
            f"no Ray cluster can be joined at {address}: {why}; start one there (`ray start "
            f"--head`) or correct --workers.address, or leave it out to run on this machine"
        )
    )
