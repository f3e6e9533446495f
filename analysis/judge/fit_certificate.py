"""May a fit be believed? A status and its reasons, for the fit and for every parameter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from spaces.shown import Block, Shown, Table

Status = Literal["ok", "warn", "refused"]

_ORDER: dict[Status, int] = {"ok": 0, "warn": 1, "refused": 2}


def worst(statuses: Iterable[Status]) -> Status:
    """The most severe of several statuses; ``ok`` of none."""
    return max(statuses, key=_ORDER.__getitem__, default="ok")


@dataclass(frozen=True, kw_only=True)
class Reason:
    """One finding: a code for programs, a sentence for people."""

    code: str
    """Short and stable, words joined by hyphens."""
    status: Status
    """What it does to the fit and to the parameters that it names; ``ok`` is a note."""
    message: str
    """What was found, with the values, and what to do about it."""
    parameters: tuple[str, ...] = ()
    """Parameters that it concerns; none means the whole fit."""

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "code": self.code,
            "status": self.status,
            "parameters": list(self.parameters),
            "message": self.message,
        }


@dataclass(frozen=True, kw_only=True)
class Certificate(Shown):
    """All findings about one fit; ``refused`` is a result, not an error."""

    reasons: tuple[Reason, ...]
    """In the order in which they were found."""
    parameters: tuple[str, ...]
    """The parameters that are judged."""
    assumes: str
    """Which noise the intervals assume."""
    measures: Mapping[str, Any]
    """The numbers behind the findings: condition, collinearity, gradient, noise."""

    @property
    def status(self) -> Status:
        """The worst of all reasons; `parameter_status` tells which figures still stand."""
        return worst(reason.status for reason in self.reasons)

    @property
    def refused_outright(self) -> bool:
        """Whether the fit as a whole is refused, so that it predicts nothing."""
        return any(r.status == "refused" and not r.parameters for r in self.reasons)

    def parameter_status(self, name: str) -> Status:
        """The worst of the reasons that name this parameter or the whole fit."""
        return worst(r.status for r in self.reasons if not r.parameters or name in r.parameters)

    def refuses(self, *names: str) -> bool:
        """Whether one of these parameters is refused."""
        return any(self.parameter_status(name) == "refused" for name in names)

    def has(self, code: str) -> bool:
        """Whether a reason of that code was found."""
        return any(reason.code == code for reason in self.reasons)

    def blocks(self) -> list[Block]:
        """Its status and what it rests on, then every reason."""
        return [
            f"certificate: {self.status}; intervals assume: {self.assumes}",
            Table(
                caption="reasons",
                columns=("status", "code", "concerns", "found"),
                rows=tuple(
                    (each.status, each.code, ", ".join(each.parameters) or "all", each.message)
                    for each in self.reasons
                ),
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The ``certificate`` entry of a fit's JSON document."""
        return {
            "status": self.status,
            "reasons": [reason.to_dict() for reason in self.reasons],
            "parameters": {name: self.parameter_status(name) for name in self.parameters},
            "assumes": self.assumes,
            "measures": dict(self.measures),
        }
