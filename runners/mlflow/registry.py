"""How does a sweep's champion get into MLflow's model registry? As a version with its lineage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from runners.mlflow.run_rows import identity_tags
from runners.mlflow.saved_view import local_tracking_uri
from search.record.numbers import evaluation_numbers, outcome_numbers
from search.record.trial_records import SweepRecord, TrialRecord
from spaces.errors import RequestError

ARTIFACT_FOLDER = "hf"
"""Of the champion's run: the exported folder."""


@dataclass(frozen=True, kw_only=True)
class Registered:
    """A version of a registered model."""

    name: str
    """The sweep's."""
    version: str
    alias: str
    run_id: str
    """The champion's run in MLflow."""
    is_new: bool
    """Whether it was not registered before."""


def register_champion(
    home: Path, sweep: SweepRecord, record: TrialRecord, folder: Path, *, alias: str
) -> Registered:
    """Put an exported folder on its run and register it under the sweep's name; the alias points
    to it from then on. The same run is registered once.

    Raises `RequestError` where the sweep is not in MLflow.
    """
    run_id = record.mlflow_run_id
    if run_id is None:
        raise RequestError(
            f"{sweep.name} is not in MLflow yet; run it again with MLflow reachable, or see "
            f"`isoflop doctor`"
        )
    uri = sweep.tracking_uri or local_tracking_uri(home)
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = _version_of(client, sweep.name, record.config_hash)
    is_new = version is None
    if version is None:
        client.log_artifacts(run_id, str(folder), ARTIFACT_FOLDER)
        _make_model(client, sweep.name)
        source = f"{client.get_run(run_id).info.artifact_uri}/{ARTIFACT_FOLDER}"
        made = client.create_model_version(sweep.name, source, run_id, tags=_lineage(sweep, record))
        version = str(made.version)
    client.set_registered_model_alias(sweep.name, alias, version)
    return Registered(name=sweep.name, version=version, alias=alias, run_id=run_id, is_new=is_new)


def _make_model(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(name)


def _version_of(client: MlflowClient, name: str, config_hash: str) -> str | None:
    """The version of that trial, if it was registered."""
    for each in client.search_model_versions(f"name = '{name}'"):
        if each.tags.get("isoflop.config_hash") == config_hash:
            return str(each.version)
    return None


def _lineage(sweep: SweepRecord, record: TrialRecord) -> dict[str, str]:
    """What the version comes from, and what it scores."""
    numbers = outcome_numbers(record.outcome) | evaluation_numbers(record.evaluations)
    shown = {
        name: repr(value)
        for name, value in numbers.items()
        if name in ("loss_nats", "bits_per_byte") or name.startswith("eval.")
    }
    return identity_tags(sweep, record) | shown
