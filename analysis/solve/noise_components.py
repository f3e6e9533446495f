"""How much of the noise do runs share? Shares of a variance over groups of rows, with their doubt.

The residuals of a law are taken as ``sigma (sqrt(1 - sum s_k) own + sum sqrt(s_k) shared_k)``, one
``shared_k`` for every group of grouping k (the runs of one budget and data seed, the branches of
one trunk; groupings may cross). The likelihood of the shares is the restricted one (Patterson and
Thompson 1971), which sees only what no parameter of the law can absorb; with a prior it is a
distribution over a grid of shares. Where few budgets say little of the shares that distribution
stays broad, and so do intervals drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from analysis.laws.law import FloatArray

NUM_SHARES = {1: 20, 2: 10}
"""Grid points of a share, by the number of groupings."""

LARGEST_SHARE = 0.98
"""Shares sum to no more: some noise is always a run's own."""

INDEPENDENT = 0.25
"""Prior probability that a grouping shares nothing; the rest is uniform over its shares. Chosen by
measured width and coverage (`experiments/benchmarks/laws/noise_coverage.py`)."""

NEGLIGIBLE = 1e-9
"""Directions of the Jacobian below that, relative to the largest, are none."""


@dataclass(frozen=True, kw_only=True)
class NoiseComponents:
    """What the residuals say about the variance and about what groups share of it."""

    groupings: tuple[NDArray[np.int64], ...]
    """Labels (n,) of every grouping, 0..G-1."""
    order: NDArray[np.int64]
    """(n,) the rows in an order of their own, in which noise is drawn: draws then do not depend on
    how a table is sorted or its groups are called."""
    shares: FloatArray
    """(S, groupings) a grid of shares of the variance."""
    probability: FloatArray
    """(S,) of every grid point."""
    sum_of_squares: FloatArray
    """(S,) generalised residual sum of squares at every grid point."""
    degrees_of_freedom: int
    """Rows minus parameters."""

    @property
    def mean_shares(self) -> FloatArray:
        """(groupings,) expected shares."""
        return np.asarray(self.probability @ self.shares)

    def draw(self, num: int, generator: np.random.Generator) -> FloatArray:
        """Noise (num, n), each of a variance and shares drawn from what the residuals allow."""
        points = generator.choice(len(self.probability), num, p=self.probability)
        chi_squared = generator.chisquare(self.degrees_of_freedom, num)
        sigma = np.sqrt(self.sum_of_squares[points] / chi_squared)
        shares = self.shares[points]
        noise = np.sqrt(1.0 - shares.sum(1))[:, None] * generator.normal(
            size=(num, len(self.order))
        )
        for place, labels in enumerate(self.groupings):
            groups = _by_first_row(labels[self.order])
            shared = generator.normal(size=(num, int(groups.max()) + 1))[:, groups]
            noise += np.sqrt(shares[:, place])[:, None] * shared
        drawn: FloatArray = np.empty_like(noise)
        drawn[:, self.order] = sigma[:, None] * noise
        return drawn


def _by_first_row(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels (n,) numbered as they first appear."""
    _, first, places = np.unique(labels, return_index=True, return_inverse=True)
    return np.asarray(np.argsort(np.argsort(first))[places.ravel()])


def noise_components(
    residuals: FloatArray,
    slopes: FloatArray,
    groupings: Sequence[NDArray[np.int64]],
    *,
    order: NDArray[np.int64] | None = None,
) -> NoiseComponents:
    """Components of residuals (n,) of a fit whose Jacobian is ``slopes`` (n, P); n > P.

    At most two groupings. ``order`` (n,) as in `NoiseComponents`; left out, that of the rows.
    """
    directions, sizes, _ = np.linalg.svd(slopes, full_matrices=False)
    basis = directions[:, sizes > NEGLIGIBLE * sizes[0]]
    freedom = len(residuals) - basis.shape[1]
    grid = np.linspace(0.0, LARGEST_SHARE, NUM_SHARES[len(groupings)])
    every = np.array(list(product(grid, repeat=len(groupings))))
    every = every[every.sum(1) <= LARGEST_SHARE + 1e-9]
    atom, slab = INDEPENDENT, (1.0 - INDEPENDENT) / (len(grid) - 1)
    prior = np.where(every == 0.0, atom, slab).prod(1)
    members = [np.equal.outer(labels, np.arange(labels.max() + 1)) for labels in groupings]
    found = np.array([_restricted(residuals, basis, members, shares) for shares in every])
    log_likelihood, squares = found.T
    log_likelihood = log_likelihood - 0.5 * freedom * np.log(squares)
    weights = prior * np.exp(log_likelihood - log_likelihood.max())
    return NoiseComponents(
        groupings=tuple(groupings),
        order=np.arange(len(residuals)) if order is None else order,
        shares=every,
        probability=weights / weights.sum(),
        sum_of_squares=squares,
        degrees_of_freedom=freedom,
    )


def _restricted(
    residuals: FloatArray,
    basis: FloatArray,
    members: Sequence[NDArray[np.bool_]],
    shares: FloatArray,
) -> tuple[float, float]:
    """The restricted log likelihood less its sum of squares, and that sum, at some shares.

    Woodbury: the covariance is ``own I + W W'`` with one column of W for every group.
    """
    own = 1.0 - float(shares.sum())
    columns = np.hstack([np.sqrt(s) * m for s, m in zip(shares, members, strict=True)])
    inner = own * np.eye(columns.shape[1]) + columns.T @ columns

    def solved(values: FloatArray) -> FloatArray:
        return np.asarray((values - columns @ np.linalg.solve(inner, columns.T @ values)) / own)

    log_covariance = (len(residuals) - columns.shape[1]) * np.log(own)
    log_covariance += np.linalg.slogdet(inner)[1]
    whitened = solved(basis)
    normal = basis.T @ whitened
    projected = whitened.T @ residuals
    squares = residuals @ solved(residuals) - projected @ np.linalg.solve(normal, projected)
    return -0.5 * (log_covariance + np.linalg.slogdet(normal)[1]), max(float(squares), 1e-300)
