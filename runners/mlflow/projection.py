"""How does MLflow come to show the ledger? The only module that writes to MLflow.

`MlflowProjection.sync` compares the ledger with what MLflow has and sends the difference in
batches: called once or a hundred times, by one process or its successors, every run has one point
per step. `runners/mlflow/projection_thread.py` calls it beside the training.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from runners.mlflow.comparison import compare_sweep, find_runs
from runners.mlflow.database import (
    analyse_database,
    create_database,
    keep_artifacts,
    local_artifacts,
    sqlite_path,
)
from runners.mlflow.description import NOTE_TAG, description
from runners.mlflow.run_rows import (
    CONFIGURATION_FILE,
    EVALUATED,
    OUTCOME_FILE,
    RUN_STATUS,
    Point,
    configuration_points,
    curve_points,
    evaluation_points,
    identity_tags,
    outcome_points,
    run_name,
    state_tags,
    sweep_tags,
    trial_params,
)
from runners.mlflow.saved_view import local_tracking_uri, views
from search.record.crash_points import reach
from search.record.forecasts import flops_in_name
from search.record.ledger import Ledger, SweepRecord, TrialRecord
from search.record.ledger_rows import Face
from search.record.ranking import ranks
from search.record.redaction import redact
from spaces.errors import RequestError

RANK_SECONDS = 20.0
"""A new result moves the ranks of a whole budget: they are sent at most this often."""
BATCH_METRICS, BATCH_PARAMS = 1000, 100
"""MLflow takes so many at once."""
RANK_METRIC = "rank_in_budget"


@dataclass
class _Sent:
    """What one run of MLflow has already."""

    run_id: str
    name: str
    status: str
    tags: dict[str, str]
    is_configured: bool
    rank: int | None = None
    rank_step: int | None = None
    """Step of the last rank; None until it is looked up."""
    losses: dict[int, float | None] | None = None
    """Training loss by step, of the points of the curve; None until it is looked up."""


class MlflowProjection:
    """Sends one sweep of one ledger to MLflow; after an error, make a new one."""

    def __init__(
        self, ledger: Ledger, sweep: str, *, tracking_uri: str, copy_as: str | None = None
    ) -> None:
        """Open the tracking store and find or make the sweep's experiment and parent run.

        ``copy_as`` names the experiment in a store that is a copy: the ledger, which goes on to say
        where the sweep itself lies, is only read. Raises `RequestError` where that experiment is of
        another home.
        """
        self._ledger = ledger
        self._sweep = sweep
        self._copy_as = copy_as
        self.num_started = 0
        """Runs that MLflow did not have."""
        self._uri = tracking_uri
        self._database = sqlite_path(tracking_uri)
        self._is_local = tracking_uri == local_tracking_uri(ledger.home)
        if self._database is not None:
            create_database(self._database)
        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._experiment_id = self._find_experiment()
        self._runs: dict[str, _Sent] = {}
        self._adopt_runs()
        self._parent_id = self._find_parent()
        self._keep_views()
        self._records: dict[str, TrialRecord] = {}
        self._faces: dict[str, Face] = {}
        self._num_changes: int | None = None
        self._ranks: dict[str, int] = {}
        self._ranked_at = 0.0
        self._has_new_ranks = False
        if copy_as is None:
            self._record_place()

    @property
    def num_runs(self) -> int:
        """Runs of trials that MLflow has."""
        return len(self._runs)

    def sync(self, *, with_ranks: bool = False) -> None:
        """Send what MLflow does not have yet; the ranks only from time to time, or if asked."""
        changed = self._read_changes()
        if with_ranks or time.monotonic() - self._ranked_at > RANK_SECONDS:
            changed |= self._rank_again()
        for config_hash in sorted(changed, key=lambda each: self._records[each].number):
            record = self._records[config_hash]
            self._send(record, self._ranks.get(config_hash))
            run_id = self._runs[config_hash].run_id
            self._records[config_hash] = replace(record, mlflow_run_id=run_id)

    def _read_changes(self) -> set[str]:
        """Read the trials that changed since they were last read; which. Costs nothing where the
        ledger, which nobody else writes to meanwhile, wrote nothing."""
        count = self._ledger.num_changes
        if count == self._num_changes:
            return set()
        faces = self._ledger.faces(self._sweep)
        changed = [each for each, face in faces.items() if self._faces.get(each) != face]
        for record in self._ledger.trials(self._sweep, only=changed):
            self._records[record.config_hash] = record
        self._faces, self._num_changes = faces, count
        self._has_new_ranks = self._has_new_ranks or bool(changed)
        return set(changed)

    def _rank_again(self) -> set[str]:
        """Rank the results anew if any trial changed; the trials whose rank did."""
        if not self._has_new_ranks:
            return set()
        before, self._ranks = self._ranks, ranks(list(self._records.values()))
        self._ranked_at, self._has_new_ranks = time.monotonic(), False
        return {each for each, rank in self._ranks.items() if before.get(each) != rank}

    def finish(self, *, interrupted: bool) -> None:
        """Send everything, close the parent run, and leave a local database quick to read."""
        self.sync(with_ranks=True)
        reach("before mlflow end")
        self._client.set_terminated(self._parent_id, "KILLED" if interrupted else "FINISHED")
        reach("after mlflow end")
        if self._database is not None:
            analyse_database(self._database)

    def _find_experiment(self) -> str:
        name = self._copy_as or self._sweep
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            if found.lifecycle_stage == "deleted":
                self._client.restore_experiment(found.experiment_id)
            if self._is_local:
                keep_artifacts(self._ledger.home, found)
            return str(found.experiment_id)
        identity = self._client.create_experiment(name, artifact_location=self._artifacts())
        return str(identity)

    def _artifacts(self) -> str | None:
        """Where files of the sweep go: into the home, of a copy beside its database; where there is
        a server, it knows."""
        if self._database is None:
            return None
        is_copy = self._copy_as is not None
        return local_artifacts(self._database.parent if is_copy else self._ledger.home)

    def _adopt_runs(self) -> None:
        """Runs that an earlier projection made; of two for one trial the older stays."""
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment_id],
                filter_string="tags.`isoflop.kind` = 'trial'",
                order_by=["attributes.start_time ASC"],
                max_results=1000,
                page_token=token,
            )
            for run in page:
                config_hash = run.data.tags["isoflop.config_hash"]
                if config_hash in self._runs:
                    self._client.delete_run(run.info.run_id)
                else:
                    self._runs[config_hash] = _adopt(run)
            token = page.token
            if not token:
                return

    def _history(self, run_id: str, metric: str) -> dict[int, float]:
        history = self._client.get_metric_history(run_id, metric)
        return {point.step: point.value for point in history}

    def _find_parent(self) -> str:
        runs = self._client.search_runs(
            [self._experiment_id], filter_string="tags.`isoflop.kind` = 'sweep'", max_results=1
        )
        sweep = self._ledger.sweep(self._sweep)
        began = int(sweep.created_at * 1000)
        if runs:
            self._require_own(runs[0], began)
            run_id = str(runs[0].info.run_id)
            self._client.update_run(run_id, status="RUNNING")
        else:
            run = self._client.create_run(
                self._experiment_id,
                start_time=began,
                run_name=self._sweep,
                tags={"isoflop.kind": "sweep", "isoflop.sweep": self._sweep},
            )
            run_id = str(run.info.run_id)
        for key, value in sweep_tags(sweep).items():
            self._client.set_tag(run_id, key, value)
        asked = json.loads(sweep.experiment_json)
        self._client.log_dict(run_id, asked, "experiment.json")
        if not runs or NOTE_TAG not in runs[0].data.tags:  # a person's own words stay
            self._client.set_tag(run_id, NOTE_TAG, description(self._sweep, asked))
        return run_id

    def _keep_views(self) -> None:
        """The saved views that the experiment lacks: one over all budgets, and one of each."""
        asked = json.loads(self._ledger.sweep(self._sweep).experiment_json)
        there = self._client.get_experiment(self._experiment_id).tags
        for key, view in views(self._sweep, asked["budget"]["train_flops"]).items():
            if key not in there:
                self._client.set_experiment_tag(self._experiment_id, key, view)

    def _require_own(self, parent: Run, began: int) -> None:
        """Raises `RequestError` where a copy would mix with the sweep of another home."""
        if self._copy_as is not None and parent.info.start_time != began:
            raise RequestError(
                f"{redact(self._uri)} has an experiment {self._copy_as!r} of another home (another "
                f"sweep began there); keep them apart with --prefix"
            )

    def _record_place(self) -> None:
        """Write into the ledger where the sweep lies, unless it says so already."""
        uri = None if self._is_local else redact(self._uri)
        place = (uri, self._experiment_id, self._parent_id)
        sweep = self._ledger.sweep(self._sweep)
        if place != (sweep.tracking_uri, sweep.mlflow_experiment_id, sweep.mlflow_run_id):
            self._ledger.record_projection(
                self._sweep,
                tracking_uri=uri,
                experiment=self._experiment_id,
                run=self._parent_id,
            )

    def _run_of(self, record: TrialRecord) -> _Sent:
        sent = self._runs.get(record.config_hash)
        if sent is not None and self._is_outdated(sent, record):
            self._client.delete_run(sent.run_id)  # a point that MLflow has cannot be taken back
            sent = None
        if sent is None:
            sent = self._runs[record.config_hash] = self._start_run(record)
        if self._copy_as is None and record.mlflow_run_id != sent.run_id:
            self._ledger.record_run(self._sweep, record.config_hash, sent.run_id)
        return sent

    def _is_outdated(self, sent: _Sent, record: TrialRecord) -> bool:
        """Whether a run shows what is true no more: a failure that got another try, or points that
        a later attempt has trained again and otherwise (on a GPU)."""
        outcome = sent.tags.get("isoflop.outcome")
        if outcome is not None and (record.outcome is None or outcome != record.outcome.status):
            return True
        if sent.losses is None and record.curve:
            sent.losses = dict(self._history(sent.run_id, "train_loss_nats"))
        was = sent.losses or {}
        return any(was.get(p.step, p.train_loss_nats) != p.train_loss_nats for p in record.curve)

    def _start_run(self, record: TrialRecord) -> _Sent:
        began = record.attempts[0].started_at if record.attempts else record.created_at
        tags = identity_tags(self._ledger.sweep(self._sweep), record)
        reach("before mlflow run")
        run = self._client.create_run(
            self._experiment_id,
            start_time=int((began or time.time()) * 1000),
            run_name=run_name(record),
            tags=tags | {"mlflow.parentRunId": self._parent_id},
        )
        reach("after mlflow run")
        self.num_started += 1
        run_id = str(run.info.run_id)
        return _Sent(
            run_id=run_id,
            name=run_name(record),
            status=run.info.status,
            tags=tags,
            is_configured=False,
            losses={},
        )

    def _send(self, record: TrialRecord, rank: int | None) -> None:
        """Everything of one trial that its run lacks."""
        sent = self._run_of(record)
        if sent.name != run_name(record):  # of an earlier release
            sent.name = run_name(record)
            self._client.update_run(sent.run_id, name=sent.name)
        if not sent.is_configured:
            self._client.log_dict(sent.run_id, asdict(record.proposal), CONFIGURATION_FILE)
            self._log_points(sent, configuration_points(record))
            self._log_params(sent, trial_params(record))
            sent.is_configured = True
        self._send_curve(sent, record)
        if record.outcome is not None and "isoflop.outcome" not in sent.tags:
            self._client.log_dict(sent.run_id, asdict(record.outcome), OUTCOME_FILE)
            self._log_points(sent, outcome_points(record))
        self._send_rank(sent, rank)
        tags = state_tags(record)
        if sent.tags.get(EVALUATED) != tags.get(EVALUATED):
            self._log_points(sent, evaluation_points(record))
        self._send_tags(sent, tags)
        self._send_status(sent, record)

    def _send_curve(self, sent: _Sent, record: TrialRecord) -> None:
        if not record.curve:
            return
        assert sent.losses is not None, "looked up with the run"
        new = [point for point in curve_points(record) if point.step not in sent.losses]
        if new:
            self._log_points(sent, new)
            sent.losses |= {point.step: point.train_loss_nats for point in record.curve}

    def _send_rank(self, sent: _Sent, rank: int | None) -> None:
        if rank is None or rank == sent.rank:
            return
        if sent.rank_step is None:
            sent.rank_step = max(self._history(sent.run_id, RANK_METRIC), default=-1)
        step, now = sent.rank_step + 1, int(time.time() * 1000)
        point = Point(name=RANK_METRIC, value=float(rank), step=step, milliseconds=now)
        self._log_points(sent, [point])
        sent.rank, sent.rank_step = rank, step

    def _log_points(self, sent: _Sent, points: Sequence[Point]) -> None:
        for batch in _batches(points):
            metrics = [Metric(p.name, p.value, p.milliseconds, p.step) for p in batch]
            reach("before mlflow batch")
            self._client.log_batch(sent.run_id, metrics=metrics)
            reach("after mlflow batch")

    def _log_params(self, sent: _Sent, values: Mapping[str, str]) -> None:
        params = [Param(key, value) for key, value in values.items()]
        for start in range(0, len(params), BATCH_PARAMS):
            self._client.log_batch(sent.run_id, params=params[start : start + BATCH_PARAMS])

    def _send_tags(self, sent: _Sent, tags: Mapping[str, str]) -> None:
        new = {key: value for key, value in tags.items() if sent.tags.get(key, "") != value}
        if new:
            self._client.log_batch(sent.run_id, tags=[RunTag(k, v) for k, v in new.items()])
            sent.tags |= new

    def _send_status(self, sent: _Sent, record: TrialRecord) -> None:
        status = RUN_STATUS[record.state]
        if status == sent.status:
            return
        if status in ("RUNNING", "SCHEDULED"):
            self._client.update_run(sent.run_id, status=status)
        else:
            ended = record.accepted_at
            if ended is None and record.attempts:
                ended = record.attempts[-1].ended_at
            ended_at = int((ended or time.time()) * 1000)
            self._client.set_terminated(sent.run_id, status, ended_at)
        sent.status = status


def rebuild_sweep(ledger: Ledger, sweep: str, *, tracking_uri: str) -> int:
    """Delete a sweep's runs that differ from the ledger and send them again; how many."""
    database = sqlite_path(tracking_uri)
    if database is not None:
        create_database(database)
    client = MlflowClient(tracking_uri=tracking_uri)
    differing = compare_sweep(ledger, sweep, tracking_uri=tracking_uri)
    for run in find_runs(client, sweep, "trial"):
        if run.data.tags["isoflop.config_hash"] in differing:
            client.delete_run(run.info.run_id)
    records = ledger.trials(sweep)
    unfinished = any(record.outcome is None for record in records)
    MlflowProjection(ledger, sweep, tracking_uri=tracking_uri).finish(interrupted=unfinished)
    return len(differing.keys() - {None})


