"""Which laws are known by name? Those that ship, and those that a user adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.laws.law import Law
from analysis.laws.standard_laws import POWER_VARIABLES, STANDARD_LAWS, power_law
from spaces.errors import RequestError

_LAWS: dict[str, Law] = {law.name: law for law in STANDARD_LAWS}


def register(law: Law) -> Law:
    """Make a law known by its name; the same name again replaces it. Returns the law."""
    _LAWS[law.name] = law
    return law


def law_names() -> tuple[str, ...]:
    """All names that ``--law`` takes, ``isoflop`` (curves, not a surface) among them."""
    return (*_LAWS, "isoflop")


def law_named(name: str) -> Law:
    """The law of that name. Raises `RequestError` that lists the names."""
    if name not in _LAWS:
        raise RequestError(f"no law is called {name!r}; use one of {', '.join(law_names())}")
    return _LAWS[name]


def power_law_of(columns: Sequence[str], roles: Mapping[str, str], over: str | None) -> Law:
    """The power law over the role asked for, or over the only one that a table's columns offer.

    Raises `RequestError` where there is more than one, or none.
    """
    found = [role for role in POWER_VARIABLES if roles.get(role, role) in columns]
    chosen = [role for role in found if role in roles] or found
    if over is not None:
        chosen = [over]
    if len(chosen) != 1 or chosen[0] not in POWER_VARIABLES:
        raise RequestError(
            f"the power law runs over one of {', '.join(POWER_VARIABLES)}; the table offers "
            f"{', '.join(found) or 'none'}; choose with --over ROLE"
        )
    return power_law(chosen[0])
