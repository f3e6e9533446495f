"""What do the columns of a table hold? Numbers and labels by role, and every entry that is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.laws.law import FloatArray
from analysis.points.checked_points import renumbered, rows_text
from analysis.points.column_roles import LABELS, RoleColumns
from analysis.points.entry_numbers import MISSING, number_in, numbers_of
from analysis.points.left_out_rows import ROW
from spaces.errors import RequestError

MAY_BE_ZERO = frozenset({"params_once", "params_deep", "params_wide"})
"""Parts of a model that an arm may lack; everything else must be positive."""

WORDS_COUNTED = 3
"""Bad entries of at most so many kinds are counted by kind."""

SMALLEST, LARGEST = 1e-60, 1e60
"""Sizes, FLOPs and losses lie within; anything beyond is a slip and overflows when squared."""

ROWS_NAMED = 12
"""Bad entries that a message lists before it counts the rest."""


@dataclass(frozen=True, kw_only=True)
class ColumnValues:
    """The usable columns of some rows."""

    numbers: Mapping[str, FloatArray]
    """Values (n,) by role; every one is usable."""
    labels: Mapping[str, NDArray[np.int64]]
    """Group of every row, 0..G-1, by role (`LABELS`), of those that the table has."""
    schedules: NDArray[np.str_] | None
    """Words of the role ``schedule`` (n,); None where the table has none."""
    notes: tuple[str, ...]
    """How entries were read."""
    unused: tuple[str, ...]
    """Columns that are there and are not used, each with its reason."""

    def rows(self, keep: NDArray[np.bool_]) -> ColumnValues:
        """The rows where ``keep`` (n,) holds."""
        labels = {role: renumbered(values[keep]) for role, values in self.labels.items()}
        numbers = {role: values[keep] for role, values in self.numbers.items()}
        schedules = None if self.schedules is None else self.schedules[keep]
        return replace(self, numbers=numbers, labels=labels, schedules=schedules)

    def inputs(self) -> dict[str, NDArray[np.int64] | FloatArray]:
        """Everything but the loss, by role."""
        inputs: dict[str, NDArray[np.int64] | FloatArray] = {
            role: values for role, values in self.numbers.items() if role != "loss"
        }
        if "budget" in self.labels:
            inputs["budget"] = self.labels["budget"]
        return inputs


def values_of(frame: pl.DataFrame, columns: RoleColumns, source: str) -> ColumnValues:
    """Values by role. Raises `RequestError` that names every entry of a needed column that is bad.

    An optional column with such an entry is left unused, and said to be.
    """
    optional = {r: n for r, n in columns.optional.items() if _may_be_read(r, frame[n].dtype)}
    named = {**columns.needed, **optional}
    read, notes = read_numbers(frame, {r: n for r, n in named.items() if r not in LABELS}, source)
    bad = {role: ~_usable(role, values) for role, values in read.items()}
    labels: dict[str, NDArray[np.int64]] = {}
    for role in (role for role in LABELS if role in named):
        labels[role], bad[role], numbers = group_labels(frame, role, named[role], source)
        if role == "budget":
            read = {**read, "budget": numbers}
    _require_all_usable(frame, columns.needed, bad, source)
    unused = [
        f"{_called(role, name)} is not used: it holds {_type_words(frame[name].dtype)}"
        for role, name in columns.optional.items()
        if role not in optional
    ]
    for role, name in optional.items():
        if bad[role].any():
            unused.append(_unused(role, name, frame[ROW].to_numpy()[bad[role]], frame.height))
            read = {known: values for known, values in read.items() if known != role}
            labels.pop(role, None)
    if "budget" in read and not _usable("budget", read["budget"]).all():
        read = {role: values for role, values in read.items() if role != "budget"}
    schedules = None
    if "schedule" in labels:
        texts = frame[named["schedule"]].cast(pl.String).str.strip_chars().str.to_lowercase()
        schedules = np.array(texts.to_list(), str)
    return ColumnValues(
        numbers=read,
        labels=labels,
        schedules=schedules,
        notes=tuple(notes),
        unused=(*columns.notes, *unused),
    )


def read_numbers(
    frame: pl.DataFrame, columns: Mapping[str, str], source: str
) -> tuple[dict[str, FloatArray], list[str]]:
    """Numbers (n,) by role, NaN where an entry is none, and how they were written.

    Raises `RequestError` for a column of a type that holds no numbers.
    """
    texts: dict[str, pl.Series] = {}
    numbers: dict[str, FloatArray] = {}
    for name in dict.fromkeys(columns.values()):
        column = frame[name]
        if _is_text(column.dtype):
            texts[name] = column.cast(pl.String)
        elif _may_be_read(name, column.dtype):
            cast = column.cast(pl.Float64, strict=False).fill_null(np.nan)
            numbers[name] = np.asarray(cast.to_numpy(), dtype=np.float64)
        else:
            raise RequestError(
                f"a column that a fit reads holds numbers, but {name!r} of {source} holds "
                f"{_type_words(column.dtype)}; write a column of numbers, or name another with "
                "--column ROLE=COLUMN"
            )
    read, notes = numbers_of(texts)
    numbers |= read
    return {role: numbers[name] for role, name in columns.items()}, notes


def _is_text(dtype: pl.DataType) -> bool:
    return dtype in (pl.Categorical, pl.Enum, pl.String)


def _may_be_read(role: str, dtype: pl.DataType) -> bool:
    """Whether a column of that type can play the role: numbers, or labels of a group."""
    if role in LABELS:
        return not (dtype.is_nested() or dtype in (pl.Object, pl.Binary))
    return _is_text(dtype) or dtype.is_numeric() or dtype == pl.Null


def _type_words(dtype: pl.DataType) -> str:
    if dtype.is_nested():
        return f"{dtype.base_type().__name__.lower()} values ({dtype})"
    return "true and false" if dtype == pl.Boolean else f"{dtype} values"


def group_labels(
    frame: pl.DataFrame, role: str, name: str, source: str
) -> tuple[NDArray[np.int64], NDArray[np.bool_], FloatArray]:
    """Groups (n,) of equal entries, which entries are missing, and their numbers where they are.

    Numbers are grouped by value, anything else by its text: any label names a group.
    """
    column = frame[name]
    if not _may_be_read(role, column.dtype):
        raise RequestError(
            f"a {role} is a number or a label, but {name!r} of {source} holds "
            f"{_type_words(column.dtype)}; name another column with --column {role}=COLUMN"
        )
    texts = column.cast(pl.String, strict=False).str.strip_chars()
    missing = (texts.is_null() | texts.str.to_lowercase().is_in(list(MISSING))).fill_null(True)
    numbers = np.full(frame.height, np.nan)
    if _may_be_read("a size", column.dtype):
        try:
            numbers = read_numbers(frame, {role: name}, source)[0][role]
        except RequestError:  # labels such as 1,5 are labels
            numbers = np.full(frame.height, np.nan)
    keys = numbers if np.isfinite(numbers).all() else np.array(texts.fill_null("").to_list(), str)
    labels = np.unique(keys, return_inverse=True)[1].ravel().astype(np.int64)
    return labels, missing.to_numpy(), numbers


def _usable(role: str, values: FloatArray) -> NDArray[np.bool_]:
    """Which entries (n,) a fit can use in that role."""
    good = (values >= SMALLEST) & (values <= LARGEST)
    if role in MAY_BE_ZERO:
        good |= values == 0
    if role == "num_loops":
        good &= values >= 1
    return np.asarray(good)


def _unused(role: str, name: str, rows: NDArray[np.int64], num_rows: int) -> str:
    what = "labels" if role in LABELS else "positive numbers"
    return (
        f"{_called(role, name)} is not used: {len(rows)} of {num_rows} entries are no {what} "
        f"(rows {rows_text(rows.tolist())}), and the law does not read it"
    )


def _called(role: str, name: str) -> str:
    return role if role == name else f"{role} (column {name!r})"


def _require_all_usable(
    frame: pl.DataFrame,
    needed: Mapping[str, str],
    bad: Mapping[str, NDArray[np.bool_]],
    source: str,
) -> None:
    rows = frame[ROW].to_list()
    problems: dict[int, list[str]] = {}
    for role, name in needed.items():
        for place in np.flatnonzero(bad[role]):
            entry = _entry_text(frame[name][int(place)])
            problems.setdefault(rows[int(place)], []).append(f"{name} = {entry}")
    if not problems:
        return
    worst = max(needed, key=lambda role: int(bad[role].sum()))
    raise RequestError(_problem_text(problems, source, needed[worst], frame[needed[worst]]))


def _entry_text(entry: object) -> str:
    if entry is None:
        return "empty"
    if isinstance(entry, str) and np.isnan(number_in(entry)):
        return repr(entry)
    return str(entry)


def _problem_text(
    problems: Mapping[int, list[str]], source: str, worst: str, column: pl.Series
) -> str:
    listed = [f"row {row}: {', '.join(what)}" for row, what in sorted(problems.items())]
    more = f"; and {len(listed) - ROWS_NAMED} rows more" if len(listed) > ROWS_NAMED else ""
    count = "1 row holds" if len(listed) == 1 else f"{len(listed)} rows hold"
    quoted = worst if worst.isidentifier() else f'\\"{worst}\\"'
    return (
        f"every entry must be a positive finite number, but in {source} {count} others: "
        f"{'; '.join(listed[:ROWS_NAMED])}{more} (row 1 is the first below the header)"
        f"{_cause(worst, column)}; repair them, or leave them out with --keep "
        f'"CONDITION", for example --keep "{quoted} > 0"'
    )


def _cause(name: str, column: pl.Series) -> str:
    """What all bad entries of a column have in common, where it can be told."""
    texts = [str(entry).strip() for entry in column.drop_nulls().to_list()]
    if texts and all(text.endswith("%") for text in texts):
        return f"; {name} is written in percent, which is no loss and no size"
    numbers = [number_in(text) for text in texts]
    words = Counter(text for text, n in zip(texts, numbers, strict=True) if np.isnan(n))
    if len(words) <= WORDS_COUNTED < sum(words.values()):
        counted = ", ".join(f"{count} times {word!r}" for word, count in words.most_common())
        return f"; {name} is {counted}"
    if numbers and all(number <= 0 for number in numbers):
        return f"; all of {name} is negative or zero: a log likelihood becomes a loss by its sign"
    return ""
