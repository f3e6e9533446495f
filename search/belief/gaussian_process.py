"""What is the loss without its noise, and where might it be lower? A Gaussian process over logs.

Shape, cost and learning rate act on the loss through ratios, so the features are logarithms of the
*resolved* configuration: axes, parameters, tokens. That makes budgets comparable, and one process
learns from all budgets of an arm at once: what smaller budgets showed is the prior of a larger one.
The kernel is a quadratic polynomial (the trend, which extrapolates) plus a squared exponential
with one length per feature (the rest); its hyperparameters maximise the posterior
(Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 5).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from search.record.trial import Proposal
from spaces.arms.contract import find_arm
from spaces.axes import Axis, AxisValue
from spaces.parameters import count_parameters

Floats = NDArray[np.float64]

MIN_RESULTS = 8
"""Results below which nothing is modelled."""

MAX_FIT_RESULTS = 256
"""Results that hyperparameters are fitted to: the lowest losses, which is where it matters."""

REFIT_GROWTH = 1.3
"""Hyperparameters are fitted anew when there are this many times more results."""

_NOISE_FLOOR = 1e-3


def features_of(proposal: Proposal) -> list[float]:
    """What a proposal resolves to, as its arm's axes are read; where it lacks one, a constant."""
    config, a = proposal.config, proposal.config.architecture
    axes = [axis for axis in find_arm(a.arm).all_axes() if axis.role != "training"]
    return [
        *(feature for axis in axes for feature in _read(axis, axis.of(a))),
        math.log(config.training.learning_rate),
        math.log(config.tokens),
        math.log(count_parameters(a).total),
    ]


def _read(axis: Axis, value: AxisValue | None) -> list[float]:
    """One axis's value as features: a logarithm, a number, or one for each category known."""
    if axis.scale == "category":
        return [float(value == choice) for choice in axis.choices[1:]]
    if value is None:
        return [0.0]
    return [math.log(float(value)) if axis.scale == "log" else float(value)]


@dataclass(frozen=True)
class Scale:
    """Features to zero mean and unit spread; what never varies is dropped."""

    keep: NDArray[np.bool_]
    center: Floats
    spread: Floats

    def __call__(self, raw: Floats) -> Floats:
        return (raw[:, self.keep] - self.center) / self.spread


def scale_of(raw: Floats) -> Scale:
    """The scale of observed features (rows)."""
    spread = raw.std(axis=0)
    keep = spread > 1e-9
    return Scale(keep, raw.mean(axis=0)[keep], spread[keep])


@dataclass(frozen=True)
class Warp:
    """Loss to the scale the process works on.

    Losses far above the good ones are compressed: they say that a region is bad, and how bad
    should not bend the surface where it is good.
    """

    low: float
    spread: float

    def __call__(self, loss: Floats) -> Floats:
        z = (loss - self.low) / self.spread
        return np.where(z > 1, 1 + np.log(np.maximum(z, 1)), z)

    def inverse(self, warped: Floats) -> Floats:
        """Back to nats per token."""
        z = np.where(warped > 1, np.exp(np.maximum(warped, 1) - 1), warped)
        return np.asarray(self.low + self.spread * z)


