"""Is a home, after a fault and the same command again, what it would be without the fault?

One checker for every fault. It reads the databases itself and asks the house's own doctor besides.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.fit.fitting import fit
from analysis.points.sweep_frame import frame_of
from runners.pools.ray_scratch import ray_scratch
from search.record.ledger import Ledger
from tests.faults.toolbox import Home, read_rows

RESULT = ("status", "loss_nats", "bits_per_byte", "train_loss_nats", "steps", "tokens", "readouts")
"""What two trainings of one identity must agree on, bit for bit."""
DEATH_SECONDS = 20.0
"""Within which a killed worker is gone."""
CURVE = ("step", "tokens", "train_flops", "train_loss_nats", "val_loss_nats", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Clean:
    """What a sweep that nothing happened to left."""

    results: dict[str, Any]
    """Identity to result and curve."""
    weights: dict[str, str]
    """Identity to SHA-256 of the weights."""
    fit: dict[str, Any]
    """The law of its records."""


@dataclass(kw_only=True)
class Verdict:
    """What is not as it should be; three empty lists are a pass."""

    lost: list[str] = field(default_factory=list)
    """Results that were asked for or acknowledged, and are not there."""
    duplicated: list[str] = field(default_factory=list)
    """What is there twice, or was done again."""
    wrong: list[str] = field(default_factory=list)
    """What differs from the clean sweep, disagrees, or was left behind."""

    @property
    def problems(self) -> list[str]:
        """All of it."""
        return [
            *(f"lost: {each}" for each in self.lost),
            *(f"duplicated: {each}" for each in self.duplicated),
            *(f"wrong: {each}" for each in self.wrong),
        ]


def take_clean(home: Home) -> Clean:
    """What a finished home holds."""
    return Clean(results=_results(home), weights=_weights(home), fit=_fit(home))


def check(
    home: Home, clean: Clean, acknowledged: dict[str, tuple[Any, ...]], *, doctor: bool = True
) -> Verdict:
    """Compare a finished home with the clean one.

    ``acknowledged`` is what the ledger had accepted when the fault struck.
    """
    verdict = Verdict()
    _check_results(home, clean, verdict)
    _check_acknowledged(home, acknowledged, verdict)
    _check_attempts(home, verdict)
    _check_mlflow(home, verdict)
    _check_leftovers(home, verdict)
    _check_messages(home, verdict)
    if _fit(home) != clean.fit:
        verdict.wrong.append("the fit differs from the clean sweep's")
    if doctor:
        examined = home.start("--json", verb="doctor")
        if examined.wait() != 0:
            verdict.wrong.append(f"doctor: {examined.out}{examined.err}")
    return verdict


def _results(home: Home) -> dict[str, Any]:
    rows = home.rows("SELECT config_hash, outcome_json FROM outcomes")
    found = {}
    for config_hash, text in rows:
        outcome = json.loads(text)
        curve = [{key: point[key] for key in CURVE} for point in outcome["curve"]]
        if (home.path / "sweeps" / "toy" / "trunks").exists():
            curve = curve[-1:]  # a trunk was measured where the trial that paid for it was
        found[config_hash] = {key: outcome[key] for key in RESULT} | {"curve": curve}
    return found


def _weights(home: Home) -> dict[str, str]:
    folder = home.path / "sweeps" / "toy" / "weights"
    return {
        path.stem: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("*.safetensors")
    }


def _fit(home: Home) -> dict[str, Any]:
    ledger = Ledger(home.path)
    frame = frame_of(ledger.trials("toy"))
    ledger.close()
    found = fit("chinchilla", frame, num_resamples=20).to_dict()
    found.pop("seconds", None)
    return found


def _check_results(home: Home, clean: Clean, verdict: Verdict) -> None:
    results, weights = _results(home), _weights(home)
    for config_hash, expected in clean.results.items():
        found = results.get(config_hash)
        if found is None:
            verdict.lost.append(f"{config_hash} has no result")
        elif found != expected:
            keys = [key for key in expected if found[key] != expected[key]]
            verdict.wrong.append(f"{config_hash} differs from the clean sweep in {keys}")
        elif weights.get(config_hash) != clean.weights.get(config_hash):
            verdict.wrong.append(f"{config_hash} has other weights than in the clean sweep")
    verdict.wrong += [f"{each} was never asked for" for each in results.keys() - clean.results]


def _check_acknowledged(
    home: Home, acknowledged: dict[str, tuple[Any, ...]], verdict: Verdict
) -> None:
    now = home.acknowledged()
    for config_hash, before in acknowledged.items():
        if config_hash not in now:
            verdict.lost.append(f"{config_hash} was acknowledged")
        elif now[config_hash] != before:
            verdict.duplicated.append(f"{config_hash} was acknowledged, and accepted again")
        last = home.rows("SELECT max(id) FROM attempts WHERE config_hash = ?", config_hash)[0][0]
        if last != before[0]:
            verdict.duplicated.append(f"{config_hash} was complete, and tried again")


def _check_attempts(home: Home, verdict: Verdict) -> None:
    trials = home.rows("SELECT config_hash, state, proposal_json FROM trials")
    for config_hash, times in Counter(row[0] for row in trials).items():
        if times > 1:
            verdict.duplicated.append(f"{config_hash} is {times} trials")
    ledger = Ledger(home.path)
    for record in ledger.trials("toy"):
        numbers = [attempt.number for attempt in record.attempts]
        if numbers != list(range(1, len(numbers) + 1)):
            verdict.wrong.append(f"{record.config_hash} has attempts {numbers}")
        complete = [attempt for attempt in record.attempts if attempt.state == "complete"]
        if record.state == "complete":
            if len(complete) != 1:
                verdict.duplicated.append(f"{record.config_hash} completed {len(complete)} times")
            spent = sum(attempt.spent_flops for attempt in record.attempts)
            brought = record.outcome.resumed_tokens if record.outcome else 0
            own = (record.proposal.config.tokens - brought) * record.proposal.train_flops_per_token
            if complete and complete[0].spent_flops != own:
                verdict.wrong.append(f"{record.config_hash}: its last attempt's FLOPs are off")
            shared = record.outcome.trunk_tokens if record.outcome else 0
            cost = record.proposal.train_flops - shared * record.proposal.train_flops_per_token
            if len(record.attempts) == 1 and spent != cost:
                verdict.wrong.append(f"{record.config_hash} spent {spent}, not what it cost")
        elif record.state not in ("diverged", "out_of_memory", "failed"):
            verdict.lost.append(f"{record.config_hash} is {record.state}")
    ledger.close()


def _check_mlflow(home: Home, verdict: Verdict) -> None:
    if not home.mlflow.exists():
        verdict.lost.append("MLflow has nothing")
        return
    running = read_rows(home.mlflow, "SELECT name FROM runs WHERE status = 'RUNNING'")
    verdict.wrong += [f"MLflow shows {name} as RUNNING" for (name,) in running]
    experiments = read_rows(home.mlflow, "SELECT name FROM experiments WHERE name = 'toy'")
    if len(experiments) != 1:
        verdict.duplicated.append(f"MLflow has {len(experiments)} experiments")
    runs = read_rows(
        home.mlflow,
        "SELECT t.value, count(*) FROM tags t JOIN runs r ON r.run_uuid = t.run_uuid WHERE "
        "t.key = 'isoflop.config_hash' AND r.lifecycle_stage = 'active' GROUP BY t.value",
    )
    verdict.duplicated += [f"{hash_} is {n} runs in MLflow" for hash_, n in runs if n > 1]
    points = read_rows(
        home.mlflow,
        "SELECT key, step, count(*) FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1",
    )
    verdict.duplicated += [f"{n} points of {key} at step {step}" for key, step, n in points]
    losses = dict(
        read_rows(
            home.mlflow,
            "SELECT t.value, m.value FROM latest_metrics m JOIN tags t ON t.run_uuid = m.run_uuid "
            "JOIN runs r ON r.run_uuid = m.run_uuid WHERE m.key = 'loss_nats' AND "
            "t.key = 'isoflop.config_hash' AND r.lifecycle_stage = 'active'",
        )
    )
    for config_hash, result in _results(home).items():
        if losses.get(config_hash) != result["loss_nats"]:
            verdict.wrong.append(f"{config_hash} has loss {losses.get(config_hash)} in MLflow")


def _check_leftovers(home: Home, verdict: Verdict) -> None:
    verdict.wrong += [f"{path} was left" for path in home.path.rglob("*.partial")]
    checkpoints = home.path / "sweeps" / "toy" / "checkpoints"
    verdict.wrong += [f"{path} was left" for path in checkpoints.glob("*")]
    if ray_scratch(home.path).exists():
        verdict.wrong.append(f"{ray_scratch(home.path)} was left")
    if home.rows("SELECT * FROM lease"):
        verdict.wrong.append("the home's lease was left")
    deadline = time.monotonic() + DEATH_SECONDS
    while (left := processes_of(home.path)) and time.monotonic() < deadline:
        time.sleep(0.1)
    verdict.wrong += [f"process {each} was left" for each in left]


def _check_messages(home: Home, verdict: Verdict) -> None:
    """Every exit that is not zero printed what happened and what to do next."""
    for command in home.commands:
        code = command.poll()
        if code is not None and code not in (0, 137) and code > 0 and "isoflop" not in command.err:
            verdict.wrong.append(f"exit {code} without a word")
        if "Traceback" in command.err:
            verdict.wrong.append(f"a traceback: {command.err[-800:]}")


def processes_of(home: Path) -> list[int]:
    """Processes that name the home on their command line or hold a file of it open."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                files = [os.readlink(each) for each in (entry / "fd").iterdir()]
            except OSError:
                continue
            if str(home) in words or any(each.startswith(f"{home}/") for each in files):
                found.append(int(entry.name))
    return found
