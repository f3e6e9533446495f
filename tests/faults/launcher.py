"""Starts commands in no time: imports everything once, then forks a process per command.

Reads one JSON request per line: ``{"argv", "env", "folder", "inject"}`` forks a process in a
session of its own, which writes ``out`` and ``err`` into the folder, and answers ``{"pid"}``;
``{"poll": pid}`` answers ``{"code"}``, null while it runs.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until the input ends."""
    import runners.mlflow.projection_thread  # noqa: F401

    _import_what_comes_late()
    for line in sys.stdin:
        request = json.loads(line)
        answer = _poll(request["poll"]) if "poll" in request else {"pid": _fork(request)}
        print(json.dumps(answer), flush=True)


def _import_what_comes_late() -> None:
    """Import what torch, Optuna and MLflow import at their first use: seconds each."""
    import optuna.samplers  # noqa: F401
    import torch

    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])


def _poll(pid: int) -> dict[str, int | None]:
    found, status = os.waitpid(pid, os.WNOHANG)
    return {"code": None if found == 0 else os.waitstatus_to_exitcode(status)}


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        folder = Path(request["folder"])
        for number, name in ((0, os.devnull), (1, folder / "out"), (2, folder / "err")):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o644), number)
        os.environ.update(request["env"])
        code = _run(request["argv"], request["inject"])
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(argv: list[str], inject: str | None) -> int:
    from experiments.cli import run

    if inject is not None:
        from tests.faults.injections import install

        install(inject)
    return run(argv)


if __name__ == "__main__":
    main()
