"""What do we believe of a law's parameters, how do losses move with them, and what do rows say?

One form covers the laws that designs are made for: with ``S = params_once + K^phi params_deep +
omega params_wide``,

    loss = E + A S^-alpha + B tokens^-beta.

It is the compute-capacity law; where all parameters are ``params_once`` it is Chinchilla's, and phi
and omega move nothing. E, A and B are held as the parts of the loss at the centre of a table, so
that exponents and coefficients are told apart by the rows alone. Kept here in closed form, since
the search cannot ask `analysis`; a test holds both to the same derivatives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float64]

PARAMETERS = ("E", "A", "B", "alpha", "beta", "phi", "omega")
"""The order of every vector; E, A and B by the logarithms of their parts of the loss."""
COEFFICIENTS = ("E", "A", "B")

PRIOR: Mapping[str, float] = {
    "E": 0.6,
    "A": 0.2,
    "B": 0.2,
    "alpha": 0.4,
    "beta": 0.3,
    "phi": 0.5,
    "omega": 1.0,
}
"""Where there are no rows: exponents and shapes; of the loss at the table's centre, the parts of E
and of each term. Between Hoffmann et al. (arXiv 2203.15556: .34, .28) and a grid of small models of
this program's own (alpha .46, beta .14, E 58 % of the loss); phi as in arXiv 2604.21106 (.46)."""

PRIOR_DEVIATION: Mapping[str, float] = {
    "E": 0.5,
    "A": 1.0,
    "B": 1.0,
    "alpha": 0.2,
    "beta": 0.2,
    "phi": 0.5,
    "omega": 0.7,
}
"""Standard deviations of the belief before any row (of logarithms for E, A and B): published
exponents lie within two of them. They keep fits of few rows from running away; half-widths that a
person is told rest on rows alone."""


@dataclass(frozen=True, kw_only=True)
class LawRuns:
    """Runs as a law sees them; every array is (n,)."""

    params_once: FloatArray
    """Parameters used once a token; all of them where the law is Chinchilla's."""
    params_deep: FloatArray
    """Parameters used in every loop."""
    params_wide: FloatArray
    """Parameters of the wide path."""
    num_loops: FloatArray
    """K."""
    tokens: FloatArray
    """Training tokens."""
    costs: FloatArray
    """What each run costs, in any unit: training FLOPs, or seconds of a device."""
    orders: tuple[tuple[float, int], ...]
    """Budget (training FLOPs) and data seed: runs that share both share noise."""

    def __len__(self) -> int:
        return len(self.tokens)

    def joined(self, other: LawRuns) -> LawRuns:
        """These runs, then others."""
        arrays = {
            name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in _ARRAYS
        }
        return LawRuns(**arrays, orders=self.orders + other.orders)

    def taken(self, places: Sequence[int]) -> LawRuns:
        """Some of the runs, by their places; one may be taken several times."""
        chosen = np.asarray(places, dtype=np.int64)
        arrays = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        return LawRuns(**arrays, orders=tuple(self.orders[place] for place in places))


_ARRAYS = ("params_once", "params_deep", "params_wide", "num_loops", "tokens", "costs")


