"""Which laws are known by name? Those that ship, and those that a user adds."""

from __future__ import annotations

from analysis.laws.law import Law
from analysis.laws.standard_laws import STANDARD_LAWS
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
