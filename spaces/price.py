"""What does something cost? FLOPs of a sequence, parameters and kept bytes, as values that add up.

A price is that of one sequence of ``context_length`` tokens. FLOPs are 2 per multiply-add of matrix
products and attention scores; element-wise operators, norms, softmax and look-ups count zero. Every
number is a Python integer or an array of int64: one formula prices one architecture and a million.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = "int | NDArray[np.int64]"
"""A number or an array of them; arrays broadcast against each other."""

Convention = Literal["full", "causal", "projection"]
CONVENTIONS: tuple[Convention, ...] = ("full", "causal", "projection")
"""Attention scores over the whole square (what fvcore and PyTorch count), half of it (what a flash
kernel runs), or none (as arXiv 2605.30202 matches its models)."""

Part = Literal["embedding", "head", "deep", "wide", "shared"]
PARTS: tuple[Part, ...] = ("embedding", "head", "deep", "wide", "shared")
"""Where parameters and FLOPs sit: look-up, output matrix, what is applied again and again or is the
only path, what is applied once beside it, and what mixes (gates, routers, the final norm)."""

BODY_PARTS: tuple[Part, ...] = ("deep", "wide", "shared")
"""Those between embedding and head."""

BACKWARD_PER_FORWARD = 2
"""A backward pass costs two forward passes: gradients of inputs and of weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """FLOPs of one pass over one sequence."""

    products: Any = 0
    """Matrix products."""
    scores: Any = 0
    """Attention scores and their use, over the whole square."""

    def flops(self, convention: Convention) -> Any:
        """The pass in one convention."""
        counted = {"full": self.scores, "causal": self.scores // 2, "projection": 0}
        return self.products + counted[convention]

    def __add__(self, other: Pass) -> Pass:
        return Pass(products=self.products + other.products, scores=self.scores + other.scores)

    def __mul__(self, times: Any) -> Pass:
        return Pass(products=self.products * times, scores=self.scores * times)


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """What a piece of a model costs. ``a + b`` has both, ``a * n`` n of them with weights each."""

    forward: Pass = Pass()
    """One forward pass in training, as the machine runs it: what a budget pays."""
    backward: Pass = Pass()
    """One backward pass in training; less than twice the forward pass where it is cut short."""
    inference: Pass = Pass()
    """One pass at inference: less where tokens leave early or a head serves training only."""
    expected: Pass = Pass()
    """The forward pass of training in expectation, where depth or route is random."""
    parameters: Any = 0
    """Stored."""
    active_parameters: Any = 0
    """Used by one token."""
    kept_bytes: Any = 0.0
    """Kept for the backward pass by the GPU engine in bfloat16, per sequence."""
    passing_bytes: Any = 0.0
    """There only while its gradient passes; of several pieces the most counts."""

    def __add__(self, other: Price) -> Price:
        return Price(
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
            inference=self.inference + other.inference,
            expected=self.expected + other.expected,
            parameters=self.parameters + other.parameters,
            active_parameters=self.active_parameters + other.active_parameters,
            kept_bytes=self.kept_bytes + other.kept_bytes,
            passing_bytes=_larger(self.passing_bytes, other.passing_bytes),
        )

    def __mul__(self, copies: Any) -> Price:
        return replace(
            self.applied(copies),
            parameters=self.parameters * copies,
            active_parameters=self.active_parameters * copies,
        )

    def applied(self, times: Any) -> Price:
        """The piece run so often with the same weights."""
        return Price(
            forward=self.forward * times,
            backward=self.backward * times,
            inference=self.inference * times,
            expected=self.expected * times,
            parameters=self.parameters,
            active_parameters=self.active_parameters,
            kept_bytes=self.kept_bytes * times,
            passing_bytes=self.passing_bytes,
        )

    @property
    def training(self) -> Pass:
        """One sequence trained on: forward and backward."""
        return self.forward + self.backward


Prices: TypeAlias = Mapping[Part, Price]
"""A model's price by part; parts that it lacks are absent."""

NOTHING = Price()


def plain_price(
    *,
    products: Any = 0,
    scores: Any = 0,
    parameters: Any = 0,
    active_parameters: Any | None = None,
    kept_bytes: Any = 0.0,
    passing_bytes: Any = 0.0,
) -> Price:
    """The price of what every token passes once: backward is twice forward, inference is forward.

    ``active_parameters`` left out: all of them.
    """
    forward = Pass(products=products, scores=scores)
    return Price(
        forward=forward,
        backward=forward * BACKWARD_PER_FORWARD,
        inference=forward,
        expected=forward,
        parameters=parameters,
        active_parameters=parameters if active_parameters is None else active_parameters,
        kept_bytes=kept_bytes,
        passing_bytes=passing_bytes,
    )


def _larger(one: Any, other: Any) -> Any:
    arrays = isinstance(one, np.ndarray) or isinstance(other, np.ndarray)
    return np.maximum(one, other) if arrays else max(one, other)


def total(prices: Prices) -> Price:
    """All parts together."""
    return sum(prices.values(), NOTHING)
