"""What will the laws of a sweep be worth? Expected from the runs that it plans."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.judge.expected_intervals import HOPELESS, WIDE, Expected, expected_intervals
from analysis.laws.law_registry import law_named
from search.limits.law_rows import why_no_law_uses
from search.propose.coverage import log_size
from search.record.numbers import configuration_numbers
from search.record.trial import Proposal
from spaces.errors import RequestError

CAPACITY = "compute-capacity"
COVERED = (0.36, 2.8)
"""Of the expected best size: a budget whose sizes reach neither end tells little of exponents."""


@dataclass(frozen=True, kw_only=True)
class LawExpectation:
    """One law of the plan."""

    law: str
    family: str
    """The arms whose runs it is of; all where it is across arms."""
    runs: int
    """That it may use."""
    expected: tuple[Expected, ...]
    """Empty where there are too few runs."""
    uncovered: tuple[str, ...]
    """Budgets whose sizes do not reach a third or three times the expected best one, in words."""

    @property
    def verdict(self) -> str:
        """stands, wide, or no law."""
        widths = [each.relative for each in self.expected if each.name != "E"]
        if not widths or max(widths) > HOPELESS:
            return "no law"
        return "wide" if max(widths) > WIDE else "stands"


def expectations(
    proposals: Sequence[Proposal], *, num_train_tokens: int | None
) -> list[LawExpectation]:
    """Chinchilla's law of every family and, of several, the law across them."""
    usable = [
        each
        for each in proposals
        if why_no_law_uses(each.config, num_train_tokens=num_train_tokens) is None
    ]
    families = sorted({each.family for each in proposals})
    found = [
        _expectation("chinchilla", family, [each for each in usable if each.family == family])
        for family in families
    ]
    if len(families) > 1:
        found.append(_expectation(CAPACITY, "all arms", usable))
    return found


def _expectation(law: str, family: str, runs: Sequence[Proposal]) -> LawExpectation:
    num_budgets = len({run.budget.train_flops for run in runs})
    expected = (
        expected_intervals(law_named(law), _columns(runs), num_budgets=num_budgets) if runs else []
    )
    sizes: dict[float, list[float]] = {}
    for run in runs:
        sizes.setdefault(float(run.budget.train_flops or 0), []).append(math.exp(log_size(run)))
    low, high = COVERED
    uncovered = tuple(
        f"{budget:.3g} FLOPs: sizes from {min(each):.2g} to {max(each):.2g} x the expected best"
        for budget, each in sorted(sizes.items())
        if min(each) > low or max(each) < high
    )
    return LawExpectation(
        law=law,
        family=family,
        runs=len(runs),
        expected=tuple(expected),
        uncovered=uncovered if law != CAPACITY else (),
    )


def _columns(runs: Sequence[Proposal]) -> Mapping[str, np.ndarray]:
    """Sizes and tokens by the laws' names, (n,) each."""
    rows = [configuration_numbers(run) for run in runs]
    names = {
        "params": "parameters",
        "tokens": "tokens",
        "params_once": "parameters_shared",
        "params_deep": "parameters_deep",
        "params_wide": "parameters_wide",
        "num_loops": "num_loops",
    }
    return {
        role: np.array([float(row.get(name) or (name == "num_loops")) for row in rows])
        for role, name in names.items()
    }


@dataclass(frozen=True)
class Power:
    """How many runs of a plan's kind a question takes."""

    question: str
    now: float
    """Expected half-width of the plan as it is."""
    times: float
    """By which its runs have to be multiplied, each with other seeds or sizes between."""


def power(question: str, found: Sequence[LawExpectation]) -> list[Power]:
    """What ``name +- half-width`` takes, for every law that has the name.

    Raises `RequestError` for another form, or a name that no law has.
    """
    match = re.fullmatch(r"\s*(\w+)\s*(?:\+-|\+/-|±)\s*([0-9.eE+-]+)\s*", question)
    names = sorted({each.name for law in found for each in law.expected})
    try:
        target = float(match.group(2)) if match else 0.0
    except ValueError:
        target = 0.0
    if match is None or match.group(1) not in names or not target > 0:
        raise RequestError(
            f"a question has the form 'phi +- 0.05' with one of {', '.join(names) or 'no names'}, "
            f"got {question!r}"
        )
    return [
        Power(
            question=f"{law.family}, {law.law}: {each.name} ± {target:g}",
            now=each.half_width,
            times=max(1.0, (each.half_width / target) ** 2),
        )
        for law in found
        for each in law.expected
        if each.name == match.group(1)
    ]
