"""What are a law's residuals, their gradient and curvature, for many parameter vectors at once?

Parameters live here in inner coordinates: coefficients of sizes centred at their geometric mean
over the data (the Jacobian of the Chinchilla problem, with columns of unit length, has condition 33
instead of 220), then exponents and shape parameters. Coefficients stay linear, so that one at zero
still feels a gradient that wants it larger. Shapes: R parameter vectors, P parameters, n rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from analysis.laws.law import Columns, FloatArray, Law
from analysis.objective.estimators import Estimator

LARGEST_COEFFICIENT = 1e6
"""Upper bound of a centred coefficient, in multiples of the smallest loss."""

COMPLEX_STEP = 1e-30
"""Step of complex differentiation: exact to rounding, since nothing is subtracted."""


@dataclass(frozen=True)
class Surface:
    """A law over one table's columns, in inner coordinates."""

    law: Law
    columns: Columns
    smallest_loss: float
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Offset or nonlinear parameters held at a value."""

    @cached_property
    def centres(self) -> FloatArray:
        """Mean log size of every term, at the middle of its shape parameters' grids; (terms,)."""
        shape = {name: self.law.bounds_of(name).grid(3)[1] for name in self.law.shape}
        sizes = [term.log_size(self.columns, shape)[0] for term in self.law.terms]
        return np.array([float(np.mean(size)) for size in sizes])

    @cached_property
    def lower(self) -> FloatArray:
        """Lower bounds in inner coordinates, (P,)."""
        nonlinear = [self.law.bounds_of(name).low for name in self.law.nonlinear]
        return self._with_fixed([0.0] * len(self.law.linear) + nonlinear)

    @cached_property
    def upper(self) -> FloatArray:
        """Upper bounds in inner coordinates, (P,)."""
        ceiling = self.smallest_loss * LARGEST_COEFFICIENT
        nonlinear = [self.law.bounds_of(name).high for name in self.law.nonlinear]
        return self._with_fixed([ceiling] * len(self.law.linear) + nonlinear)

    def _with_fixed(self, values: list[float]) -> FloatArray:
        return np.array(
            [self.fixed.get(n, v) for n, v in zip(self.law.parameters, values, strict=True)]
        )

    @property
    def num_parameters(self) -> int:
        """P."""
        return len(self.law.parameters)

    def index(self, name: str) -> int:
        """Position of a parameter in every vector."""
        return self.law.parameters.index(name)

    def outer(self, inner: FloatArray) -> FloatArray:
        """Law parameters (..., P), coefficients in the table's own units."""
        values = np.array(inner, dtype=np.float64)
        for position, term in enumerate(self.law.terms):
            exponent = inner[..., self.index(term.exponent)]
            values[..., 1 + position] *= np.exp(exponent * self.centres[position])
        return values

    def inner(self, outer: FloatArray) -> FloatArray:
        """Inverse of `outer`, clipped to the bounds."""
        values = np.array(outer, dtype=np.float64)
        for position, term in enumerate(self.law.terms):
            exponent = values[..., self.index(term.exponent)]
            values[..., 1 + position] *= np.exp(-exponent * self.centres[position])
        return np.clip(values, self.lower, self.upper)

    def shape_values(self, inner: FloatArray) -> dict[str, Any]:
        """Shape parameters of R vectors, each (R, 1)."""
        return {name: inner[:, self.index(name), None] for name in self.law.shape}

    def log_terms(self, inner: FloatArray) -> list[Any]:
        """Centred log sizes of every term, (R, n) or (n,), without derivatives."""
        shape = self.shape_values(inner)
        sizes = (term.log_size(self.columns, shape)[0] for term in self.law.terms)
        return [size - centre for size, centre in zip(sizes, self.centres, strict=True)]

    def predict(self, inner: FloatArray) -> FloatArray:
        """Losses of R vectors, (R, n)."""
        num_terms = len(self.law.terms)
        total = inner[:, :1]
        for position, size in enumerate(self.log_terms(inner)):
            coefficient = inner[:, 1 + position, None]
            exponent = inner[:, 1 + num_terms + position, None]
            total = total + coefficient * np.exp(-exponent * size)
        return np.maximum(np.asarray(total, dtype=np.float64), 1e-300)

    def residuals(self, inner: FloatArray, losses: FloatArray, estimator: Estimator) -> FloatArray:
        """Residuals (R, n) of the estimator's kind against ``losses`` (n,) or (R, n)."""
        predicted = self.predict(inner)
        if estimator.on_logs:
            return np.asarray(np.log(predicted) - np.log(losses))
        return np.asarray(predicted - losses)


@dataclass(frozen=True)
class TermDerivatives:
    """One term ``A exp(-e s)``: its value, and its logarithm's derivatives by ``e`` and shape."""

    coefficient: int
    """Position of A."""
    indices: tuple[int, ...]
    """Positions of the exponent and of the shape parameters."""
    unit: FloatArray
    """``exp(-e s)``, (R, n)."""
    value: FloatArray
    """``A exp(-e s)``, (R, n)."""
    gradient: tuple[Any, ...]
    """Of ``-e s`` by ``indices``, each (n,) or (R, n)."""
    curvature: Mapping[tuple[int, int], Any]
    """Of ``-e s``: second derivatives that are not zero, by pairs of places in ``indices``."""


