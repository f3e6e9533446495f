"""How does a table become points? Reading, roles, derived columns, and naming every bad row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.laws.law import FloatArray
from analysis.points.checked_points import Exclusion, Points, groups_of_equal
from analysis.points.column_names import with_sweep_names
from spaces.errors import RequestError

ROLES = (
    "params",
    "tokens",
    "flops",
    "loss",
    "budget",
    "loss_std",
    "weight",
    "num_loops",
    "num_loops_test",
    "params_once",
    "params_deep",
    "params_wide",
)
"""What a column can mean."""

MAY_BE_ZERO = frozenset({"params_once", "params_deep", "params_wide"})
"""Parts of a model that an arm may lack; everything else must be positive."""

ROWS_NAMED = 12
"""Bad entries that a message lists before it counts the rest."""


def read_frame(path: Path) -> pl.DataFrame:
    """A CSV or Parquet file as a frame. Raises `RequestError` that says what cannot be read."""
    if not path.is_file():
        raise RequestError(f"there is no table at {path}; give the path of a .csv or .parquet file")
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise RequestError(f"a table is a .csv or .parquet file, got {path.name}")
    try:
        if kind == ".parquet":
            return pl.read_parquet(path)
        return pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise RequestError(f"{path} cannot be read as a table: {first}") from error


def parse_roles(assignments: Sequence[str]) -> dict[str, str]:
    """``params=N`` and so on to role -> column. Raises `RequestError` for unknown roles."""
    roles: dict[str, str] = {}
    for assignment in assignments:
        role, equals, column = assignment.partition("=")
        if not equals or not column:
            raise RequestError(
                f"--column takes ROLE=COLUMN, got {assignment!r}; for example --column params=N"
            )
        if role not in ROLES:
            raise RequestError(f"no column role is called {role!r}; use one of {', '.join(ROLES)}")
        if role in roles:
            raise RequestError(f"the role {role} is given twice: {roles[role]!r} and {column!r}")
        roles[role] = column
    return roles


def points_from(
    table: Path | pl.DataFrame,
    needed: Sequence[str],
    *,
    roles: Mapping[str, str] | None = None,
    tokens_from_flops: str | None = None,
    keep: Sequence[str] = (),
) -> Points:
    """Checked points of a table for the roles ``needed`` (loss comes besides).

    A role without an entry in ``roles`` is the column of its own name, where there is one.
    ``tokens_from_flops="6nd"`` sets tokens to flops / (6 params). ``keep`` are SQL conditions; rows
    that break one are left out and listed. Raises `RequestError` that names missing columns, or
    every row with an entry that no fit can use (NaN, null, text, infinite, zero or negative).
    """
    frame = read_frame(table) if isinstance(table, Path) else table
    roles = with_sweep_names(frame.columns, roles)
    source = str(table) if isinstance(table, Path) else "a data frame"
    numbered = frame.with_row_index("__row__", offset=1)
    numbered, excluded = _keep_rows(numbered, keep)
    derive = _derivation(tokens_from_flops, roles or {}, needed)
    wanted = {"loss", *needed} - ({"tokens"} if derive else set())
    wanted |= {"flops", "params"} if derive else set()
    columns = _columns_by_role(frame, roles or {}, wanted)
    values = _numbers(numbered, columns, source)
    conventions: list[str] = []
    if derive:
        values["tokens"] = values["flops"] / (6.0 * values["params"])
        conventions.append("tokens = flops / (6 params)")
    elif "flops" not in values and "budget" in values:
        values["flops"] = values["budget"]
        conventions.append("flops = the budget (the table has no flops)")
    elif "flops" not in values and {"params", "tokens"} <= set(values):
        values["flops"] = 6.0 * values["params"] * values["tokens"]
        conventions.append("flops = 6 params tokens (the table has none)")
    conventions += [f"{role} = column {name!r}" for role, name in columns.items() if role != name]
    budgets, budget_source = _budgets(values)
    losses = values.pop("loss")
    return Points(
        columns={r: v for r, v in values.items() if r not in ("loss_std", "weight", "budget")},
        losses=losses,
        weights=values.get("weight", np.ones_like(losses)),
        loss_std=values.get("loss_std"),
        budgets=budgets,
        budget_source=budget_source,
        row_numbers=numbered["__row__"].to_numpy().astype(np.int64),
        num_table_rows=frame.height,
        excluded=excluded,
        conventions=tuple(conventions),
        source=source,
    )


def _keep_rows(
    frame: pl.DataFrame, conditions: Sequence[str]
) -> tuple[pl.DataFrame, tuple[Exclusion, ...]]:
    excluded = []
    for condition in conditions:
        try:
            kept = _numeric_view(frame).filter(pl.sql_expr(condition))
        except (pl.exceptions.PolarsError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise RequestError(
                f'--keep takes an SQL condition on columns, for example "loss < 5"; '
                f"got {condition!r}: {first}"
            ) from error
        stays = frame["__row__"].is_in(kept["__row__"].implode())
        dropped = tuple(frame.filter(~stays)["__row__"].to_list())
        excluded.append(Exclusion(reason=f"not {condition}", rows=dropped))
        frame = frame.filter(stays)
    if frame.height == 0:
        raise RequestError("the table has no row to fit" + (" after --keep" if conditions else ""))
    return frame, tuple(excluded)


def _numeric_view(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with text columns that are mostly numbers as numbers, for comparisons."""
    views = []
    for name, column in zip(frame.columns, frame.iter_columns(), strict=True):
        if column.dtype == pl.String:
            numbers = column.cast(pl.Float64, strict=False)
            if numbers.null_count() - column.null_count() < 0.5 * frame.height:
                views.append(numbers.alias(name))
    return frame.with_columns(views)


