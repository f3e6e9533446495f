"""``isoflop ui``: the MLflow UI of one home, on this machine only."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from experiments.command import default_home, parse_options, talk
from experiments.verbs.doctor import settle_after_crash
from runners.mlflow.saved_view import local_tracking_uri
from spaces.errors import RequestError


@dataclass(frozen=True)
class UiOptions:
    """Serve the MLflow UI of a home on 127.0.0.1."""

    home: Path = field(default_factory=default_home)
    """Where ledger, MLflow database and artifacts live."""
    port: int = 5000
    """Port on 127.0.0.1."""


def run(argv: list[str]) -> int:
    """Become the MLflow server."""
    options = parse_options(UiOptions, argv, verb="ui")
    uri = local_tracking_uri(options.home)
    if not Path(uri.removeprefix("sqlite:///")).exists():
        raise RequestError(
            f"{options.home} holds no MLflow database; run `isoflop sweep` with this --home first"
        )
    settle_after_crash(options.home)
    talk(f"MLflow for {options.home} on http://127.0.0.1:{options.port} (Ctrl-C ends it)")
    sys.stdout.flush()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", (options.home.resolve() / "artifacts").as_uri()]
    command += ["--host", "127.0.0.1", "--port", str(options.port), "--workers", "1"]
    command += ["--allowed-hosts", ",".join(allowed_hosts(options.port))]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    environment.pop("MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", None)
    os.execve(sys.executable, command, environment)


def allowed_hosts(port: int) -> list[str]:
    """Host headers that are answered: this machine by its own names, nothing else.

    MLflow's default also lets names through that only begin like a private address.
    """
    names = ("127.0.0.1", "localhost")
    return [*names, *(f"{name}:{port}" for name in names)]
