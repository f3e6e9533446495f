"""How do a sweep's records become a table? One row per result, for laws and plots.

The columns are the roles that `analysis` fits by: N (``params``), D (``tokens``), C (``flops``, in
the budget's convention), the target budget, the loss, and the parameters by part.
An unrolled model is a deep model of the standard arm, so it is a point of that arm's law; the
``family`` column keeps what it was proposed as.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from search.record.ledger import Ledger
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError
from spaces.parameters import count_parameters

SCHEMA: dict[str, type[pl.DataType]] = {
    "config_hash": pl.String,
    "arm": pl.String,
    "family": pl.String,
    "purpose": pl.String,
    "convention": pl.String,
    "budget": pl.Float64,
    "flops": pl.Float64,
    "params": pl.Int64,
    "params_once": pl.Int64,
    "params_deep": pl.Int64,
    "params_wide": pl.Int64,
    "params_embedding": pl.Int64,
    "params_head": pl.Int64,
    "params_non_embedding": pl.Int64,
    "tokens": pl.Int64,
    "epochs": pl.Float64,
    "num_loops": pl.Int64,
    "num_layers": pl.Int64,
    "d_model": pl.Int64,
    "learning_rate": pl.Float64,
    "seed": pl.Int64,
    "data_seed": pl.Int64,
    "loss": pl.Float64,
    "bits_per_byte": pl.Float64,
}
"""Column to type."""


def sweep_frame(sweep: str, home: Path | str = "runs") -> pl.DataFrame:
    """Results of a sweep of a home. Raises `RequestError` where there is no sweep or no result."""
    with contextlib.closing(Ledger(Path(home))) as ledger:
        ledger.sweep(sweep)
        frame = frame_of(ledger.trials(sweep))
    if frame.is_empty():
        raise RequestError(f"sweep {sweep!r} in {home} has no finished trial to fit yet")
    return frame


def frame_of(records: Sequence[TrialRecord]) -> pl.DataFrame:
    """Results of a sweep, sorted by configuration hash so that a fit does not depend on order."""
    rows = [_row(record) for record in records if record.is_result]
    return pl.DataFrame(rows, schema=SCHEMA).sort("config_hash")


def _row(record: TrialRecord) -> dict[str, object]:
    proposal, outcome = record.proposal, record.outcome
    assert outcome is not None
    config, a = proposal.config, proposal.config.architecture
    parts = count_parameters(a)
    return {
        "config_hash": record.config_hash,
        "arm": a.arm,
        "family": proposal.arm,
        "purpose": proposal.purpose,
        "convention": proposal.budget.convention,
        "budget": proposal.budget.train_flops,
        "flops": float(proposal.train_flops),
        "params": parts.total,
        "params_once": parts.shared,
        "params_deep": parts.deep,
        "params_wide": parts.wide,
        "params_embedding": parts.embedding,
        "params_head": parts.head,
        "params_non_embedding": parts.total - parts.embedding - parts.head,
        "tokens": config.tokens,
        "epochs": outcome.epochs,
        "num_loops": a.num_loops,
        "num_layers": a.num_layers,
        "d_model": a.d_model,
        "learning_rate": config.training.learning_rate,
        "seed": config.init_seed,
        "data_seed": config.data_seed,
        "loss": outcome.loss_nats,
        "bits_per_byte": outcome.bits_per_byte,
    }