def log_fit(
    home: Path, sweep: SweepRecord, document: Mapping[str, Any], figures: Sequence[Path]
) -> str | None:
    """A fit's document, figures and accepted parameters on the sweep's own run; what went wrong, or
    None."""
    metrics = fit_metrics(document)
    return _log_on_sweep(home, sweep, {"fit/fit.json": document}, figures, metrics)


def log_confirmations(
    home: Path, sweep: SweepRecord, confirmations: Sequence[Mapping[str, Any]]
) -> str | None:
    """Every forecast of a sweep, and what tested it, on the sweep's own run; what went wrong, or
    None."""
    documents = {
        f"confirm/{flops_in_name(each['train_flops'])}-{each['family']}.json": each
        for each in confirmations
    }
    metrics = {name: value for each in confirmations for name, value in _misses(each).items()}
    return _log_on_sweep(home, sweep, documents, (), metrics)


def log_report(home: Path, sweep: SweepRecord, files: Sequence[Path]) -> str | None:
    """A report's page, figures and experiment on the sweep's own run; what went wrong, or None."""
    return _log_on_sweep(home, sweep, {}, files, {}, place="report")


def _misses(confirmation: Mapping[str, Any]) -> dict[str, float]:
    """What was predicted and measured of one forecast, as far as it is there."""
    prefix = f"confirm.{flops_in_name(confirmation['train_flops'])}.{confirmation['family']}"
    low, high = confirmation["run_interval_nats"]
    values = {
        "predicted_loss_nats": confirmation["predicted_loss_nats"],
        "predicted_loss_nats.low": low,
        "predicted_loss_nats.high": high,
        "mean_loss_nats": confirmation["mean_loss_nats"],
        "miss_nats": confirmation["miss_nats"],
        "seed_spread_nats": confirmation["seed_spread_nats"],
    }
    return {f"{prefix}.{n}": float(v) for n, v in values.items() if v is not None}