def term_derivatives(surface: Surface, position: int, inner: FloatArray) -> TermDerivatives:
    """Derivatives of one term; second ones of its shape by complex steps of the analytic first."""
    term = surface.law.terms[position]
    exponent = inner[:, surface.index(term.exponent), None]
    shape = surface.shape_values(inner)
    size, slopes = term.log_size(surface.columns, shape)
    size = size - surface.centres[position]
    curvature: dict[tuple[int, int], Any] = {}
    for number, name in enumerate(term.shape):
        curvature[(0, 1 + number)] = -slopes[number]
        moved = {**shape, name: shape[name] + 1j * COMPLEX_STEP}
        bent = term.log_size(surface.columns, moved)[1]
        for other in range(number + 1):
            curvature[(1 + other, 1 + number)] = -exponent * bent[other].imag / COMPLEX_STEP
    unit = np.exp(-exponent * size)
    names = (term.exponent, *term.shape)
    return TermDerivatives(
        coefficient=1 + position,
        indices=tuple(surface.index(name) for name in names),
        unit=unit,
        value=inner[:, 1 + position, None] * unit,
        gradient=(-size, *(-exponent * slope for slope in slopes)),
        curvature=curvature,
    )


@dataclass(frozen=True)
class Quadratic:
    """The objective's local model at R parameter vectors."""

    value: FloatArray
    """(R,), the sum over rows of the rounded loss."""
    gradient: FloatArray
    """(R, P)."""
    hessian: FloatArray
    """(R, P, P), exact."""
    gauss_newton: FloatArray
    """(R, P): diagonal of the positive part with every row inside the parabola; the scale."""


def jacobian(surface: Surface, inner: FloatArray, *, on_logs: bool) -> FloatArray:
    """Derivatives of log predictions (or of predictions, nats) by inner parameters, (R, P, n)."""
    terms = _all_terms(surface, inner)
    predicted = _total(inner, terms)
    return _jacobian(surface, inner, terms, predicted if on_logs else np.ones_like(predicted))


def _all_terms(surface: Surface, inner: FloatArray) -> list[TermDerivatives]:
    return [term_derivatives(surface, place, inner) for place in range(len(surface.law.terms))]


def _total(inner: FloatArray, terms: list[TermDerivatives]) -> FloatArray:
    total = inner[:, :1] + sum(term.value for term in terms)
    return np.asarray(np.maximum(total, 1e-300))


def _jacobian(
    surface: Surface, inner: FloatArray, terms: list[TermDerivatives], divisor: FloatArray
) -> FloatArray:
    result = np.zeros((inner.shape[0], surface.num_parameters, divisor.shape[-1]))
    result[:, 0] = 1.0 / divisor
    for term in terms:
        result[:, term.coefficient] = term.unit / divisor
        share = term.value / divisor
        for index, slope in zip(term.indices, term.gradient, strict=True):
            result[:, index] += share * slope
    return result


def local_quadratic(
    surface: Surface,
    inner: FloatArray,
    losses: FloatArray,
    weights: FloatArray,
    scale: FloatArray,
    estimator: Estimator,
    delta: float | None,
) -> Quadratic:
    """Value, gradient and exact Hessian of the rounded objective.

    ``losses``, ``weights`` and ``scale`` (residuals are divided by it) are (n,) or (R, n).
    """
    terms = _all_terms(surface, inner)
    predicted = _total(inner, terms)
    if estimator.on_logs:
        residuals, divisor = np.log(predicted / losses) / scale, predicted
    else:
        residuals, divisor = (predicted - losses) / scale, np.ones_like(predicted)
    value, slope, bend = estimator.rounded(residuals, delta)
    pull = weights * slope / scale
    stiffness = weights / scale**2
    slopes = _jacobian(surface, inner, terms, divisor)
    curve = stiffness * bend - pull if estimator.on_logs else stiffness * bend
    hessian = (slopes * curve[:, None]) @ np.swapaxes(slopes, 1, 2)
    _add_curvature(hessian, terms, pull / divisor)
    return Quadratic(
        value=(weights * value).sum(-1),
        gradient=(slopes @ pull[..., None])[..., 0],
        hessian=hessian,
        gauss_newton=((slopes * slopes) @ np.broadcast_to(stiffness, pull.shape)[..., None])[
            ..., 0
        ],
    )


def _add_curvature(hessian: FloatArray, terms: list[TermDerivatives], pull: FloatArray) -> None:
    """Add the second derivatives of the prediction, weighted by ``pull`` (R, n), in place."""
    for term in terms:
        unit, share = pull * term.unit, pull * term.value
        for first, row in enumerate(term.indices):
            tilted = share * term.gradient[first]
            _add_pair(hessian, term.coefficient, row, (unit * term.gradient[first]).sum(-1))
            for second in range(first, len(term.indices)):
                entry = (tilted * term.gradient[second]).sum(-1)
                if (first, second) in term.curvature:
                    entry = entry + (share * term.curvature[(first, second)]).sum(-1)
                _add_pair(hessian, row, term.indices[second], entry)


def _add_pair(hessian: FloatArray, row: int, column: int, entry: FloatArray) -> None:
    hessian[:, row, column] += entry
    if row != column:
        hessian[:, column, row] += entry
