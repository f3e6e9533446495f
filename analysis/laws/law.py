"""What is a scaling law? A small value: decaying terms of named columns above an irreducible loss.

Every law here reads ``loss = E + sum_j A_j exp(-e_j s_j)``. The coefficients ``E, A_j >= 0`` enter
linearly; the exponents ``e_j`` and the shape parameters inside ``s_j`` (the logarithm of a size)
do not. A law of your own needs ten lines::

    def log_of_tokens(columns, shape):
        return np.log(columns["tokens"]), ()

    register(
        Law(
            name="tokens-only",
            formula="L = E + B tokens^-beta",
            roles=("tokens",),
            terms=(Term(coefficient="B", exponent="beta", log_size=log_of_tokens),),
        )
    )
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Columns = Mapping[str, FloatArray]
"""Role to values, each of shape (n,)."""
Shape = Mapping[str, Any]
"""Shape parameter to values that broadcast against (n,), possibly complex."""
LogSize = Callable[[Columns, Shape], tuple[Any, tuple[Any, ...]]]
"""Log size (..., n), and its derivatives by the term's shape parameters in their order."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Where a nonlinear parameter may lie and where its grid of starts is laid."""

    low: float
    """Smallest admissible value."""
    high: float
    """Largest admissible value."""
    grid_low: float
    """First point of the grid of starts."""
    grid_high: float
    """Last point of the grid of starts."""
    geometric: bool = True
    """Whether the grid is spaced geometrically."""

    def grid(self, num: int) -> FloatArray:
        """``num`` grid points, shape (num,)."""
        space = np.geomspace if self.geometric else np.linspace
        return np.asarray(space(self.grid_low, self.grid_high, num), dtype=np.float64)


EXPONENT_BOUNDS = Bounds(low=1e-3, high=4.0, grid_low=0.05, grid_high=1.6)
"""Published exponents of loss lie between 0.05 and 0.8; the bounds are five times wider."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """One decaying term, ``coefficient * exp(-exponent * log_size)``."""

    coefficient: str
    """Name of the nonnegative coefficient (linear)."""
    exponent: str
    """Name of the exponent (nonlinear)."""
    log_size: LogSize
    """The logarithm of the size that the term decays with."""
    shape: tuple[str, ...] = ()
    """Names of the shape parameters of ``log_size``, in the order of its derivatives."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """A law's form; a frozen value that fits, predictions and figures share."""

    name: str
    """Name on the command line."""
    formula: str
    """The law as one line of text."""
    roles: tuple[str, ...]
    """Columns that it reads, by role."""
    terms: tuple[Term, ...]
    """The decaying terms."""
    offset: str = "E"
    """Name of the irreducible loss (linear, nonnegative)."""
    bounds: Mapping[str, Bounds] = field(default_factory=dict)
    """Bounds of nonlinear parameters that differ from `EXPONENT_BOUNDS`."""
    source: str = ""
    """Where the form comes from."""
    protocol: str = ""
    """What a reader of the parameters must know about how they are counted."""

    @property
    def linear(self) -> tuple[str, ...]:
        """Names of the parameters that enter linearly: the offset, then the coefficients."""
        return (self.offset, *(term.coefficient for term in self.terms))

    @property
    def exponents(self) -> tuple[str, ...]:
        """Names of the exponents, one per term."""
        return tuple(term.exponent for term in self.terms)

    @property
    def shape(self) -> tuple[str, ...]:
        """Names of the shape parameters, each once."""
        return tuple(dict.fromkeys(name for term in self.terms for name in term.shape))

    @property
    def nonlinear(self) -> tuple[str, ...]:
        """Names of the nonlinear parameters: exponents, then shape parameters."""
        return (*self.exponents, *self.shape)

    @property
    def parameters(self) -> tuple[str, ...]:
        """All names in the order of every parameter vector."""
        return (*self.linear, *self.nonlinear)

    def bounds_of(self, name: str) -> Bounds:
        """Bounds of one nonlinear parameter."""
        return self.bounds.get(name, EXPONENT_BOUNDS)

    def loss(self, columns: Columns, values: Mapping[str, Any]) -> Any:
        """Loss in nats at ``columns`` (n,) for parameter values that broadcast against (n,)."""
        total = values[self.offset]
        shape = {name: values[name] for name in self.shape}
        for term in self.terms:
            size, _ = term.log_size(columns, shape)
            total = total + values[term.coefficient] * np.exp(-values[term.exponent] * size)
        return total
