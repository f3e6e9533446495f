"""The usual stack under the same driver kill: Ray Tune, OptunaSearch and the MLflow callback.

Eight trials of some seconds each, a checkpoint at every step, the driver killed by SIGKILL at a
random moment, then `Tuner.restore` as its documentation asks (unfinished trials go on, failed ones
again), until it ends. Counted by the rules of ``tests/faults/checker.py``: lost, where fewer than
eight trials end complete; duplicated, where a finished trial or a configuration is trained to its
end again, and every MLflow run beyond one per trial; wrong, every run that MLflow shows as RUNNING
afterwards, and every one too few or too many that it shows as FINISHED.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

NUM_TRIALS, NUM_STEPS, STEP_SECONDS = 8, 10, 0.15
NAME = "sweep"


def strike(folder: Path, seed: int) -> dict[str, int]:
    """Kill the driver once, restore until done, and count. Raises `RuntimeError` where the sweep
    was over before the kill."""
    command = [sys.executable, "-W", "ignore", "-m", "experiments.benchmarks.faults.ray_tune_peer"]
    command.append(str(folder))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    driver = subprocess.Popen(command, start_new_session=True, **quiet)  # type: ignore[call-overload]
    _wait_for_first(folder)
    time.sleep(random.Random(seed).uniform(0.0, NUM_TRIALS * NUM_STEPS * STEP_SECONDS / 2))
    driver.send_signal(signal.SIGKILL)
    if driver.wait() != -signal.SIGKILL:
        raise RuntimeError(f"the sweep was over before the kill (exit {driver.returncode})")
    time.sleep(5.0)  # Ray ends the workers of a dead driver
    for _ in range(3):
        if subprocess.run([*command, "--restore"], **quiet).returncode == 0:  # type: ignore[call-overload]
            break
    return _count(folder)


def _wait_for_first(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "events").exists():
        assert time.monotonic() < deadline, "Ray Tune did not start a trial"
        time.sleep(0.05)


def _count(folder: Path) -> dict[str, int]:
    events = [json.loads(line) for line in (folder / "events").read_text().splitlines()]
    done = Counter(event["trial"] for event in events if event["what"] == "done")
    configs = Counter(
        json.dumps(event["config"], sort_keys=True) for event in events if event["what"] == "done"
    )
    database = sqlite3.connect(folder / "mlflow.sqlite")
    with contextlib.closing(database):
        states = [row[0] for row in database.execute("SELECT status FROM runs")]
    trained_again = max(sum(done.values()) - len(done), sum(configs.values()) - len(configs))
    running, finished = states.count("RUNNING"), states.count("FINISHED")
    return {
        "lost": max(0, NUM_TRIALS - len(done)),
        "duplicated": trained_again + max(0, len(states) - NUM_TRIALS),
        "wrong": running + abs(finished - NUM_TRIALS),
    }


def train(config: dict[str, Any]) -> None:
    """A trainable that saves at every step and goes on from what it saved."""
    from ray import tune

    events, checkpoint, step = Path(config["folder"]) / "events", tune.get_checkpoint(), 0
    shown = {key: value for key, value in config.items() if key != "folder"}
    trial = tune.get_context().get_trial_id()
    if checkpoint is not None:
        with checkpoint.as_directory() as place:
            step = int((Path(place) / "step").read_text())
    _note(events, what="start", trial=trial, config=shown)
    while step < NUM_STEPS:
        time.sleep(STEP_SECONDS)
        step += 1
        with tempfile.TemporaryDirectory() as place:
            (Path(place) / "step").write_text(str(step))
            if step == NUM_STEPS:
                _note(events, what="done", trial=trial, config=shown)
            saved = tune.Checkpoint.from_directory(place)
            tune.report({"loss": config["width"] / step, "step": step}, checkpoint=saved)


def _note(events: Path, **event: Any) -> None:
    with events.open("a") as file:
        file.write(json.dumps(event) + "\n")
        file.flush()
        os.fsync(file.fileno())


def drive(folder: Path, *, restore: bool) -> None:
    """Run or restore the sweep."""
    import ray
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.search import ConcurrencyLimiter
    from ray.tune.search.optuna import OptunaSearch

    ray.init(address="local", num_cpus=2, include_dashboard=False)
    if restore:
        tuner = tune.Tuner.restore(
            str(folder / NAME), train, resume_unfinished=True, restart_errored=True
        )
    else:
        uri = f"sqlite:///{folder}/mlflow.sqlite"
        callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name=NAME)
        tuner = tune.Tuner(
            train,
            param_space={"width": tune.uniform(1.0, 9.0), "folder": str(folder)},
            tune_config=tune.TuneConfig(
                num_samples=NUM_TRIALS,
                metric="loss",
                mode="min",
                search_alg=ConcurrencyLimiter(OptunaSearch(seed=0), max_concurrent=2),
            ),
            run_config=tune.RunConfig(name=NAME, storage_path=str(folder), callbacks=[callback]),
        )
    tuner.fit()
    ray.shutdown()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--restore", action="store_true")
    asked = parser.parse_args()
    drive(asked.folder.resolve(), restore=asked.restore)
