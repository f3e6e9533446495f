"""What do people do with a law? Exponents a and b, optimal sizes and tokens, loss at a budget.

Everything here is exact algebra under the convention ``C = 6 N D`` (arXiv 2203.15556, section 3.3):
``N*(C) = G (C/6)^a``, ``D*(C) = (C/6)^b / G``, ``a = beta / (alpha + beta)``, ``b = 1 - a``,
``G = (alpha A / (beta B))^(1 / (alpha + beta))``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.laws.law import FloatArray, Law

FLOPS_CONVENTION = "C = 6 N D"


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A derived quantity for a batch of parameter vectors."""

    name: str
    """Its name in the JSON document."""
    values: Any
    """(R,)."""
    needs: tuple[str, ...]
    """Parameters without which it is not given."""
    positive: bool = True
    """Whether its interval is taken on the logarithm."""
    at_flops: float | None = None
    """FLOPs at which it is taken."""
    at_loss: float | None = None
    """Loss at which it is taken, nats."""


def derived_quantities(
    law: Law,
    values: Mapping[str, FloatArray],
    *,
    at_flops: Sequence[float] = (),
    at_losses: Sequence[float] = (),
) -> list[Quantity]:
    """All quantities that a law offers, for parameter values of shape (R,) each."""
    with np.errstate(all="ignore"):
        quantities = _exponents(law, values) + _loop_gain(law, values)
        if law.name == "chinchilla":
            for flops in at_flops:
                quantities += _frontier(values, flops)
            for loss in at_losses:
                quantities.append(_flops_at(values, loss))
        if law.name == "power":
            for loss in at_losses:
                quantities.append(_size_at(law, values, loss))
    return quantities


def _exponents(law: Law, values: Mapping[str, FloatArray]) -> list[Quantity]:
    if not {"alpha", "beta"} <= set(law.exponents):
        return []
    alpha, beta = values["alpha"], values["beta"]
    both = ("alpha", "beta")
    return [
        Quantity(name="a", values=beta / (alpha + beta), needs=both, positive=False),
        Quantity(name="b", values=alpha / (alpha + beta), needs=both, positive=False),
        Quantity(name="loss_exponent", values=alpha * beta / (alpha + beta), needs=both),
    ]


def _loop_gain(law: Law, values: Mapping[str, FloatArray]) -> list[Quantity]:
    """Extra effective parameters per looped parameter at K = 4."""
    name = "extra_params_per_deep_param_k4"
    if "phi" in law.shape:
        gain = 4.0 ** values["phi"] - 1.0
        return [Quantity(name=name, values=gain, needs=("phi",), positive=False)]
    if {"k1", "k2"} <= set(law.shape):
        gain = values["k1"] * (1.0 - np.exp(-3.0 / values["k2"]))
        return [Quantity(name=name, values=gain, needs=("k1", "k2"), positive=False)]
    return []


def optimal_params(values: Mapping[str, Any], flops: Any) -> Any:
    """N*(C) of Chinchilla's law; broadcasts."""
    alpha, beta = values["alpha"], values["beta"]
    scale = (alpha * values["A"] / (beta * values["B"])) ** (1.0 / (alpha + beta))
    return scale * (flops / 6.0) ** (beta / (alpha + beta))


def optimal_loss(values: Mapping[str, Any], flops: Any) -> Any:
    """Loss on the frontier at C, nats; broadcasts."""
    params = optimal_params(values, flops)
    tokens = flops / (6.0 * params)
    by_size = values["A"] * params ** -values["alpha"]
    return values["E"] + by_size + values["B"] * tokens ** -values["beta"]


def _frontier(values: Mapping[str, FloatArray], flops: float) -> list[Quantity]:
    params = optimal_params(values, flops)
    tokens = flops / (6.0 * params)
    needs = ("A", "B", "alpha", "beta")
    return [
        Quantity(name="n_star", values=params, needs=needs, at_flops=flops),
        Quantity(name="d_star", values=tokens, needs=needs, at_flops=flops),
        Quantity(name="tokens_per_param", values=tokens / params, needs=needs, at_flops=flops),
        Quantity(
            name="loss", values=optimal_loss(values, flops), needs=("E", *needs), at_flops=flops
        ),
    ]


def _flops_at(values: Mapping[str, FloatArray], loss: float) -> Quantity:
    """FLOPs whose frontier loss is ``loss``; NaN where the law never gets there."""
    alpha, beta = values["alpha"], values["beta"]
    excess_at_six = optimal_loss(values, 6.0) - values["E"]
    reach = np.where(loss > values["E"], loss - values["E"], np.nan)
    exponent = alpha * beta / (alpha + beta)
    flops = 6.0 * (reach / excess_at_six) ** (-1.0 / exponent)
    return Quantity(
        name="flops", values=flops, needs=("E", "A", "B", "alpha", "beta"), at_loss=loss
    )


def _size_at(law: Law, values: Mapping[str, FloatArray], loss: float) -> Quantity:
    """The power law's variable at which it reaches ``loss``; NaN where it never does."""
    reach = np.where(loss > values["E"], loss - values["E"], np.nan)
    size = (reach / values["A"]) ** (-1.0 / values["alpha"])
    return Quantity(name=law.roles[0], values=size, needs=("E", "A", "alpha"), at_loss=loss)