def _derivation(option: str | None, roles: Mapping[str, str], needed: Sequence[str]) -> bool:
    """Whether tokens are to be derived from FLOPs."""
    if option is None:
        return False
    if option != "6nd":
        raise RequestError(
            f"--tokens-from-flops takes 6nd (tokens = flops / 6 params), got {option!r}"
        )
    if "tokens" in roles:
        raise RequestError(
            f"tokens come from the column {roles['tokens']!r} or from the FLOPs, not from both; "
            "drop --column tokens=... or --tokens-from-flops"
        )
    return "tokens" in needed


def _columns_by_role(
    frame: pl.DataFrame, roles: Mapping[str, str], wanted: set[str]
) -> dict[str, str]:
    """Role -> column for the wanted roles and for every optional one that the table has."""
    optional = {"flops", "budget", "loss_std", "weight"}
    columns: dict[str, str] = {}
    missing = []
    for role in ROLES:
        name = roles.get(role, role)
        if name in frame.columns:
            if role in wanted or role in roles or role in optional:
                columns[role] = name
        elif role in wanted or role in roles:
            missing.append(f"{role} (column {name!r})")
    if missing:
        raise RequestError(
            f"the table has no column for {', '.join(missing)}; it has "
            f"{', '.join(map(repr, frame.columns))}; name one with --column ROLE=COLUMN"
        )
    return columns


def _numbers(frame: pl.DataFrame, columns: Mapping[str, str], source: str) -> dict[str, FloatArray]:
    """Values by role as floats. Raises `RequestError` that names all rows that cannot be used."""
    rows = frame["__row__"].to_list()
    values: dict[str, FloatArray] = {}
    problems: dict[int, list[str]] = {}
    for role, name in columns.items():
        raw = frame[name]
        numbers = raw.cast(pl.Float64, strict=False).to_numpy().astype(np.float64)
        numbers = np.where(raw.is_null().to_numpy(), np.nan, numbers)
        low = numbers >= 0 if role in MAY_BE_ZERO else numbers > 0
        good = np.isfinite(numbers) & low
        if role == "num_loops":
            good &= numbers >= 1
        for place in np.flatnonzero(~good):
            entry = raw[int(place)]
            shown = "empty" if entry is None else repr(entry) if isinstance(entry, str) else entry
            problems.setdefault(rows[int(place)], []).append(f"{name} = {shown}")
        values[role] = numbers
    if problems:
        raise RequestError(_problem_text(problems, source))
    return values


def _problem_text(problems: Mapping[int, list[str]], source: str) -> str:
    listed = [f"row {row}: {', '.join(what)}" for row, what in sorted(problems.items())]
    more = f"; and {len(listed) - ROWS_NAMED} rows more" if len(listed) > ROWS_NAMED else ""
    count = "1 row holds" if len(listed) == 1 else f"{len(listed)} rows hold"
    return (
        f"every entry must be a positive finite number, but in {source} {count} others: "
        f"{'; '.join(listed[:ROWS_NAMED])}{more} (row 1 is the first below the header); "
        'repair them, or leave them out with --keep "CONDITION"'
    )


def _budgets(values: Mapping[str, FloatArray]) -> tuple[NDArray[np.int64] | None, str | None]:
    if "budget" in values:
        labels = np.unique(values["budget"], return_inverse=True)[1].astype(np.int64)
        return labels, "the budget column"
    if "flops" in values:
        groups = groups_of_equal(values["flops"])
        if groups is not None:
            return groups, "groups of equal flops"
    return None, None
