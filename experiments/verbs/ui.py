"""``isoflop ui``: the MLflow UI of one home, on this machine only."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from experiments import guard
from experiments.cli import EXIT_DONE
from experiments.command import default_home, parse_options, talk
from experiments.verbs.doctor import settle_after_crash
from runners.mlflow.own_origin import NAME as APP_NAME
from runners.mlflow.saved_view import local_tracking_uri
from search.record.homes import require_plain
from spaces.errors import RequestError

HOST = "127.0.0.1"
START_SECONDS = 120.0
"""MLflow's imports take some ten on a slow machine."""


@dataclass(frozen=True)
class UiOptions:
    """Serve the MLflow UI of a home on 127.0.0.1."""

    home: Path = field(default_factory=default_home)
    """Where ledger, MLflow database and artifacts live."""
    port: int = 5000
    """Port on 127.0.0.1; 0 for any that is free."""


class _AskedToEnd(Exception):
    """SIGINT or SIGTERM came."""


def run(argv: list[str]) -> int:
    """Serve until asked to end; nothing of it is left then, nor where this process is killed."""
    options = parse_options(UiOptions, argv, verb="ui")
    require_plain(options.home)
    uri = local_tracking_uri(options.home)
    if not Path(uri.removeprefix("sqlite:///")).exists():
        raise RequestError(
            f"{options.home} holds no MLflow database; run `isoflop sweep` with this --home first"
        )
    if not entry_points(group="mlflow.app", name=APP_NAME):
        raise RequestError(
            "the UI's app is not known to MLflow, since isoflop was installed before it had one; "
            "install it again (`make install`, or pip install --editable .)"
        )
    port = free_port(options.port)
    settle_after_crash(options.home)
    with (
        contextlib.suppress(_AskedToEnd),
        _ending_on_signals(),
        _served(_command(uri, options.home, port)) as server,
    ):
        _wait_until_it_answers(server, port)
        talk(f"MLflow for {options.home} on http://{HOST}:{port} (Ctrl-C ends it)")
        raise RuntimeError(f"MLflow's server ended by itself, exit code {server.wait()}")
    return EXIT_DONE


def free_port(asked: int) -> int:
    """The port that is asked for, 0 being any. Raises `RequestError` where it is not to be had."""
    if not 0 <= asked <= 65535:
        raise RequestError(f"--port lies between 0 and 65535, got {asked}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself does
        try:
            probe.bind((HOST, asked))
        except OSError as error:
            raise RequestError(
                f"port {asked} of {HOST} cannot be served: {error.strerror}; end what serves it, "
                f"or use another --port (0 takes any that is free)"
            ) from None
        return int(probe.getsockname()[1])


def _command(uri: str, home: Path, port: int) -> list[str]:
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", (home.resolve() / "artifacts").as_uri()]
    command += ["--host", HOST, "--port", str(port), "--workers", "1", "--app-name", APP_NAME]
    return [*command, "--allowed-hosts", ",".join(allowed_hosts(port))]


@contextlib.contextmanager
def _served(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The server meanwhile, under its guard."""
    environment = os.environ | {
        "PYTHONWARNINGS": "ignore",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes that nothing here asks for
    }
    environment.pop("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", None)
    guarded = [sys.executable, guard.__file__, *command]
    server = subprocess.Popen(
        guarded, stdin=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert server.stdin is not None
    try:
        yield server
    finally:
        server.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(2 * guard.PATIENCE_SECONDS)
        with contextlib.suppress(ProcessLookupError):  # where the guard itself was killed
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _wait_until_it_answers(server: subprocess.Popen[bytes], port: int) -> None:
    """Raises `RuntimeError` where it ends, or says nothing for long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return
        time.sleep(0.1)
    state = "did not answer" if server.poll() is None else f"ended, exit code {server.poll()}"
    raise RuntimeError(f"MLflow's server {state}; what it said is above")


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end what runs inside."""

    def end(_number: int, _frame: Any) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)  # it is ending
        raise _AskedToEnd

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def allowed_hosts(port: int) -> list[str]:
    """Host headers that are answered: this machine by its own names, nothing else.

    MLflow's default also lets names through that only begin like a private address.
    """
    names = (HOST, "localhost")
    return [*names, *(f"{name}:{port}" for name in names)]