class Surrogate:
    """The process, conditioned on results of one arm at all its budgets."""

    def __init__(self, raw: Floats, losses: Floats, *, fitted: Floats | None = None) -> None:
        """``raw`` is (results, features), ``losses`` nats; ``fitted`` are known hyperparameters."""
        self.scale = scale_of(raw)
        low, middle = np.min(losses), np.quantile(losses, 0.5)
        self.warp = Warp(float(low), float(max(middle - low, 1e-6)))
        x, y = self.scale(raw), self.warp(losses)
        usable = fitted is not None and len(fitted) == x.shape[1] + 3
        self.hyperparameters = fitted if fitted is not None and usable else _fit(x, y)
        self._condition(x, y, mean=float(y.mean()))

    def _condition(self, x: Floats, y: Floats, *, mean: float) -> None:
        from scipy.linalg import cho_factor, cho_solve

        self._x, self._y, self._mean = x, y, mean
        covariance = _kernel(x, x, self.hyperparameters)
        covariance += _diagonal(covariance, math.exp(self.hyperparameters[-1]))
        self._factor = cho_factor(covariance, lower=True)
        self._weights = cho_solve(self._factor, y - mean)

    def believing(self, raw: Floats) -> Surrogate:
        """The process that takes trials still running as measured at their expected loss."""
        mean, _ = self.predict(raw)
        believer = copy.copy(self)
        x = np.concatenate([self._x, self.scale(raw)])
        believer._condition(x, np.concatenate([self._y, mean]), mean=self._mean)
        return believer

    def predict(self, raw: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the noiseless loss, on the warped scale."""
        from scipy.linalg import solve_triangular

        x = self.scale(raw)
        cross = _kernel(x, self._x, self.hyperparameters)
        mean = cross @ self._weights + self._mean
        half = solve_triangular(self._factor[0], cross.T, lower=True, check_finite=False)
        variance = _kernel_diagonal(x, self.hyperparameters) - np.sum(half * half, axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))


def expected_improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Logarithm of E max(best - f, 0) for normal f (Jones, Schonlau and Welch 1998)."""
    from scipy.stats import norm

    z = (best - mean) / deviation
    value = deviation * (z * norm.cdf(z) + norm.pdf(z))
    return np.asarray(np.log(np.maximum(value, 1e-300)))


def _unpack(theta: Floats) -> tuple[float, float, Floats]:
    return math.exp(theta[0]), math.exp(theta[1]), np.exp(theta[2:-1])


def _kernel(x: Floats, z: Floats, theta: Floats) -> Floats:
    """(rows of x, rows of z): trend plus rest. theta: log variances, log lengths, log noise."""
    trend, rest, lengths = _unpack(theta)
    dot = 1 + x @ z.T / x.shape[1]
    return np.asarray(
        trend * dot * dot + rest * np.exp(-0.5 * _distances(x / lengths, z / lengths))
    )


def _kernel_diagonal(x: Floats, theta: Floats) -> Floats:
    trend, rest, _ = _unpack(theta)
    dot = 1 + np.sum(x * x, axis=1) / x.shape[1]
    return np.asarray(trend * dot * dot + rest)


def _diagonal(covariance: Floats, noise: float) -> Floats:
    """Noise, and the little that keeps a Cholesky factor real in double precision."""
    return np.asarray((noise + 1e-10 * np.trace(covariance)) * np.eye(len(covariance)))


def _distances(x: Floats, z: Floats) -> Floats:
    squares = np.sum(x * x, axis=1)[:, None] + np.sum(z * z, axis=1)[None, :] - 2 * x @ z.T
    return np.asarray(np.maximum(squares, 0))


def _fit(x: Floats, y: Floats) -> Floats:
    """Hyperparameters of the highest posterior density."""
    from scipy.optimize import minimize

    if len(y) > MAX_FIT_RESULTS:
        keep = np.argsort(y, kind="stable")[:MAX_FIT_RESULTS]
        x, y = x[keep], y[keep]
    y = y - y.mean()
    start = np.concatenate([[0.0, -1.0], np.full(x.shape[1], 0.7), [-4.0]])
    bounds = [(-6, 6), (-8, 4), *[(-1.5, 4.0)] * x.shape[1], (math.log(_NOISE_FLOOR**2), 0.0)]
    found = minimize(
        _negative_log_posterior,
        start,
        args=(x, y, start),
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 40},
    )
    return np.asarray(found.x)


_PRIOR_SPREADS = (2.0, 2.0, 1.0, 2.5)
"""Of log trend variance, log rest variance, log length and log noise, around the start."""


def _negative_log_posterior(theta: Floats, x: Floats, y: Floats, prior: Floats) -> Any:
    """Value and gradient."""
    from scipy.linalg import cho_factor, cho_solve

    trend, rest, lengths = _unpack(theta)
    noise = math.exp(theta[-1])
    n, p = x.shape
    dot = 1 + x @ x.T / p
    polynomial = trend * dot * dot
    scaled = x / lengths
    exponential = rest * np.exp(-0.5 * _distances(scaled, scaled))
    covariance = polynomial + exponential
    factor = cho_factor(covariance + _diagonal(covariance, noise), lower=True)
    weights = cho_solve(factor, y)
    inverse = cho_solve(factor, np.eye(n))
    outer = np.outer(weights, weights) - inverse
    gradient = np.empty_like(theta)
    gradient[0] = -0.5 * np.sum(outer * polynomial)
    gradient[1] = -0.5 * np.sum(outer * exponential)
    shared = outer * exponential
    row = shared.sum(axis=1)
    cross = shared @ scaled
    gradient[2:-1] = -(scaled * scaled).T @ row + np.sum(scaled * cross, axis=0)
    gradient[-1] = -0.5 * noise * np.trace(outer)
    value = 0.5 * float(y @ weights) + float(np.sum(np.log(np.diag(factor[0]))))
    low, middle, length, last = _PRIOR_SPREADS
    spreads = np.concatenate([[low, middle], np.full(p, length), [last]])
    pull = (theta - prior) / spreads
    return value + 0.5 * float(pull @ pull), gradient + pull / spreads


def milestone(num_results: int) -> int:
    """The count of results at which the hyperparameters in use were fitted."""
    count = MIN_RESULTS
    while math.ceil(count * REFIT_GROWTH) <= num_results:
        count = math.ceil(count * REFIT_GROWTH)
    return count


def failure_probability(
    raw: Floats, failed: Sequence[bool], candidates: Floats, *, ridge: float = 0.1
) -> Floats:
    """Chance that each candidate fails: logistic regression on the same logs.

    A wall of memory and a rate that diverges are half-spaces in logarithms. The ridge keeps the
    slope finite where the classes are separable; the base rate is free.
    """
    labels = np.asarray(failed, dtype=np.float64)
    if not labels.any():
        return np.zeros(len(candidates))
    scale = scale_of(raw)
    x = np.column_stack([np.ones(len(raw)), scale(raw)])
    weights = np.zeros(x.shape[1])
    penalty = np.full(x.shape[1], ridge)
    penalty[0] = 1e-3
    for _ in range(25):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        curvature = chance * (1 - chance)
        hessian = (x * curvature[:, None]).T @ x + np.diag(penalty)
        weights = weights + np.linalg.solve(hessian, x.T @ (labels - chance) - penalty * weights)
    z = np.column_stack([np.ones(len(candidates)), scale(candidates)])
    return np.asarray(1 / (1 + np.exp(-np.clip(z @ weights, -30, 30))))
