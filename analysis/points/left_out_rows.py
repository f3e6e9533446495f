"""Which rows of a table are no finished run? Empty rows, broken runs, and what is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from analysis.points.checked_points import Exclusion
from analysis.points.entry_numbers import numbers_of
from spaces.errors import RequestError

ROW = "\u0000row"
"""Name of the column of row numbers, which no header can hold."""

STATE_COLUMNS = frozenset(
    (
        "state",
        "status",
        "runstate",
        "runstatus",
        "trialstate",
        "trialstatus",
        "jobstate",
        "jobstatus",
    )
)
"""Columns that say how a run ended: names in lower case without blanks and underscores."""

UNFINISHED = frozenset(
    (
        *("aborted", "canceled", "cancelled", "crash", "crashed", "diverged", "error", "fail"),
        *("failed", "failure", "interrupted", "kill", "killed", "lost", "nan", "node_fail", "oom"),
        *("out_of_memory", "paused", "pending", "preempted", "preempting", "pruned", "queued"),
        *("running", "scheduled", "stopped", "timeout", "unfinished", "waiting", "incomplete"),
        *("retried", "restarted", "superseded"),
    )
)
"""States of W&B, MLflow, Optuna, Ray Tune and Slurm in which the last value is not the result."""

BROKEN_FLAGS = frozenset(("crashed", "failed", "killed", "diverged", "aborted", "preempted", "oom"))
DONE_FLAGS = frozenset(("finished", "completed", "done", "isfinished", "success"))
TRUE = frozenset(("true", "1", "1.0", "yes", "y"))
FALSE = frozenset(("false", "0", "0.0", "no", "n"))


def numbered(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with row numbers, the first row of data being 1."""
    if ROW in frame.columns:
        raise RequestError(f"no column may be called {ROW!r}; rename it")
    return frame.with_row_index(ROW, offset=1)


def without_empty_rows(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[Exclusion, ...]]:
    """Rows that hold anything, and are not the header again, as in files that were joined."""
    texts = [name for name in frame.columns if frame[name].dtype == pl.String]
    names = [name for name in frame.columns if name != ROW]
    if not names:
        return frame, ()
    empty = frame.select(
        pl.all_horizontal(
            pl.col(name).is_null()
            | (pl.col(name).str.strip_chars() == "" if name in texts else pl.lit(False))
            for name in names
        ).alias("empty")
    )["empty"]
    header = pl.Series([False] * frame.height, dtype=pl.Boolean)
    if len(texts) == len(names) and frame.height:
        header = frame.select(
            pl.all_horizontal(pl.col(name) == name for name in names).fill_null(False).alias("h")
        )["h"]
    frame, excluded = _drop(frame, empty, "empty row")
    rest = header.filter(~empty)
    frame, again = _drop(frame, rest, "the header once more")
    return frame, excluded + again


def without_unfinished(
    frame: pl.DataFrame, conditions: Sequence[str]
) -> tuple[pl.DataFrame, tuple[Exclusion, ...]]:
    """Rows of runs that finished, where a column tells and no condition speaks of that column."""
    excluded: tuple[Exclusion, ...] = ()
    asked = " ".join(conditions)
    for name in [column for column in frame.columns if column != ROW]:
        plain = re.sub(r"[\s_\-.]", "", name.lower())
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", asked):
            continue
        bad = _bad_states(plain)
        if not bad or frame[name].dtype.is_nested():
            continue
        states = frame[name].cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
        for state in states.unique(maintain_order=True).to_list():
            if state is not None and re.sub(r"[\s\-]+", "_", state) in bad:
                here = frame[name].cast(pl.String).str.strip_chars().str.to_lowercase() == state
                frame, dropped = _drop(frame, here.fill_null(False), f"{name} is {state}")
                excluded += dropped
    if frame.height == 0:
        raise RequestError(
            f"no run of the table finished ({'; '.join(each.reason for each in excluded)}); say "
            'which rows count with --keep "CONDITION"'
        )
    return frame, excluded


def _bad_states(plain_name: str) -> frozenset[str]:
    """Entries, in lower case, with which a column of that name marks a run that did not finish."""
    if plain_name in STATE_COLUMNS:
        return UNFINISHED
    if plain_name in BROKEN_FLAGS:
        return TRUE
    return FALSE if plain_name in DONE_FLAGS else frozenset()


def kept_rows(
    frame: pl.DataFrame, conditions: Sequence[str]
) -> tuple[pl.DataFrame, tuple[Exclusion, ...]]:
    """Rows that meet every SQL condition. Raises `RequestError` for what is no condition."""
    excluded: tuple[Exclusion, ...] = ()
    for condition in conditions:
        stays = frame[ROW].is_in(_meeting(frame, condition).implode())
        frame, dropped = _drop(frame, ~stays, f"not {condition}", always=True)
        excluded += dropped
    if frame.height == 0:
        raise RequestError("the table has no row to fit" + (" after --keep" if conditions else ""))
    return frame, excluded


def _meeting(frame: pl.DataFrame, condition: str) -> pl.Series:
    """Numbers of the rows that meet a condition; text is compared as numbers where it can be."""
    problem: Exception | None = None
    for share in (0.5, 0.0, 1.1):
        try:
            return _numeric_view(frame, share).filter(pl.sql_expr(condition))[ROW]
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError) as error:
            problem = problem or error
    first = (str(problem).strip().splitlines() or [""])[0].replace('"\\0row", ', "")
    raise RequestError(
        f'--keep takes an SQL condition on columns, for example "loss < 5"; '
        f"got {condition!r}: {first}"
    ) from problem


def _numeric_view(frame: pl.DataFrame, share: float) -> pl.DataFrame:
    """The frame with text columns as numbers where more than ``share`` of the entries are some.

    Entries that are no finite number become null there, so that no comparison holds for them.
    """
    views: dict[str, pl.Series | pl.Expr] = {}
    for name, column in zip(frame.columns, frame.iter_columns(), strict=True):
        if column.dtype in (pl.Categorical, pl.Enum):
            views[name] = column = column.cast(pl.String)
        if column.dtype.is_float():
            views[name] = pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name)
        if column.dtype != pl.String:
            continue
        flags = column.drop_nulls().str.to_lowercase().unique().to_list()
        if flags and set(flags) <= {"true", "false"}:
            views[name] = (column.str.to_lowercase() == "true").alias(name)
        elif share <= 1.0:
            views[name] = _as_numbers(name, column, share)
    return frame.with_columns(views.values())


def _as_numbers(name: str, column: pl.Series, share: float) -> pl.Series:
    """The column's numbers where more than ``share`` of its entries are some, else the column."""
    try:
        numbers = pl.Series(name, numbers_of({name: column})[0][name], nan_to_null=True)
    except RequestError:  # a column that can be read in two ways stays text
        return column
    finite = numbers.set(numbers.is_infinite().fill_null(False), None)
    count = len(finite) - finite.null_count()
    if count == 0 or count <= share * (len(column) - column.null_count()):
        return column
    whole = finite.drop_nulls()
    is_whole = bool(((whole % 1 == 0) & (whole.abs() < 2**53)).all())
    return finite.cast(pl.Int64) if is_whole else finite


def _drop(
    frame: pl.DataFrame, rows: pl.Series, reason: str, *, always: bool = False
) -> tuple[pl.DataFrame, tuple[Exclusion, ...]]:
    """The frame without ``rows``, and the account of them where there are any."""
    dropped = tuple(frame.filter(rows)[ROW].to_list())
    if not dropped and not always:
        return frame, ()
    return frame.filter(~rows), (Exclusion(reason=reason, rows=dropped),)
