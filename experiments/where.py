"""Which results does a person ask for? ``best --where "arm = dual and parameters < 5e6"``.

The same conditions filter the leaderboard here and, as one link, the runs page of MLflow.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from analysis.sweep.leaderboard import Entry, Leaderboard
from runners.mlflow.saved_view import RESULTS_FILTER
from spaces.errors import RequestError

OPERATORS: Mapping[str, Callable[[Any, Any], object]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
WORDS = {"arm": "tags.`isoflop.arm`"}
"""What is no number, and where MLflow has it."""

CONDITION = re.compile(r"\s*([\w.]+)\s*(<=|>=|!=|=|<|>)\s*(\S.*?)\s*")


@dataclass(frozen=True)
class Condition:
    """One comparison."""

    name: str
    operator: str
    value: float | str

    def holds(self, entry: Entry) -> bool:
        """Whether a result meets it; one without the number does not."""
        found = entry.record.proposal.arm if self.name in WORDS else entry.numbers.get(self.name)
        return found is not None and bool(OPERATORS[self.operator](found, self.value))

    def in_mlflow(self) -> str:
        """As MLflow's search has it."""
        if isinstance(self.value, str):
            return f"{WORDS[self.name]} {self.operator} '{self.value}'"
        return f"metrics.`{self.name}` {self.operator} {self.value:.12g}"


def conditions(text: str, found: Leaderboard) -> tuple[Condition, ...]:
    """Comparisons joined by ``and``. Raises `RequestError` for another form or an unknown name."""
    known = {name for board in found.budgets for entry in board.entries for name in entry.numbers}
    parts = re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE)
    return tuple(_condition(part, known) for part in parts)


def _condition(text: str, known: set[str]) -> Condition:
    match = CONDITION.fullmatch(text)
    if match is None:
        raise RequestError(
            f"--where: {text!r} is no comparison; write such as: arm = dual and parameters < 5e6"
        )
    name, sign, value = match.groups()
    if name in WORDS:
        if sign not in ("=", "!="):
            raise RequestError(f"--where: {name} is a word and takes = or !=, got {sign!r}")
        return Condition(name, sign, value.strip("'\""))
    if name not in known:
        near = difflib.get_close_matches(name, [*known, *WORDS], n=3)
        hint = f"; did you mean {', '.join(near)}?" if near else "; --json lists the numbers"
        raise RequestError(f"--where: no result has a number {name!r}{hint}")
    try:
        return Condition(name, sign, float(value))
    except ValueError:
        raise RequestError(f"--where: {name} is a number, got {value!r}") from None


def only(found: Leaderboard, asked: tuple[Condition, ...]) -> Leaderboard:
    """The results that meet all conditions; what is said of whole budgets stays."""
    boards = (
        replace(board, entries=tuple(e for e in board.entries if all(c.holds(e) for c in asked)))
        for board in found.budgets
    )
    return replace(found, budgets=tuple(board for board in boards if board.entries))


def mlflow_filter(asked: tuple[Condition, ...]) -> str:
    """The search of MLflow's runs page that shows the same runs."""
    return " and ".join([RESULTS_FILTER, *(each.in_mlflow() for each in asked)])
