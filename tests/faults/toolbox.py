"""A toy sweep on real text, and commands on it that can be watched, stopped and killed."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runners.text.documents import find_source, read_documents

ROOT = Path(__file__).parents[2]

TOML = """
name = "toy"
trials = 8
arms = ["dual", "standard"]

[budget]
train_flops = [1e9, 2e9]

[text]
source = "text.jsonl"

[axes]
num_loops = [1, 2]
wide_multiplier = [2, 4]
num_layers = [1, 2]
d_model = [16, 32]

[architecture]
head_dim = 16
context_length = 32

[training]
batch_tokens = 256
batch_reference_flops = 1e9
eval_sequences = 16
eval_points = 3
save_weights = true

[search]
sampler = "grid"

[workers]
pool = "inline"
device = "cpu"
count = 1
checkpoint_seconds = 0.05
"""
"""Eight trials of a tenth of a second each; a grid, so that they are the same ones every time."""

TRUNK_TOML = (
    TOML.replace('arms = ["dual", "standard"]', 'arms = ["standard"]')
    .replace("train_flops = [1e9, 2e9]", "train_flops = [1e9, 2e9]\ntrunk = true")
    .replace(
        "batch_tokens = 256",
        'batch_tokens = 256\nbatch_exponent = 0.0\nschedule = "wsd"\nwarmup_tokens = 1024',
    )
    .replace("[search]\n", "[search]\nreplicates_per_budget = 0\n")
    .replace("[workers]", "[tuning]\nlearning_rate_multipliers = []\n\n[workers]")
)
"""Four shapes at two budgets each: all that there are, whichever come first."""


def write_toy(folder: Path, *, toml: str = TOML, num_documents: int = 30) -> Path:
    """The experiment's file, beside the text that it names."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "text.jsonl").open("w") as file:
        for document in first_documents(num_documents):
            file.write(json.dumps({"text": document}) + "\n")
    path = folder / "toy.toml"
    path.write_text(toml)
    return path


def first_documents(number: int) -> list[str]:
    """The beginnings of documents of the default corpus."""
    files = find_source(None).files
    documents = itertools.chain.from_iterable(read_documents(file) for file in files)
    return [
        document[:8000].decode(errors="ignore") for document in itertools.islice(documents, number)
    ]


@dataclass
class Command:
    """A command under way, in a session of its own."""

    launcher: Launcher
    pid: int
    folder: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.code is None:
            self.code = self.launcher.ask(poll=self.pid)["code"]
        return self.code

    def wait(self, timeout_seconds: float = 300.0) -> int:
        """Its exit code, once it has ended."""
        wait_until(lambda: self.poll() is not None, timeout_seconds=timeout_seconds, what="the end")
        assert self.code is not None
        return self.code

    def kill(self) -> None:
        """End the process alone, as the kernel would for want of memory."""
        if self.poll() is None:
            self.signal(signal.SIGKILL)
        self.wait()

    def signal(self, number: int) -> None:
        """Signal the process alone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def signal_terminal(self, number: int) -> None:
        """Signal every process of its session's group, as a terminal's Ctrl-C does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return (self.folder / "err").read_text()


class Launcher:
    """The process that forks commands; see ``launcher.py``."""

    def __init__(self) -> None:
        places = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launcher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self._numbers = itertools.count()

    def ask(self, **request: Any) -> dict[str, Any]:
        """One request, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def start(
        self, *argv: str, folder: Path, inject: str | None = None, env: dict[str, str] | None = None
    ) -> Command:
        """Start a command; its output goes to files under the folder."""
        place = folder / f"command-{os.getpid()}-{next(self._numbers)}"
        place.mkdir(parents=True)
        answer = self.ask(argv=list(argv), env=env or {}, folder=str(place), inject=inject)
        return Command(self, answer["pid"], place)

    def close(self) -> None:
        """End the launcher."""
        with self._process:  # closes its pipes, which ends it
            pass


@dataclass
class Home:
    """One home, the toy sweep of it, and what its commands said."""

    launcher: Launcher
    folder: Path
    toy: Path
    commands: list[Command] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The home."""
        return self.folder / "home"

    @property
    def ledger(self) -> Path:
        """Its ledger's database."""
        return self.path / "ledger.sqlite"

    @property
    def mlflow(self) -> Path:
        """Its MLflow database."""
        return self.path / "mlflow.sqlite"

    def start(
        self,
        *words: str,
        verb: str = "sweep",
        inject: str | None = None,
        env: dict[str, str] | None = None,
    ) -> Command:
        """Start a verb on the toy sweep in this home."""
        argv = [verb, *([] if verb == "doctor" else [str(self.toy)]), "--home", str(self.path)]
        command = self.launcher.start(
            *argv, *words, folder=self.folder / "commands", inject=inject, env=env
        )
        self.commands.append(command)
        return command

    def finish(self, *words: str, env: dict[str, str] | None = None, times: int = 3) -> Command:
        """The same command again until it is done."""
        for _ in range(times):
            command = self.start(*words, env=env)
            if command.wait() == 0:
                return command
        raise AssertionError(f"not done after {times} more commands: {command.err}")

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the ledger, read without any code of the house."""
        return read_rows(self.ledger, query, *values)

    def running_attempt(self) -> tuple[int, str] | None:
        """Process and identity of an attempt that runs and has saved, or None."""
        checkpoints = self.path / "sweeps" / "toy" / "checkpoints"
        if not self.ledger.exists():
            return None
        running = "SELECT pid, config_hash FROM attempts WHERE state = 'running' AND pid"
        try:
            rows = self.rows(running)
        except sqlite3.OperationalError:  # the tables are not there yet
            return None
        found = (row for row in rows if list(checkpoints.glob(f"{row[1]}/step-*")))
        return next(((int(pid), str(identity)) for pid, identity in found), None)

    def acknowledged(self) -> dict[str, tuple[Any, ...]]:
        """Outcomes accepted so far: identity to attempt, text and time."""
        if not self.ledger.exists():
            return {}
        try:
            rows = self.rows(
                "SELECT config_hash, attempt_id, outcome_json, accepted_at FROM outcomes"
            )
        except sqlite3.OperationalError:  # the tables are not there yet
            return {}
        return {row[0]: row[1:] for row in rows}


def read_rows(path: Path, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Rows of a SQLite database."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query, values).fetchall()


def wait_until(
    condition: Callable[[], object], *, timeout_seconds: float = 120.0, what: str = "something"
) -> None:
    """Wait for a condition; fails when it does not come."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come in {timeout_seconds:g} s"
        time.sleep(0.02)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a database's writer, from this process."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        yield
