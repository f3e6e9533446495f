"""Which rows are one run written down more than once? Copies, and runs that were tried again.

Two runs do not end at one loss to the seventh digit, so rows that agree in every column that is
used, the loss included, are one run, whatever their other columns say: a join by task repeats a
run under other labels, and a seed that changes nothing is no second seed. Losses of at most four
digits can meet by chance. There rows that a label such as ``seed`` tells apart stay, provided that
some rows of equal inputs have different losses, as true repetitions do.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.laws.law import FloatArray

RUN_LABELS = re.compile(r"(.*[^a-z])?(seed|run|trial|replicate|rep|id|hash|name)s?([^a-z].*)?")
"""Columns whose entries tell runs apart, in lower case."""

ATTEMPT = re.compile(r"(num_?)?(attempt|retry|retries|try)(_?(no|num|number|index|id))?")
"""Columns that count how often a run was started, in lower case."""

DIGITS_BY_CHANCE = 4
"""Losses with no more significant digits than this agree by chance."""


def first_of_copies(
    values: Mapping[str, NDArray[Any]], losses: FloatArray, others: pl.DataFrame
) -> NDArray[np.int64]:
    """Position (n,) of the first row that agrees with each in all of ``values`` and in the loss.

    Numbers are compared in single precision, in which many tables are written. ``others`` holds
    the columns of the table, among which labels of runs are looked for.
    """
    same_inputs = _groups(list(values.values()))
    same = _groups([same_inputs, losses])
    if _few_digits(losses) and len(np.unique(same)) > len(np.unique(same_inputs)):
        same = _groups([same, *(_codes(others[name]) for name in _run_labels(others))])
    _, first, place = np.unique(same, return_index=True, return_inverse=True)
    return np.asarray(first[place.ravel()], dtype=np.int64)


def differing_columns(
    first: NDArray[np.int64], used: Collection[str], others: pl.DataFrame
) -> list[str]:
    """Columns beside the ``used`` ones in which some copy differs from its first row."""
    names = [name for name in others.columns if name not in used]
    codes = {name: _codes(others[name]) for name in names}
    return [name for name in names if (codes[name] != codes[name][first]).any()]


def earlier_attempts(
    values: Mapping[str, NDArray[Any]], others: pl.DataFrame
) -> tuple[NDArray[np.bool_], str | None]:
    """Which rows (n,) were tried again later, and the column that counts the attempts.

    Attempts of one run agree in ``values`` and in every label of runs.
    """
    num_rows = others.height
    none = np.zeros(num_rows, dtype=np.bool_)
    counters = [name for name in others.columns if ATTEMPT.fullmatch(name.lower())]
    if len(counters) != 1 or others[counters[0]].dtype.is_nested():
        return none, None
    numbers = others[counters[0]].cast(pl.Float64, strict=False)
    if numbers.null_count() or numbers.n_unique() < 2:
        return none, None
    labels = [_codes(others[name]) for name in _run_labels(others)]
    run = _groups([*values.values(), *labels])
    attempts = numbers.to_numpy()
    latest = np.full(int(run.max()) + 1, -np.inf)
    np.maximum.at(latest, run, attempts)
    return np.asarray(attempts < latest[run]), counters[0]


def _run_labels(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if RUN_LABELS.fullmatch(name.lower())]


def _groups(columns: list[NDArray[Any]]) -> NDArray[np.int64]:
    """Labels (n,) that are equal where all columns are, floats in single precision."""
    keys = [
        np.unique(c.astype(np.float32) if c.dtype.kind == "f" else c, return_inverse=True)[1]
        for c in columns
    ]
    stacked = np.stack(keys, axis=1)
    return np.unique(stacked, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def _codes(column: pl.Series) -> NDArray[Any]:
    if column.dtype.is_nested() or column.dtype == pl.Object:
        return np.zeros(len(column), dtype=np.int64)
    texts = column.cast(pl.String, strict=False).fill_null("").to_list()
    return np.asarray(np.unique(np.array(texts, dtype=str), return_inverse=True)[1])


def _few_digits(losses: FloatArray) -> bool:
    """Whether every loss is written with at most four significant digits."""
    rounded = [float(f"{loss:.{DIGITS_BY_CHANCE}g}") for loss in losses]
    return bool(np.array_equal(rounded, losses))
