"""What shall a sweep tell, and how well? ``phi +- 0.05``, ``loss@1e18 +- 0.01``, or a gap of arms.

A question of a law is answered by its fit; a gap of two arms at a budget by the fitted minima of
their curves there, without any law.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from search.design.information import slope_of, slope_of_exponent, slopes_of_losses
from search.design.law_model import COEFFICIENTS, PARAMETERS, FloatArray, LawModel, LawRuns
from spaces.errors import RequestError

EXPONENTS = tuple(name for name in PARAMETERS if name not in COEFFICIENTS)
NAMES = (*EXPONENTS, "a", "loss@FLOPs", "gap(ARM, ARM)@FLOPs")
"""What a question may be about; a is that of N* ~ C^a, the loss that of C = 6 N D's frontier, a gap
is the second arm's fitted minimum at a budget less the first's."""
ACROSS_ARMS = ("phi", "omega")
"""Only a law across arms has them."""

_NUMBER = r"[0-9.eE+]+"
_WIDTH = r"\s*(?:\+-|\+/-|±)\s*([0-9.eE+-]+)\s*"
_OF_LAW = re.compile(rf"\s*(\w+)(?:@({_NUMBER}))?{_WIDTH}")
_OF_GAP = re.compile(rf"\s*gap\(\s*([\w-]+)\s*,\s*([\w-]+)\s*\)@({_NUMBER}){_WIDTH}")


@dataclass(frozen=True, kw_only=True)
class LawQuestion:
    """One quantity of a law, and how narrow its interval shall be."""

    name: str
    """A parameter, a, or loss."""
    half_width: float
    """Of the 95 % interval, in the quantity's unit (loss: nats)."""
    at_flops: float | None = None
    """Training FLOPs of a loss."""

    def __str__(self) -> str:
        return f"{self.quantity} ± {self.half_width:g}"

    @property
    def quantity(self) -> str:
        """phi, a, or loss@1e+18."""
        return self.name if self.at_flops is None else f"{self.name}@{self.at_flops:g}"

    @property
    def needs(self) -> tuple[str, ...]:
        """The law's parameters that the quantity is made of."""
        if self.at_flops is not None:
            return (*COEFFICIENTS, "alpha", "beta")
        return ("alpha", "beta") if self.name == "a" else (self.name,)

    def value(self, model: LawModel) -> float:
        """The quantity as the law has it."""
        if self.name == "a":
            alpha, beta = model.values["alpha"], model.values["beta"]
            return beta / (alpha + beta)
        if self.at_flops is not None:
            return float(model.losses(best_run(model, self.at_flops))[0])
        return model.values[self.name]

    def slope(self, model: LawModel) -> FloatArray:
        """Its derivatives by the parameters, (P,)."""
        if self.name == "a":
            return slope_of_exponent(model)
        if self.at_flops is not None:  # at the best size, a change of that size moves nothing
            return np.asarray(slopes_of_losses(model, best_run(model, self.at_flops))[0])
        return slope_of(self.name)


@dataclass(frozen=True, kw_only=True)
class GapQuestion:
    """How far apart are two arms at the minima of their curves at one budget?"""

    one: str
    other: str
    """The gap is this arm's minimum less that of the first: positive where the first is better."""
    at_flops: float
    """Training FLOPs of the budget."""
    half_width: float
    """Of the 95 % interval, nats."""

    def __str__(self) -> str:
        return f"{self.quantity} ± {self.half_width:g}"

    @property
    def quantity(self) -> str:
        """gap(dual, standard)@1e+15."""
        return f"gap({self.one}, {self.other})@{self.at_flops:g}"


Question: TypeAlias = LawQuestion | GapQuestion


def parse_question(words: str) -> Question:
    """A question in words. Raises `RequestError` for another form, name or width."""
    return _gap_question(words) or _law_question(words)


def _gap_question(words: str) -> GapQuestion | None:
    match = _OF_GAP.fullmatch(words)
    if match is None:
        return None
    one, other, at, width = match.groups()
    at_flops, half_width = _positive(at), _positive(width)
    if one == other or at_flops is None or half_width is None:
        raise RequestError(
            f"a gap is that of two arms at a budget, as in 'gap(dual, standard)@1e15 +- 0.01' "
            f"(nats), got {words!r}"
        )
    return GapQuestion(one=one, other=other, at_flops=at_flops, half_width=half_width)


def _law_question(words: str) -> LawQuestion:
    match = _OF_LAW.fullmatch(words)
    name, at, width = match.groups() if match else ("", None, "")
    known = name in (*EXPONENTS, "a") if at is None else name == "loss"
    half_width, at_flops = _positive(width), _positive(at) if at is not None else None
    if not known or half_width is None or (at is not None and at_flops is None):
        raise RequestError(
            f"a question has the form 'phi +- 0.05' with one of {', '.join(NAMES)} (as in "
            f"'loss@1e18 +- 0.01' or 'gap(dual, standard)@1e15 +- 0.01', nats) and a positive "
            f"half-width, got {words!r}"
        )
    return LawQuestion(name=name, half_width=half_width, at_flops=at_flops)


def _positive(words: str) -> float | None:
    try:
        value = float(words)
    except ValueError:
        return None
    return value if 0 < value < float("inf") else None


def best_run(model: LawModel, train_flops: float) -> LawRuns:
    """The ordinary model of the lowest loss at C = 6 N D (arXiv 2203.15556, section 3.3)."""
    values = model.values
    alpha, beta = values["alpha"], values["beta"]
    log_product = np.log(train_flops / 6.0)
    log_size = (
        np.log(alpha * values["A"] / (beta * values["B"]))
        + alpha * model.log_size
        + beta * (log_product - model.log_tokens)
    ) / (alpha + beta)
    nothing = np.zeros(1)
    return LawRuns(
        params_once=np.exp(np.array([log_size])),
        params_deep=nothing,
        params_wide=nothing,
        num_loops=np.ones(1),
        tokens=np.exp(np.array([log_product - log_size])),
        costs=np.array([float(train_flops)]),
        orders=((float(train_flops), 0),),
    )
