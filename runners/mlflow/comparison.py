"""Does MLflow show what the ledger has?

Reads only; the remedy is in ``runners/mlflow/projection.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run

from runners.mlflow.run_rows import (
    CURVE_METRICS,
    RUN_STATUS,
    Point,
    configuration_points,
    curve_points,
    evaluation_points,
    outcome_points,
    state_tags,
    trial_params,
)
from search.record.ledger import Ledger, TrialRecord


def find_runs(client: MlflowClient, sweep: str, kind: str) -> list[Run]:
    """Every run of a sweep's experiment that is a ``trial`` or the ``sweep`` itself."""
    experiment = client.get_experiment_by_name(sweep)
    if experiment is None:
        return []
    found: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment.experiment_id],
            filter_string=f"tags.`isoflop.kind` = '{kind}'",
            max_results=1000,
            page_token=token,
        )
        found += page
        token = page.token
        if not token:
            return found


def compare_sweep(ledger: Ledger, sweep: str, *, tracking_uri: str) -> dict[str | None, list[str]]:
    """What differs, by configuration hash; None for what concerns the sweep itself."""
    client = MlflowClient(tracking_uri=tracking_uri)
    runs: dict[str, list[Run]] = {}
    for run in find_runs(client, sweep, "trial"):
        runs.setdefault(run.data.tags["isoflop.config_hash"], []).append(run)
    records = {record.config_hash: record for record in ledger.trials(sweep)}
    found: dict[str | None, list[str]] = {None: _compare_parent(client, sweep)}
    for config_hash in sorted(records | runs):
        record, same = records.get(config_hash), runs.get(config_hash, [])
        if record is None:
            problems = [f"MLflow has {len(same)} runs of a trial that the ledger does not know"]
        elif len(same) != 1:
            problems = [f"one trial is one run, but MLflow has {len(same)}"]
        else:
            problems = compare_run(client, record, same[0])
        if problems:
            found[config_hash] = problems
    return {key: problems for key, problems in found.items() if problems}


def _compare_parent(client: MlflowClient, sweep: str) -> list[str]:
    parents = find_runs(client, sweep, "sweep")
    if len(parents) != 1:
        return [f"a sweep has one run of its own, but MLflow has {len(parents)}"]
    if parents[0].info.status == "RUNNING":
        return ["MLflow shows the sweep as RUNNING"]
    return []


def compare_run(client: MlflowClient, record: TrialRecord, run: Run) -> list[str]:
    """What one run of MLflow shows differently from its record."""
    problems = []
    if run.info.status != RUN_STATUS[record.state]:
        problems.append(f"MLflow shows {run.info.status} for a trial that is {record.state}")
    tags = {key: value for key, value in state_tags(record).items() if value}
    problems += _differing("tag", tags, run.data.tags)
    problems += _differing("parameter", trial_params(record), run.data.params)
    numbers = [
        *configuration_points(record),
        *outcome_points(record),
        *evaluation_points(record),
    ]
    shown = {point.name: run.data.metrics.get(point.name) for point in numbers}
    problems += _differing("metric", {point.name: point.value for point in numbers}, shown)
    if record.outcome is not None:
        problems += _compare_curve(client, run.info.run_id, curve_points(record))
    return problems


def _compare_curve(client: MlflowClient, run_id: str, points: list[Point]) -> list[str]:
    problems = []
    for name in CURVE_METRICS:
        history = client.get_metric_history(run_id, name)
        repeated = [step for step, n in Counter(each.step for each in history).items() if n > 1]
        if repeated:
            problems.append(f"metric {name} has several points at steps {repeated[:5]}")
        wanted = {point.step: point.value for point in points if point.name == name}
        if wanted != {each.step: each.value for each in history}:
            problems.append(f"metric {name} is not the curve of the ledger")
    return problems


def _differing(kind: str, wanted: Mapping[str, object], shown: Mapping[str, object]) -> list[str]:
    names = sorted(name for name, value in wanted.items() if shown.get(name) != value)
    if not names:
        return []
    name = names[0]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"{kind} {name}{more}: MLflow has {shown.get(name)!r}, the ledger {wanted[name]!r}"]
