"""What does MLflow show of a trial? Parameters, tags and points, each a function of its record.

Every time stamp comes from the record, so that the same record gives the same rows however often
it is sent. MLflow holds only short values: a longer one ends in a note that names the artifact that
holds it whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from runners.mlflow.saved_view import BEST_VIEW_KEY, flops_in_words
from search.record.numbers import configuration_numbers, evaluation_numbers, outcome_numbers
from search.record.redaction import redact
from search.record.trial import CurvePoint, TrialState
from search.record.trial_records import SweepRecord, TrialRecord
from spaces.arms.contract import shape_in_words
from spaces.identity import canonical_form

LONGEST_PARAM, LONGEST_TAG = 6000, 8000
"""Characters that MLflow 3.17 keeps of a parameter's and of a tag's value."""

CONFIGURATION_FILE, OUTCOME_FILE = "trial.json", "outcome.json"

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

EVALUATED = "isoflop.evaluated"
"""Tag with the time of the last evaluation that a run shows, Unix seconds."""

CURVE_METRICS = ("train_loss_nats", "val_loss_nats", "learning_rate")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One value of one metric at one step."""

    name: str
    """Name of the metric, its unit last."""
    value: float
    """The value."""
    step: int
    """Optimizer step."""
    milliseconds: int
    """Unix time."""


def run_name(record: TrialRecord) -> str:
    """What reads and sorts by itself, as ``2.7e15 wide 4x192 w768 #149``."""
    proposal = record.proposal
    shape = shape_in_words(proposal.config.architecture).replace(" x ", "x").replace(",", "")
    shape = re.sub(r"\b([A-Za-z])\w* (\d)", r"\1\2", shape)  # wide 768: w768
    flops = proposal.budget.train_flops
    parts = (() if flops is None else (flops_in_words(flops),)) + (proposal.arm, shape)
    return f"{' '.join(parts)} #{record.number}"


def curve_points(record: TrialRecord) -> list[Point]:
    """The curve so far, in order of steps."""
    began = record.attempts[0].started_at if record.attempts else 0.0
    return [
        Point(
            name=name,
            value=value,
            step=point.step,
            milliseconds=int((began + point.wall_seconds) * 1000),
        )
        for point in record.curve
        for name, value in _values_of(point).items()
    ]


def _values_of(point: CurvePoint) -> dict[str, float]:
    """A point's metrics by name; of a readout, the mean over layers."""
    values = {name: getattr(point, name) for name in CURVE_METRICS}
    values |= {name: fmean(layers) for name, layers in point.readouts.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def configuration_points(record: TrialRecord) -> list[Point]:
    """What is known before a trial runs, at step 0."""
    began = int((record.created_at or 0.0) * 1000)
    return [
        Point(name=name, value=value, step=0, milliseconds=began)
        for name, value in configuration_numbers(record.proposal).items()
    ]


def outcome_points(record: TrialRecord) -> list[Point]:
    """What a trial measured, at its last step."""
    if record.outcome is None:
        return []
    ended = int((record.accepted_at or 0.0) * 1000)
    return [
        Point(name=name, value=value, step=record.outcome.steps, milliseconds=ended)
        for name, value in outcome_numbers(record.outcome).items()
    ]


def evaluation_points(record: TrialRecord) -> list[Point]:
    """What the trial's model scored on tasks, at its last step."""
    return [
        Point(
            name=name,
            value=value,
            step=0 if record.outcome is None else record.outcome.steps,
            milliseconds=int(evaluation.evaluated_at * 1000),
        )
        for evaluation in record.evaluations
        for name, value in evaluation_numbers([evaluation]).items()
    ]


def trial_params(record: TrialRecord) -> dict[str, str]:
    """The configuration as flat strings, keys as in the record."""
    config = canonical_form(record.proposal.config)
    flat: dict[str, str] = {"arm": record.proposal.arm, "purpose": record.proposal.purpose}
    flat |= {f"axis.{name}": str(value) for name, value in record.proposal.axes.items()}
    for part in ("architecture", "training"):
        values = config.pop(part)
        own = values.pop("own", {})
        values |= own
        flat |= {f"{part}.{key}": str(value) for key, value in values.items() if value is not None}
    flat |= {key: str(value) for key, value in config.items()}
    return _fit(flat, LONGEST_PARAM, CONFIGURATION_FILE)


def identity_tags(sweep: SweepRecord, record: TrialRecord) -> dict[str, str]:
    """Tags that a run carries from its start; its outcome may name another commit."""
    proposal = record.proposal
    assert proposal.budget.train_flops is not None
    return {
        "isoflop.kind": "trial",
        "isoflop.sweep": sweep.name,
        "isoflop.config_hash": record.config_hash,
        "isoflop.arm": proposal.arm,
        "isoflop.budget": f"{proposal.budget.train_flops:.3g}",
        "isoflop.convention": proposal.budget.convention,
        "isoflop.purpose": proposal.purpose,
        "isoflop.text_fingerprint": proposal.config.text_fingerprint,
        "isoflop.commit": sweep.commit,
    }


def state_tags(record: TrialRecord) -> dict[str, str]:
    """Tags that say how a trial stands; ``isoflop.outcome`` is there once it has ended."""
    spent = sum(attempt.spent_flops for attempt in record.own_attempts)
    tags = {
        "isoflop.state": record.state,
        "isoflop.result": str(record.is_result).lower(),
        "isoflop.attempts": str(len(record.attempts)),
        "isoflop.spent_train_flops": f"{spent:.6g}",
        "isoflop.set_aside": record.set_aside or "",
        "isoflop.reason": redact(record.reason or ""),
    }
    if record.evaluations:
        tags[EVALUATED] = repr(max(each.evaluated_at for each in record.evaluations))
    if record.outcome is not None:
        tags["isoflop.outcome"] = record.outcome.status
        if commit := record.outcome.versions.get("commit"):
            tags["isoflop.commit"] = commit
    return _fit(tags, LONGEST_TAG, OUTCOME_FILE)


def sweep_tags(sweep: SweepRecord) -> dict[str, str]:
    """Tags of the sweep's own run."""
    return {
        "isoflop.text_fingerprint": sweep.text_fingerprint,
        "isoflop.code_version": sweep.code_version,
        "isoflop.best_view": BEST_VIEW_KEY,
    }


def _fit(values: Mapping[str, str], longest: int, file: str) -> dict[str, str]:
    """Values that MLflow takes whole; one that it would cut says so and where it is whole."""
    note = f"… (cut at MLflow's limit of {longest} characters; whole in {file})"
    return {
        key: value if len(value) <= longest else value[: longest - len(note)] + note
        for key, value in values.items()
    }
