"""Which run is meant? By the identity of its trial, its MLflow run, or its place in a sweep."""

from __future__ import annotations

from search.record.ledger import Ledger, TrialRecord
from spaces.errors import RequestError

SHORTEST_BEGINNING = 4
"""Digits of an identity that may name it."""


def find_run(ledger: Ledger, reference: str) -> TrialRecord:
    """The trial that is named by its ``config_hash`` or a beginning of it, by its MLflow run id, or
    as ``SWEEP/NUMBER``. Raises `RequestError`."""
    found = [
        record
        for sweep in ledger.sweep_names()
        for record in ledger.trials(sweep)
        if _names(reference, record)
    ]
    identities = sorted({record.config_hash for record in found})
    if len(identities) > 1:
        raise RequestError(
            f"{reference!r} is the beginning of {len(identities)} runs ({', '.join(identities)}); "
            f"write more of it"
        )
    if not found:
        raise RequestError(
            f"{ledger.home} holds no run {reference!r}; name one by its config_hash, its MLflow "
            f"run id or SWEEP/NUMBER (`isoflop status SWEEP --json` lists them)"
        )
    return found[0]


def _names(reference: str, record: TrialRecord) -> bool:
    begins = len(reference) >= SHORTEST_BEGINNING and record.config_hash.startswith(reference)
    places = (record.mlflow_run_id, f"{record.sweep}/{record.number}")
    return begins or reference in places
