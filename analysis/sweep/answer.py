"""Is a question answered? The quantity and its interval, from the laws and gaps of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.laws.law import FloatArray
from analysis.sweep.sweep_fit import SweepFit
from search.design.gap_runs import SAME_BUDGET
from search.design.question import GapQuestion, LawQuestion, Question
from search.record.trial import family_of


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a fit says to a question."""

    question: Question
    law: str
    """What answers; of a gap, the curves of both arms."""
    value: float | None
    """None where that is refused."""
    interval: tuple[float, float] | None
    """95 %."""
    why_not: str | None
    """Why there is no value."""

    @property
    def half_width(self) -> float:
        """Half the interval; infinite without one."""
        return float("inf") if self.interval is None else (self.interval[1] - self.interval[0]) / 2

    @property
    def is_enough(self) -> bool:
        """Whether the interval is as narrow as was asked for."""
        return self.half_width <= self.question.half_width

    def __str__(self) -> str:
        if self.value is None or self.interval is None:
            return f"{self.question.quantity} is refused by {self.law}: {self.why_not}"
        low, high = self.interval
        said = "as asked" if self.is_enough else f"asked: ± {self.question.half_width:g}"
        return (
            f"{self.question.quantity} = {self.value:.4g}, 95 % interval {low:.4g} to {high:.4g} "
            f"(± {self.half_width:.3g}; {said}), by {self.law}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "question": str(self.question),
            "law": self.law,
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
            "is_enough": self.is_enough,
            "why_not": self.why_not,
        }


def answer(question: Question, found: SweepFit) -> Answer:
    """Of a law from that across arms where there is one, else from the one arm's; of a gap from the
    fitted minima of both arms."""
    if isinstance(question, GapQuestion):
        return _answer_of_gap(question, found)
    fitted = found.arms[0].surface if found.capacity is None else found.capacity
    needed = question.needs
    refused = [
        name for name in needed if name not in fitted.optimum or fitted.certificate.refuses(name)
    ]
    if refused or fitted.replicates is None:
        reasons = [r.message for r in fitted.certificate.reasons if r.status == "refused"]
        return Answer(
            question=question,
            law=fitted.law.name,
            value=None,
            interval=None,
            why_not="; ".join(reasons) or f"{', '.join(refused)} cannot be told",
        )
    names = fitted.law.parameters
    draws = {name: fitted.replicates.outer[:, place] for place, name in enumerate(names)}
    value = float(_quantity(question, {n: np.array(fitted.optimum[n]) for n in needed}))
    spread = _quantity(question, {name: draws[name] for name in needed})
    return Answer(
        question=question,
        law=fitted.law.name,
        value=value,
        interval=fitted.replicates.interval(value, spread, positive=value > 0),
        why_not=None,
    )


def _answer_of_gap(question: GapQuestion, found: SweepFit) -> Answer:
    families = family_of(question.one), family_of(question.other)
    trends = [each for each in found.trends if {each.one, each.other} == set(families)]
    gaps = [
        (gap, 1 if trend.one == families[0] else -1)
        for trend in trends
        for gap in trend.gaps
        if math.isclose(gap.train_flops, question.at_flops, rel_tol=SAME_BUDGET)
    ]
    value, interval = None, None
    why_not: str | None = "both arms need results at this budget"
    told: set[str] = set()
    for gap, sign in gaps:
        why_not = gap.refused
        if gap.gap_nats is not None and gap.interval is not None:
            low, high = sorted(sign * end for end in gap.interval)
            value, interval = sign * gap.gap_nats, (low, high)
            told = {"best-loops"} if gap.is_of_line else {"mixed-loops"}
            told |= {"loops-left-out"} if any(gap.left_out) else set()
    said = [each.message for trend in trends for each in trend.reasons if each.code in told]
    return Answer(
        question=question,
        law="; ".join(["the curves of both arms", *said]),
        value=value,
        interval=interval,
        why_not=why_not,
    )


def _quantity(question: LawQuestion, p: Mapping[str, FloatArray]) -> FloatArray:
    """Of parameters, each (m,) or a scalar."""
    if question.name == "a":
        return np.asarray(p["beta"] / (p["alpha"] + p["beta"]))
    if question.at_flops is None:
        return np.asarray(p[question.name])
    alpha, beta = p["alpha"], p["beta"]  # C = 6 N D (arXiv 2203.15556, section 3.3)
    log_product = np.log(question.at_flops / 6)
    log_size = (np.log(alpha * p["A"] / (beta * p["B"])) + beta * log_product) / (alpha + beta)
    by_size = p["A"] * np.exp(-alpha * log_size)
    return np.asarray(p["E"] + by_size + p["B"] * np.exp(-beta * (log_product - log_size)))