@dataclass(frozen=True, kw_only=True)
class LawModel:
    """A law at one vector of parameters, centred on a table."""

    log_size: float
    """ln of the size at the centre, in parameters."""
    log_tokens: float
    """ln of the tokens at the centre."""
    values: Mapping[str, float] = field(default_factory=lambda: dict(PRIOR))
    """E, A and B in nats at the centre, or as parts of the loss where that is not known."""

    @property
    def vector(self) -> FloatArray:
        """The parameters in the order of `PARAMETERS`."""
        return np.array(
            [
                np.log(self.values[name]) if name in COEFFICIENTS else self.values[name]
                for name in PARAMETERS
            ]
        )

    def at(self, vector: FloatArray) -> LawModel:
        """The same law at other parameters."""
        numbers = [float(value) for value in vector]
        values = {
            name: float(np.exp(value)) if name in COEFFICIENTS else value
            for name, value in zip(PARAMETERS, numbers, strict=True)
        }
        return replace(self, values=values)

    def losses(self, runs: LawRuns) -> FloatArray:
        """(n,), in the unit of E."""
        return np.asarray(sum(self._terms(runs)))

    def sizes(self, runs: LawRuns) -> FloatArray:
        """S of every run, (n,), in parameters."""
        return self._size(runs)[0]

    def jacobian(self, runs: LawRuns) -> FloatArray:
        """Derivatives of ln(loss) by the parameters, (n, P)."""
        floor, by_size, by_tokens = self._terms(runs)
        loss = floor + by_size + by_tokens
        size, deep = self._size(runs)
        of_size = -self.values["alpha"] * by_size / size
        columns = [
            floor,
            by_size,
            by_tokens,
            -by_size * (np.log(size) - self.log_size),
            -by_tokens * (np.log(runs.tokens) - self.log_tokens),
            of_size * deep * np.log(runs.num_loops),
            of_size * runs.params_wide,
        ]
        return np.stack([column / loss for column in columns], axis=1)

    def _size(self, runs: LawRuns) -> tuple[FloatArray, FloatArray]:
        deep = runs.num_loops ** self.values["phi"] * runs.params_deep
        return runs.params_once + deep + self.values["omega"] * runs.params_wide, deep

    def _terms(self, runs: LawRuns) -> tuple[FloatArray, FloatArray, FloatArray]:
        size = self.sizes(runs)
        values = self.values
        by_size = values["A"] * np.exp(-values["alpha"] * (np.log(size) - self.log_size))
        by_tokens = values["B"] * np.exp(-values["beta"] * (np.log(runs.tokens) - self.log_tokens))
        return np.full(len(runs), values["E"]), by_size, by_tokens


def prior_model(runs: LawRuns, *, loss: float = 1.0) -> LawModel:
    """The belief before any row, centred on runs; ``loss`` is that at their centre, in nats."""
    start = LawModel(log_size=0.0, log_tokens=0.0)
    size = start.sizes(runs)
    values = {name: PRIOR[name] * (loss if name in COEFFICIENTS else 1.0) for name in PARAMETERS}
    return LawModel(
        log_size=float(np.mean(np.log(size))),
        log_tokens=float(np.mean(np.log(runs.tokens))),
        values=values,
    )


def fitted_model(
    runs: LawRuns, losses: FloatArray, *, noise: float, start: LawModel | None = None
) -> LawModel:
    """The belief after rows: the posterior mode under `PRIOR` and relative ``noise`` of a row.

    Least squares of ln(loss) from one start: the prior makes the bottom of the valley unique
    enough for choosing runs. A law to report comes from `analysis.fit`.
    """
    from scipy.optimize import least_squares

    prior = prior_model(runs, loss=float(np.exp(np.mean(np.log(losses)))))
    centre = prior.vector
    deviation = np.array([PRIOR_DEVIATION[name] for name in PARAMETERS])
    measured = np.log(losses)

    def residuals(vector: FloatArray) -> FloatArray:
        predicted = np.log(prior.at(vector).losses(runs))
        return np.concatenate([(predicted - measured) / noise, (vector - centre) / deviation])

    def slopes(vector: FloatArray) -> FloatArray:
        model = prior.at(vector)
        return np.concatenate([model.jacobian(runs) / noise, np.diag(1 / deviation)])

    first = centre if start is None else _recentred(start, prior)
    low, high = _bounds()
    found = least_squares(
        residuals, np.clip(first, low + 1e-9, high - 1e-9), jac=slopes, bounds=(low, high)
    )
    return prior.at(found.x)


def _recentred(model: LawModel, onto: LawModel) -> FloatArray:
    """A law's vector at the centre of another table."""
    vector = model.vector
    vector[1] -= model.values["alpha"] * (onto.log_size - model.log_size)
    vector[2] -= model.values["beta"] * (onto.log_tokens - model.log_tokens)
    return vector


def _bounds() -> tuple[FloatArray, FloatArray]:
    """Where parameters may lie; those of `analysis.laws.standard_laws`, coefficients free."""
    low = np.array([-20.0, -20.0, -20.0, 1e-3, 1e-3, -3.0, 1e-6])
    high = np.array([20.0, 20.0, 20.0, 4.0, 4.0, 4.0, 50.0])
    return low, high


def relative_scatter(model: LawModel, runs: LawRuns, losses: FloatArray) -> float:
    """Relative scatter of rows around a law, by their residuals and degrees of freedom."""
    residuals = np.log(losses) - np.log(model.losses(runs))
    moved = np.abs(model.jacobian(runs)).sum(axis=0) > 0
    freedom = max(1, len(runs) - int(moved.sum()))
    return float(np.sqrt(residuals @ residuals / freedom))