def _log_on_sweep(
    home: Path,
    sweep: SweepRecord,
    documents: Mapping[str, Mapping[str, Any]],
    files: Sequence[Path],
    values: Mapping[str, float],
    *,
    place: str = "fit",
) -> str | None:
    """Documents by their place, files into one place, and numbers, on a sweep's own run.

    Returns what went wrong, or None; a result is one whether MLflow has it or not.
    """
    run_id, uri = sweep.mlflow_run_id, sweep.tracking_uri or local_tracking_uri(home)
    database = sqlite_path(uri)
    if run_id is None or (database is not None and not database.exists()):
        return "the sweep is not in MLflow yet; run it again with MLflow reachable"
    now = int(time.time() * 1000)
    try:
        client = MlflowClient(tracking_uri=uri)
        if sweep.tracking_uri is None:
            keep_artifacts(home, client.get_experiment(sweep.mlflow_experiment_id))
        for name, document in documents.items():
            client.log_dict(run_id, dict(document), name)
        for file in files:
            client.log_artifact(run_id, str(file), place)
        metrics = [Metric(name, value, now, 0) for name, value in values.items()]
        if metrics:
            client.log_batch(run_id, metrics=metrics)
    except (MlflowException, OSError, sqlite3.Error) as error:
        return f"{redact(uri)}: {str(error).splitlines()[0]}"
    return None


