"""What shall a law tell, and how well? ``phi +- 0.05``, ``a +- 0.02``, ``loss@1e18 +- 0.01``."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from search.design.information import slope_of, slope_of_exponent, slopes_of_losses
from search.design.law_model import COEFFICIENTS, PARAMETERS, FloatArray, LawModel, LawRuns
from spaces.errors import RequestError

EXPONENTS = tuple(name for name in PARAMETERS if name not in COEFFICIENTS)
NAMES = (*EXPONENTS, "a", "loss@FLOPs")
"""What a question may be about; a is that of N* ~ C^a, the loss that of C = 6 N D's frontier."""
ACROSS_ARMS = ("phi", "omega")
"""Only a law across arms has them."""

_FORM = re.compile(r"\s*(\w+)(?:@([0-9.eE+]+))?\s*(?:\+-|\+/-|±)\s*([0-9.eE+-]+)\s*")


@dataclass(frozen=True, kw_only=True)
class Question:
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


def parse_question(words: str) -> Question:
    """A question in words. Raises `RequestError` for another form, name or width."""
    match = _FORM.fullmatch(words)
    name, at, width = match.groups() if match else ("", None, "")
    known = name in (*EXPONENTS, "a") if at is None else name == "loss"
    half_width, at_flops = _positive(width), _positive(at) if at is not None else None
    if not known or half_width is None or (at is not None and at_flops is None):
        raise RequestError(
            f"a question has the form 'phi +- 0.05' with one of {', '.join(NAMES)} (as in "
            f"'loss@1e18 +- 0.01', nats) and a positive half-width, got {words!r}"
        )
    return Question(name=name, half_width=half_width, at_flops=at_flops)


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
