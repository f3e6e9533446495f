"""How does a table become points? Rows that count, columns by role, what follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.laws.law import FloatArray
from analysis.points.checked_points import (
    Exclusion,
    Finding,
    Points,
    groups_of_equal,
    rows_text,
)
from analysis.points.column_names import with_sweep_names
from analysis.points.column_roles import RoleColumns, columns_by_role
from analysis.points.column_values import ColumnValues, read_numbers, values_of
from analysis.points.copied_rows import differing_columns, earlier_attempts, first_of_copies
from analysis.points.flops_agreement import flops_agreement, passed_params
from analysis.points.left_out_rows import (
    ROW,
    kept_rows,
    numbered,
    without_empty_rows,
    without_unfinished,
)
from analysis.points.table_files import RawTable, read_table
from spaces.errors import RequestError

SIZE_ROLES = (
    "params",
    "tokens",
    "flops",
    "num_loops",
    "params_once",
    "params_deep",
    "params_wide",
)
"""Roles from which FLOPs are set beside 6 N D, whether the law reads them or not."""

CLUSTERS = ("data_seed", "trunk")
"""Roles whose groups may share noise, besides budgets."""

BUDGET_FACTOR = 2.0
"""A budget further from 6 N D than this labels a group and is no number of FLOPs."""

FEWEST_FLOPS = 1e6
"""Budgets below this, where sizes or tokens are not known, are numbers of groups, not FLOPs."""


def points_from(
    table: Path | pl.DataFrame,
    needed: Sequence[str],
    *,
    roles: Mapping[str, str] | None = None,
    tokens_from_flops: str | None = None,
    keep: Sequence[str] = (),
    own_count: bool = False,
) -> Points:
    """Checked points of a table for the roles ``needed`` (loss comes besides).

    A role without an entry in ``roles`` is the column of its own name, or of a sweep's name for it.
    ``tokens_from_flops="6nd"`` sets tokens to flops / (6 params). ``keep`` are SQL conditions; rows
    that break one are left out and listed, as are empty rows, unfinished runs and copies.
    ``own_count`` says that this program counted sizes and FLOPs, so that units are certain. Raises
    `RequestError` that names missing columns, or every row with an entry that no fit can use
    (NaN, null, text, infinite, zero or negative).
    """
    raw = read_table(table)
    asked = dict(roles or {})
    names = with_sweep_names(raw.frame.columns, asked)
    frame, excluded, findings = _rows_that_count(raw, keep)
    derive = _derivation(tokens_from_flops, asked, needed)
    wanted = {"loss", *needed} - ({"tokens"} if derive else set())
    wanted |= {"flops", "params"} if derive else set()
    columns = columns_by_role(raw, names, wanted, asked=asked)
    values = values_of(frame, columns, raw.source)
    findings += [Finding(code="column-not-used", message=each) for each in values.unused]
    if "loss_std" in values.numbers and "loss_std" not in asked:
        findings.append(_loss_std_used())
    findings += _mixed_schedules(frame, values, columns)
    used = {**columns.needed, **columns.optional}
    once = _once_each(_Rows(frame, values, excluded, tuple(findings)), set(used.values()))
    side = {} if own_count or derive else _sizes(once.frame, names, raw.source)
    points = _points(once, raw, used, side=side, derive=derive)
    return replace(points, own_count=own_count)


@dataclass(frozen=True)
class _Rows:
    """Rows on their way to points."""

    frame: pl.DataFrame
    values: ColumnValues
    excluded: tuple[Exclusion, ...]
    findings: tuple[Finding, ...]


def _rows_that_count(
    raw: RawTable, keep: Sequence[str]
) -> tuple[pl.DataFrame, tuple[Exclusion, ...], list[Finding]]:
    """Numbered rows without empty ones, those that ``keep`` rules out, and unfinished runs."""
    frame, empty = without_empty_rows(numbered(raw.frame))
    frame, ruled_out = kept_rows(frame, keep)
    frame, unfinished = without_unfinished(frame, keep)
    findings = []
    if unfinished:
        count = sum(len(each.rows) for each in unfinished)
        listed = "; ".join(f"{e.reason}: rows {rows_text(e.rows)}" for e in unfinished)
        message = (
            f"{count} rows of runs that did not finish are left out ({listed}), since their last "
            "value is no result; a --keep condition on that column decides otherwise"
        )
        findings.append(Finding(code="unfinished-runs", message=message))
    return frame, (*empty, *ruled_out, *unfinished), findings


def _mixed_schedules(
    frame: pl.DataFrame, values: ColumnValues, columns: RoleColumns
) -> list[Finding]:
    """A finding where rows have more than one schedule of the learning rate."""
    found = {} if values.schedules is None else Counter(values.schedules.tolist())
    if len(found) < 2:
        return []
    name = {**columns.needed, **columns.optional}["schedule"]
    listed = ", ".join(f"{count} of {word!r}" for word, count in sorted(found.items()))
    word = frame[name].cast(pl.String).to_list()[0]
    quoted = name if name.isidentifier() else f'\\"{name}\\"'
    message = (
        f"the rows have {len(found)} schedules of the learning rate ({listed}): they end at "
        "different losses for the same size and tokens, so no law holds for all of them; fit them "
        f"one by one with --keep \"{quoted} = '{word}'\""
    )
    return [Finding(code="mixed-schedules", message=message, forbids=True)]


def _loss_std_used() -> Finding:
    return Finding(
        code="loss-std-used",
        message=(
            "the column loss_std holds standard deviations of the losses: they divide the "
            "residuals, and delta counts in them; rename the column to fit without"
        ),
    )


def _once_each(rows: _Rows, used: set[str]) -> _Rows:
    """The rows with every run counted once: its last attempt, and no copies."""
    again, counter = earlier_attempts(rows.values.inputs(), rows.frame.drop(ROW))
    if again.any():
        what = f"an earlier attempt by {counter}"
        rows = _without(rows, again, what, code="earlier-attempts", why="the last attempt counts")
    others = rows.frame.drop(ROW)
    first = first_of_copies(rows.values.inputs(), rows.values.numbers["loss"], others)
    copied = first != np.arange(len(first))
    if not copied.any():
        return rows
    differ = differing_columns(first, used, others)
    why = "every column that is used agrees, the loss included, so each run counts once"
    if differ:
        why += f"; that they differ in {', '.join(map(repr, differ[:4]))} makes them no other runs"
    return _without(rows, copied, "a copy of an earlier row", code="copied-rows", why=why)


def _without(rows: _Rows, drop: NDArray[np.bool_], reason: str, *, code: str, why: str) -> _Rows:
    numbers = tuple(rows.frame[ROW].to_numpy()[drop].tolist())
    count = "1 row is" if len(numbers) == 1 else f"{len(numbers)} rows are each"
    finding = Finding(code=code, message=f"{count} {reason} ({rows_text(numbers)}): {why}")
    return replace(
        rows,
        frame=rows.frame.filter(~drop),
        values=rows.values.rows(~drop),
        excluded=(*rows.excluded, Exclusion(reason=reason, rows=numbers)),
        findings=(*rows.findings, finding),
    )


def _sizes(frame: pl.DataFrame, roles: Mapping[str, str], source: str) -> dict[str, FloatArray]:
    """Sizes, tokens and FLOPs by role wherever they can be read, NaN where an entry is none."""
    found: dict[str, FloatArray] = {}
    for role in SIZE_ROLES:
        name = roles.get(role, role)
        if name in frame.columns:
            try:
                found |= read_numbers(frame, {role: name}, source)[0]
            except RequestError:  # a column that nothing reads may hold anything
                continue
    return found


def _points(
    rows: _Rows,
    raw: RawTable,
    used: Mapping[str, str],
    *,
    side: dict[str, FloatArray],
    derive: bool,
) -> Points:
    values = dict(rows.values.numbers)
    read = {*values, *rows.values.labels}
    conventions = _derived_columns(values, derive=derive)
    conventions += [f"{r} = column {n!r}" for r, n in used.items() if r != n and r in read]
    if "budget" in values and "flops" in values and values["flops"] is values["budget"]:
        side = {**side, "flops": values["flops"]}
    row_numbers = rows.frame[ROW].to_numpy().astype(np.int64)
    labels = rows.values.labels
    budgets, budget_source = _budgets(values, labels.get("budget"))
    losses = values.pop("loss")
    return Points(
        columns={r: v for r, v in values.items() if r not in ("loss_std", "weight", "budget")},
        losses=losses,
        weights=values.get("weight", np.ones_like(losses)),
        loss_std=values.get("loss_std"),
        budgets=budgets,
        budget_source=budget_source,
        clusters={
            role: rows.values.labels[role] for role in CLUSTERS if role in rows.values.labels
        },
        row_numbers=row_numbers,
        num_table_rows=raw.frame.height,
        excluded=rows.excluded,
        conventions=(*conventions, *raw.notes, *rows.values.notes),
        findings=rows.findings,
        agreement=flops_agreement(side, row_numbers),
        source=raw.source,
    )


def _derived_columns(values: dict[str, FloatArray], *, derive: bool) -> list[str]:
    """Add tokens or FLOPs that follow from other columns; how, in words."""
    if derive:
        values["tokens"] = values["flops"] / (6.0 * values["params"])
        return ["tokens = flops / (6 params)"]
    if "flops" in values:
        return []
    size = passed_params(values)
    product = 6.0 * size * values["tokens"] if size is not None and "tokens" in values else None
    notes = []
    if "budget" in values:
        if _are_flops(values["budget"], product):
            values["flops"] = values["budget"]
            return ["flops = the budget (the table has no flops)"]
        notes.append("the budget labels groups; it is no number of FLOPs")
    if "params" in values and product is not None:
        values["flops"] = 6.0 * values["params"] * values["tokens"]
        notes.append("flops = 6 params tokens (the table has none that can be used)")
    return notes


def _are_flops(budgets: FloatArray, product: FloatArray | None) -> bool:
    """Whether budgets are FLOPs: near 6 N D, or, where that is not known, large."""
    if product is None:
        return bool(budgets.min() >= FEWEST_FLOPS)
    return bool(abs(np.log(np.median(budgets / product))) <= np.log(BUDGET_FACTOR))


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


def _budgets(
    values: Mapping[str, FloatArray], labels: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64] | None, str | None]:
    if labels is not None:
        return labels, "the budget column"
    if "flops" in values:
        groups = groups_of_equal(values["flops"])
        if groups is not None:
            return groups, "groups of equal flops"
    return None, None
