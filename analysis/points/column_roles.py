"""Which column plays which role? What a law reads, what was asked for, what is there besides."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from analysis.points.table_files import RawTable
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
    "epochs",
    "data_seed",
    "trunk",
    "schedule",
)
"""What a column can mean."""

LABELS = ("budget", "data_seed", "trunk", "schedule")
"""Roles whose entries name groups: numbers or words."""

READ_UNASKED = ("flops", "loss_std", "epochs", *LABELS)
"""Roles that are read beside the law's wherever the table has a column of their name."""

ONLY_ASKED = ("weight",)
"""Roles that change a fit and are never taken from a column's name alone."""


@dataclass(frozen=True, kw_only=True)
class RoleColumns:
    """Columns by role."""

    needed: Mapping[str, str]
    """What the fit cannot do without: every entry must be usable."""
    optional: Mapping[str, str]
    """What the fit uses where every entry is usable, and does without otherwise."""
    notes: tuple[str, ...]
    """Columns that look like a role and are not used."""


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


def columns_by_role(
    table: RawTable, names: Mapping[str, str], wanted: set[str], *, asked: Collection[str]
) -> RoleColumns:
    """Columns of a table for the roles ``wanted`` and for those that it offers besides.

    ``names`` are the columns of roles that are not called like their role, ``asked`` the roles
    whose column was named by whoever asks.

    Raises `RequestError` that names missing columns, or a name that two columns carry.
    """
    there = set(table.frame.columns)
    _require_there(table, names, wanted | set(asked))
    sure = wanted | ({"weight", "loss_std", "budget"} & set(asked))
    columns = {role: names.get(role, role) for role in ROLES}
    needed = {role: name for role, name in columns.items() if role in sure}
    optional = {
        role: name
        for role, name in columns.items()
        if role not in needed and (role in asked or (role in READ_UNASKED and name in there))
    }
    for role, name in (needed | optional).items():
        _require_one_column(table, role, name, named=role in asked)
    notes = _looks_like_a_role(table, names, [*needed, *optional])
    return RoleColumns(needed=needed, optional=optional, notes=notes)


def _require_there(table: RawTable, names: Mapping[str, str], wanted: set[str]) -> None:
    missing = [
        f"{role} (column {names.get(role, role)!r})"
        for role in ROLES
        if role in wanted and names.get(role, role) not in table.frame.columns
    ]
    if missing:
        raise RequestError(
            f"the table has no column for {', '.join(missing)}; it has "
            f"{', '.join(map(repr, table.frame.columns))}; name one with --column ROLE=COLUMN"
        )


def _looks_like_a_role(
    table: RawTable, roles: Mapping[str, str], used: Sequence[str]
) -> tuple[str, ...]:
    """What to say of columns that a reader could take for one of a role."""
    names = table.frame.columns
    notes = [
        f"the column {role!r} is not used; --column {role}={role} lets it weight the rows"
        for role in ONLY_ASKED
        if role in names and role not in roles
    ]
    notes += [
        f"the column {other!r} is not used, {role!r} is; --column {role}={other} takes the other"
        for role in used
        for other in names
        if role not in roles and other != role and other.lower() == role
    ]
    return tuple(notes)


def _require_one_column(table: RawTable, role: str, name: str, *, named: bool) -> None:
    """Raises `RequestError` where a second column carries the name, as given or as renamed."""
    if name in table.repeated:
        raise RequestError(
            f"a column's name must be its own, but {table.source} has more than one column "
            f"{name!r}, and {role} may be any of them; rename or drop the others"
        )
    renamed = re.compile(rf"{re.escape(name)}(\.\d+|_duplicated_\d+)")
    others = [other for other in table.frame.columns if renamed.fullmatch(other)]
    if others and not named:
        listed = ", ".join(map(repr, others))
        raise RequestError(
            f"a column's name must be its own, but {table.source} has {listed} "
            f"beside {name!r}, as programs rename a second column {name!r}; say which holds the "
            f"{role} with --column {role}=COLUMN"
        )