def fit_metrics(document: Mapping[str, Any]) -> dict[str, float]:
    """Parameters that a sweep's fit does not refuse, by arm and law, with their intervals."""
    laws = {f"fit.{arm}": laws["surface"] for arm, laws in document["arms"].items()}
    laws |= {f"fit.{arm}.isoflop": laws["isoflop"] for arm, laws in document["arms"].items()}
    laws["fit.compute_capacity"] = document["compute_capacity"] or {"parameters": {}}
    found = {}
    for prefix, law in laws.items():
        for name, value in law["parameters"].items():
            if value is None:
                continue
            found[f"{prefix}.{name}"] = float(value)
            interval = law["intervals"].get(name)
            if interval is not None:
                found[f"{prefix}.{name}.low"] = float(interval[0])
                found[f"{prefix}.{name}.high"] = float(interval[1])
    for trend in document.get("arm_trends", ()):
        found |= trend_metrics(trend)
    return found


def trend_metrics(trend: Mapping[str, Any]) -> dict[str, float]:
    """How the gap of two arms moves with compute, and where it is zero, as far as that is told."""
    prefix = f"gap.{trend['one']}.{trend['other']}"
    low, high = trend["slope_interval"] or (None, None)
    crossing = trend["crossing"] or {}
    values = {
        "slope_nats_per_ln_flops": trend["slope_nats_per_ln_flops"],
        "slope_nats_per_ln_flops.low": low,
        "slope_nats_per_ln_flops.high": high,
        "crossing_train_flops": crossing.get("train_flops"),
        "crossing_train_flops.low": crossing.get("not_before"),
        "crossing_train_flops.high": crossing.get("not_after"),
    }
    return {f"{prefix}.{n}": float(v) for n, v in values.items() if v is not None}


def _adopt(run: Run) -> _Sent:
    rank = run.data.metrics.get(RANK_METRIC)
    return _Sent(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        tags=dict(run.data.tags),
        is_configured=bool(run.data.params),
        rank=None if rank is None else int(rank),
    )


def _batches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Points in their order, as many at once as MLflow takes; those of one step together."""
    batch: list[Point] = []
    for _, group in groupby(points, key=lambda point: point.step):
        step = list(group)
        if batch and len(batch) + len(step) > BATCH_METRICS:
            yield batch
            batch = []
        batch += step
    if batch:
        yield batch
