"""What does MLflow show? A projection of the ledger; the only module that writes to MLflow.

`sync` compares the ledger with what MLflow has and sends the difference in batches: called once or
a hundred times, every run has one point per step. `ProjectionThread` calls it beside the training,
which never waits for MLflow.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from runners.mlflow_view import BEST_VIEW_KEY, best_view, local_tracking_uri
from search.ledger import Ledger, SweepRecord, TrialRecord
from search.results import configuration_numbers, outcome_numbers, ranks
from search.trial import TrialState

logging.getLogger("mlflow").setLevel(logging.WARNING)

SYNC_SECONDS = 2.0
BATCH_METRICS, BATCH_PARAMS = 1000, 100

RUN_STATUS: dict[TrialState, str] = {
    "queued": "SCHEDULED",
    "running": "RUNNING",
    "preempted": "KILLED",
    "complete": "FINISHED",
    "reused": "FINISHED",
    "diverged": "FAILED",
    "out_of_memory": "FAILED",
    "failed": "FAILED",
    "pruned": "KILLED",
}
"""How MLflow shows the state of a trial."""


class MlflowProjection:
    """Sends one sweep of one ledger to MLflow."""

    def __init__(self, ledger: Ledger, sweep: str, *, tracking_uri: str) -> None:
        """Open the tracking store and find or make the sweep's experiment and parent run."""
        self._ledger = ledger
        self._sweep = sweep
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._experiment_id = self._find_experiment(tracking_uri)
        self._runs: dict[str, str] = {}
        self._last_step: dict[str, int] = {}
        self._shown: dict[str, tuple[Any, ...]] = {}
        self._adopt_runs()
        self._parent_id = self._find_parent()
        ledger.record_projection(
            sweep, tracking_uri=tracking_uri, experiment=self._experiment_id, run=self._parent_id
        )

    def sync(self) -> None:
        """Send what MLflow does not have yet."""
        records = self._ledger.trials(self._sweep)
        rank = ranks(records)
        for record in records:
            face = _face(record, rank.get(record.config_hash))
            if self._shown.get(record.config_hash) != face:
                self._send(record, rank.get(record.config_hash), len(rank))
                self._shown[record.config_hash] = face

    def finish(self, *, interrupted: bool) -> None:
        """Everything is sent: close the parent run."""
        self.sync()
        self._client.set_terminated(self._parent_id, "KILLED" if interrupted else "FINISHED")

    def log_fit(self, document: Mapping[str, Any], figures: list[Path]) -> None:
        """A fit's document and figures, on the sweep's own run."""
        self._client.log_dict(self._parent_id, dict(document), "fit/fit.json")
        for figure in figures:
            self._client.log_artifact(self._parent_id, str(figure), "fit")

    def _find_experiment(self, tracking_uri: str) -> str:
        found = self._client.get_experiment_by_name(self._sweep)
        if found is not None:
            return str(found.experiment_id)
        local = tracking_uri == local_tracking_uri(self._ledger.home)
        artifacts = (self._ledger.home.resolve() / "artifacts").as_uri() if local else None
        identity = self._client.create_experiment(self._sweep, artifact_location=artifacts)
        key, view = best_view(self._sweep)
        self._client.set_experiment_tag(identity, key, view)
        return str(identity)

    def _adopt_runs(self) -> None:
        """Runs that an earlier process made, and the last step each one has."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                filter_string="tags.`isoflop.kind` = 'trial'",
                max_results=1000,
                page_token=token,
            )
            for run in page:
                self._runs[run.data.tags["isoflop.config_hash"]] = run.info.run_id
                self._last_step[run.info.run_id] = self._last_sent(run)
            token = page.token
            if not token:
                return

    def _last_sent(self, run: Run) -> int:
        history = self._client.get_metric_history(run.info.run_id, "learning_rate")
        return max((point.step for point in history), default=-1)

    def _find_parent(self) -> str:
        runs = self._client.search_runs(
            [self._experiment_id], filter_string="tags.`isoflop.kind` = 'sweep'", max_results=1
        )
        sweep = self._ledger.sweep(self._sweep)
        if runs:
            run_id = str(runs[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
        else:
            run = self._client.create_run(
                self._experiment_id,
                start_time=int(sweep.created_at * 1000),
                run_name=self._sweep,
                tags={"isoflop.kind": "sweep", "isoflop.sweep": self._sweep},
            )
            run_id = str(run.info.run_id)
        for key, value in _sweep_tags(sweep).items():
            self._client.set_tag(run_id, key, value)
        self._client.log_dict(run_id, json.loads(sweep.experiment_json), "experiment.json")
        return run_id

    def _run_of(self, record: TrialRecord) -> str:
        known = self._runs.get(record.config_hash)
        if known is None:
            known = self._start_run(record)
            self._runs[record.config_hash] = known
            self._last_step[known] = -1
        if record.mlflow_run_id != known:
            self._ledger.record_run(self._sweep, record.config_hash, known)
        return known

    def _start_run(self, record: TrialRecord) -> str:
        started = record.attempts[0].started_at if record.attempts else time.time()
        proposal = record.proposal
        run = self._client.create_run(
            self._experiment_id,
            start_time=int(started * 1000),
            run_name=f"{proposal.arm}-{record.number:03d}",
            tags={
                "mlflow.parentRunId": self._parent_id,
                "isoflop.kind": "trial",
                "isoflop.sweep": self._sweep,
                "isoflop.config_hash": record.config_hash,
                "isoflop.arm": proposal.arm,
                "isoflop.budget": f"{proposal.budget.train_flops:.3g}",
                "isoflop.convention": proposal.budget.convention,
                "isoflop.purpose": proposal.purpose,
                "isoflop.text_fingerprint": proposal.config.text_fingerprint,
            },
        )
        return str(run.info.run_id)

    def _send(self, record: TrialRecord, rank: int | None, num_ranked: int) -> None:
        """Everything of one trial that its run lacks."""
        is_new = record.config_hash not in self._runs
        run_id = self._run_of(record)
        now = int(time.time() * 1000)
        metrics = self._new_points(record, run_id)
        params: list[Param] = []
        if is_new:
            params = [Param(key, value) for key, value in flat_params(record).items()]
            metrics += _metrics(configuration_numbers(record), step=0, timestamp=now)
            self._client.log_dict(run_id, asdict(record.proposal), "trial.json")
        if record.outcome is not None and not self._has_outcome(run_id):
            ended = int((record.accepted_at or time.time()) * 1000)
            metrics += _metrics(outcome_numbers(record), step=record.outcome.steps, timestamp=ended)
            self._client.log_dict(run_id, asdict(record.outcome), "outcome.json")
        if rank is not None:
            metrics.append(Metric("rank_in_budget", float(rank), now, num_ranked))
        self._log(run_id, metrics, params, _trial_tags(record))
        self._set_status(run_id, record)

    def _has_outcome(self, run_id: str) -> bool:
        return "isoflop.outcome" in self._client.get_run(run_id).data.tags

    def _new_points(self, record: TrialRecord, run_id: str) -> list[Metric]:
        metrics = []
        for point in record.curve:
            if point.step <= self._last_step[run_id]:
                continue
            timestamp = int(time.time() * 1000)
            for name in ("train_loss_nats", "val_loss_nats", "learning_rate"):
                value = getattr(point, name)
                if value is not None:
                    metrics.append(Metric(name, float(value), timestamp, point.step))
            self._last_step[run_id] = point.step
        return metrics

    def _log(
        self, run_id: str, metrics: list[Metric], params: list[Param], tags: dict[str, str]
    ) -> None:
        for start in range(0, len(params), BATCH_PARAMS):
            self._client.log_batch(run_id, params=params[start : start + BATCH_PARAMS])
        for start in range(0, len(metrics), BATCH_METRICS):
            self._client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])
        self._client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def _set_status(self, run_id: str, record: TrialRecord) -> None:
        status = RUN_STATUS[record.state]
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(run_id, status=status)
        else:
            ended = record.accepted_at
            if ended is None and record.attempts:
                ended = record.attempts[-1].ended_at
            self._client.set_terminated(run_id, status, int((ended or time.time()) * 1000))


class ProjectionThread:
    """Keeps MLflow up to date beside a sweep; the sweep never waits for it until its end."""

    def __init__(self, home: Path, sweep: str, *, tracking_uri: str) -> None:
        self._home, self._sweep, self._uri = home, sweep, tracking_uri
        self._over = threading.Event()
        self._interrupted = False
        self.problem: str | None = None
        """What went wrong last, if the last try failed."""
        self._thread = threading.Thread(target=self._work, name="mlflow-projection", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, *, interrupted: bool, timeout_seconds: float) -> str | None:
        """Send the rest; what went wrong, or None when MLflow has everything."""
        self._interrupted = interrupted
        self._over.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            return f"MLflow did not answer within {timeout_seconds:g} s"
        return self.problem

    def _work(self) -> None:
        ledger = Ledger(self._home)
        projection: MlflowProjection | None = None
        last = False
        while not last:
            last = self._over.wait(SYNC_SECONDS)
            try:
                if projection is None:
                    projection = MlflowProjection(ledger, self._sweep, tracking_uri=self._uri)
                if last:
                    projection.finish(interrupted=self._interrupted)
                else:
                    projection.sync()
                self.problem = None
            except (MlflowException, OSError) as error:
                self.problem = f"MLflow at {self._uri}: {error}"
        ledger.close()


def flat_params(record: TrialRecord) -> dict[str, str]:
    """The configuration as flat strings, keys as in the record."""
    config = asdict(record.proposal.config)
    flat: dict[str, str] = {"arm": record.proposal.arm, "purpose": record.proposal.purpose}
    flat |= {f"axis.{name}": str(value) for name, value in record.proposal.axes.items()}
    for part in ("architecture", "training"):
        values = config.pop(part)
        flat |= {f"{part}.{key}": str(value) for key, value in values.items() if value is not None}
    return flat | {key: str(value) for key, value in config.items()}


def _face(record: TrialRecord, rank: int | None) -> tuple[Any, ...]:
    """What MLflow shows of a record: when it changes there is something to send."""
    return (record.state, record.set_aside, len(record.curve), record.accepted_at, rank)


def _trial_tags(record: TrialRecord) -> dict[str, str]:
    tags = {
        "isoflop.state": record.state,
        "isoflop.result": str(record.is_result).lower(),
        "isoflop.attempts": str(len(record.attempts)),
    }
    if record.set_aside is not None:
        tags["isoflop.set_aside"] = record.set_aside
    if record.outcome is not None:
        tags["isoflop.outcome"] = record.outcome.status
        if record.outcome.reason:
            tags["isoflop.reason"] = record.outcome.reason
    return tags


def _sweep_tags(sweep: SweepRecord) -> dict[str, str]:
    return {
        "isoflop.text_fingerprint": sweep.text_fingerprint,
        "isoflop.code_version": sweep.code_version,
        "isoflop.best_view": BEST_VIEW_KEY,
    }


def _metrics(numbers: Mapping[str, float], *, step: int, timestamp: int) -> list[Metric]:
    return [Metric(name, value, timestamp, step) for name, value in numbers.items()]
