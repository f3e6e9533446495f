"""What will the laws of a sweep be worth? Expected from the runs that it plans."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from search.asked.experiment import Experiment
from search.design.information import Design, slope_of, slope_of_exponent
from search.design.question import GapQuestion, LawQuestion
from search.design.sweep_runs import belief
from search.limits.law_rows import why_no_law_uses
from search.propose.cells import Ground
from search.propose.coverage import log_size
from search.propose.gap_design import GapDesign
from search.record.trial import Proposal, family_of
from search.record.trial_records import TrialRecord

COVERED = (0.36, 2.8)
"""Of the expected best size: a budget whose sizes reach neither end tells little of exponents."""

WIDE = 0.25
"""A relative half-width beyond which a parameter says little."""
HOPELESS = 1.0
"""From here on it says nothing: the certificate refuses."""

BEYOND = 4.0
"""Of the largest budget: where a law's prediction is looked at."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a design is expected to tell of one quantity."""

    name: str
    value: float
    """As believed now."""
    half_width: float
    """Of its 95 % interval, in its own unit; infinite where the design says nothing."""

    @property
    def relative(self) -> float:
        """The half-width over the value."""
        return self.half_width / abs(self.value)


@dataclass(frozen=True, kw_only=True)
class LawExpectation:
    """One law of the plan."""

    law: str
    family: str
    """The arms whose runs it is of; all where it is across arms."""
    runs: int
    """That it may use."""
    results: int
    """Of these, how many have a result, on which values and noise rest; without, on a prior."""
    noise: float
    """Relative scatter of a loss around the law."""
    expected: tuple[Expected, ...]
    """Empty where there are too few runs."""
    prediction: tuple[float, float] | None
    """Training FLOPs beyond the budgets, and the relative half-width of the loss that the law
    predicts for the best size there; None where it predicts nothing, and across arms."""
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
    records: Sequence[TrialRecord], *, num_train_tokens: int | None
) -> list[LawExpectation]:
    """Chinchilla's law of every family and, of several, the law across them.

    ``records``: all that is done, waits or is planned.
    """
    families: dict[str, list[TrialRecord]] = {}
    for record in records:
        families.setdefault(record.proposal.family, []).append(record)
    found = [
        _expectation("chinchilla", family, families[family], num_train_tokens)
        for family in sorted(families)
    ]
    if len(families) > 1:
        found.append(_expectation("compute-capacity", "all arms", records, num_train_tokens))
    return found


def _expectation(
    law: str, family: str, records: Sequence[TrialRecord], num_train_tokens: int | None
) -> LawExpectation:
    across_arms = law == "compute-capacity"
    known = belief(records, across_arms=across_arms, num_train_tokens=num_train_tokens)
    usable = [
        record.proposal
        for record in records
        if why_no_law_uses(record.proposal.config, num_train_tokens=num_train_tokens) is None
    ]
    expected: tuple[Expected, ...] = ()
    prediction = None
    if known is not None:
        expected = _expected(known.after_all(), across_arms=across_arms)
        if expected and not across_arms:
            prediction = _prediction(known.after_all())
    return LawExpectation(
        law=law,
        family=family,
        runs=len(usable),
        results=0 if known is None else len(known.results),
        noise=math.nan if known is None else known.noise.own,
        expected=expected,
        prediction=prediction,
        uncovered=() if across_arms else _uncovered(usable),
    )


def _expected(design: Design, *, across_arms: bool) -> tuple[Expected, ...]:
    """Of every shape and of the exponent of N* ~ C^a; nothing without a degree of freedom."""
    values = design.model.values
    names = ("alpha", "beta", "phi", "omega") if across_arms else ("alpha", "beta")
    rows = [(name, values[name], slope_of(name)) for name in names]
    a = values["beta"] / (values["alpha"] + values["beta"])
    rows.append(("a", a, slope_of_exponent(design.model)))
    found = [
        Expected(name=name, value=value, half_width=design.half_width(slope))
        for name, value, slope in rows
    ]
    return tuple(found) if any(math.isfinite(each.half_width) for each in found) else ()


def _prediction(design: Design) -> tuple[float, float] | None:
    flops = BEYOND * max(budget for budget, _ in design.runs.orders)
    asked = LawQuestion(name="loss", at_flops=flops, half_width=1.0)
    relative = design.half_width(asked.slope(design.model)) / asked.value(design.model)
    return (flops, relative) if math.isfinite(relative) else None


@dataclass(frozen=True, kw_only=True)
class ExpectedGap:
    """How well two arms' gap at a budget will be known."""

    one: str
    other: str
    train_flops: float
    half_width_nats: float
    """Of its 95 % interval."""


def expected_gaps(
    experiment: Experiment, ground: Ground, records: Sequence[TrialRecord]
) -> list[ExpectedGap]:
    """Every two arms of two families at every budget where these runs will tell their gap."""
    found = []
    for one, other in itertools.combinations(experiment.arms, 2):
        if family_of(one) == family_of(other):
            continue
        for flops in sorted(map(float, experiment.budget.train_flops)):
            asked = GapQuestion(one=one, other=other, at_flops=flops, half_width=math.inf)
            width = GapDesign(experiment, ground, asked).half_width(records, foresee=True)
            if math.isfinite(width):
                found.append(
                    ExpectedGap(one=one, other=other, train_flops=flops, half_width_nats=width)
                )
    return found


def _uncovered(runs: Sequence[Proposal]) -> tuple[str, ...]:
    sizes: dict[float, list[float]] = {}
    for run in runs:
        sizes.setdefault(float(run.budget.train_flops or 0), []).append(math.exp(log_size(run)))
    low, high = COVERED
    return tuple(
        f"{budget:.3g} FLOPs: sizes from {min(each):.2g} to {max(each):.2g} x the expected best"
        for budget, each in sorted(sizes.items())
        if min(each) > low or max(each) < high
    )
