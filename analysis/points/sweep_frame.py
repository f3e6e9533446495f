"""How do a sweep's records become a table? One row per result, for laws and plots.

The columns are the row of numbers that MLflow and the leaderboard show, under the same names; laws
find N, D, C, budget and loss among them (`analysis.points.column_names`). Arms of one ``family``
are points of one law: an unrolled model is a deep model of the standard arm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from search.belief.rate_standing import expected_rate_costs
from search.record.ledger import Ledger
from search.record.numbers import configuration_numbers, evaluation_numbers, outcome_numbers
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError

RATE_COST = "rate_cost_nats"

WORDS = (
    "config_hash",
    "arm",
    "family",
    "purpose",
    "convention",
    "schedule",
    "trunk",
    "seed",
    "data_seed",
)
"""Columns that are no numbers of a row."""


def sweep_frame(sweep: str, home: Path | str = "runs") -> pl.DataFrame:
    """Results of a sweep of a home. Raises `RequestError` where there is no sweep or no result."""
    with contextlib.closing(Ledger(Path(home))) as ledger:
        ledger.sweep(sweep)
        frame = frame_of(ledger.trials(sweep))
    if frame.is_empty():
        raise RequestError(f"sweep {sweep!r} in {home} has no finished trial to fit yet")
    return frame


def frame_of(records: Sequence[TrialRecord]) -> pl.DataFrame:
    """Results of a sweep, sorted by configuration hash so that a fit does not depend on order.

    Where rates were examined, ``rate_cost_nats`` is what a row's rate is expected to lose.
    """
    costs = expected_rate_costs(records)
    parents = {
        record.config_hash: record.outcome.trunk_parent
        for record in records
        if record.outcome is not None and record.outcome.trunk_parent is not None
    }
    rows = []
    for record in (record for record in records if record.is_result):
        row = _row(record, trunk=_root(record.config_hash, parents))
        rows.append(row | ({RATE_COST: costs.get(record.config_hash)} if costs else {}))
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame if frame.is_empty() else frame.sort("config_hash")


def _root(config_hash: str, parents: Mapping[str, str]) -> str:
    """The trial that began the trunk of a trial: itself where it went on from none."""
    seen = {config_hash}
    while (parent := parents.get(config_hash)) is not None and parent not in seen:
        config_hash = parent
        seen.add(parent)
    return config_hash


def _row(record: TrialRecord, *, trunk: str) -> dict[str, object]:
    """A result's numbers (`search.record.numbers`), the words that groups are made of, and what its
    architecture chose in words (as ``gate_mode``)."""
    proposal, config = record.proposal, record.proposal.config
    words = (
        record.config_hash,
        proposal.arm,
        proposal.family,
        proposal.purpose,
        proposal.budget.convention,
        config.training.schedule,
        trunk,
        config.init_seed,
        config.data_seed,
    )
    numbers = {
        **configuration_numbers(proposal),
        **outcome_numbers(record.outcome),
        **evaluation_numbers(record.evaluations),
    }
    choices = {
        name: value
        for name, value in vars(config.architecture).items()
        if isinstance(value, str) and name not in WORDS
    }
    return {
        **dict(zip(WORDS, words, strict=True)),
        **choices,
        **{name: as_float(name, value) for name, value in numbers.items()},
    }


def as_float(name: str, value: int | float) -> int | float:
    """FLOPs as floats, which no 64-bit integer holds; other numbers as they are."""
    return float(value) if "flops" in name else value
