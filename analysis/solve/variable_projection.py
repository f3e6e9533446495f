"""Where should a fit start? Variable projection over a grid of the nonlinear parameters.

At every grid point the coefficients (nonnegative, linear) are solved exactly by reweighted least
squares, so that only the nonlinear parameters are searched. Golub and Pereyra, 1973.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from analysis.laws.law import FloatArray
from analysis.objective.estimators import Estimator
from analysis.objective.newton import CHUNK_ELEMENTS, Batch
from analysis.objective.progress import report
from analysis.objective.surface import Surface

GRID_POINTS = 2304
"""About 48 x 48: enough that the best cells lie in the optimum's basin for two exponents."""

REWEIGHTINGS = 3
"""Passes of reweighted least squares at a grid point; starts need no more."""


def grid_of(
    surface: Surface, num_points: int = GRID_POINTS
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Grid of nonlinear parameters (G, Q) and its integer coordinates (G, Q)."""
    names = surface.law.nonlinear
    per_axis = max(4, int(num_points ** (1.0 / len(names)) + 1e-9))
    per_axis = min(per_axis, 256)
    axes = [
        np.array([surface.fixed[name]])
        if name in surface.fixed
        else surface.law.bounds_of(name).grid(per_axis)
        for name in names
    ]
    places = np.stack(
        np.meshgrid(*[np.arange(len(axis)) for axis in axes], indexing="ij"), axis=-1
    ).reshape(-1, len(names))
    places = places.astype(np.int64)
    values = np.stack([axis[places[:, column]] for column, axis in enumerate(axes)], axis=-1)
    return values, places


def nonnegative_least_squares(matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Nonnegative minimisers (G, L) of x'Mx/2 - r'x for M (G, L, L), r (G, L), by support.

    Exact: the best feasible solution among all supports; L is at most 4 for the laws that ship.
    """
    num = right.shape[-1]
    best, done = _solve_support(matrix, right, list(range(num)))
    todo = np.flatnonzero(~done)
    if not len(todo):
        return best
    matrix, right = matrix[todo], right[todo]
    lowest = np.zeros(len(todo))
    chosen = np.zeros_like(right)
    for size in range(num - 1, 0, -1):
        for support in combinations(range(num), size):
            solved, feasible = _solve_support(matrix, right, list(support))
            value = -0.5 * (solved * right).sum(-1)
            better = feasible & (value < lowest)
            chosen[better], lowest[better] = solved[better], value[better]
    best[todo] = chosen
    return best


def _solve_support(
    matrix: FloatArray, right: FloatArray, support: list[int]
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Unconstrained minimisers (G, L), zero off the support, and whether they are feasible."""
    sub = matrix[:, support][:, :, support]
    ridge = 1e-14 * np.trace(sub, axis1=1, axis2=2)[:, None, None] * np.eye(len(support))
    solved = np.zeros_like(right)
    solved[:, support] = np.linalg.solve(sub + ridge, right[:, support][..., None])[..., 0]
    return solved, np.asarray((solved >= 0).all(-1))


def _row_weights(
    predicted: FloatArray, batch: Batch, estimator: Estimator, delta: float | None
) -> FloatArray:
    """Weights (G, n) of the least squares problem that stands for the robust one."""
    if estimator.on_logs:
        residuals, divisor = np.log(predicted / batch.losses) / batch.scale, predicted
    else:
        residuals, divisor = (predicted - batch.losses) / batch.scale, np.ones_like(predicted)
    weights = batch.weights / (batch.scale * divisor) ** 2
    if delta is not None:
        weights = weights * np.minimum(1.0, delta / np.maximum(np.abs(residuals), 1e-300))
    return weights


def _project_chunk(
    surface: Surface, nonlinear: FloatArray, batch: Batch, estimator: Estimator
) -> tuple[FloatArray, FloatArray]:
    """Inner vectors (G, P) with the coefficients solved, and their objectives (G,)."""
    num_linear = len(surface.law.linear)
    inner = np.concatenate([np.zeros((len(nonlinear), num_linear)), nonlinear], axis=1)
    exponents = nonlinear[:, : num_linear - 1]
    basis = np.ones((len(nonlinear), num_linear, batch.losses.shape[-1]))
    for position, size in enumerate(surface.log_terms(inner)):
        basis[:, 1 + position] = np.exp(-exponents[:, position, None] * size)
    predicted = np.broadcast_to(batch.losses, (len(nonlinear), basis.shape[-1]))
    delta = None
    for _ in range(REWEIGHTINGS):
        weights = _row_weights(predicted, batch, estimator, delta)
        weighted = basis * weights[:, None]
        matrix = weighted @ np.swapaxes(basis, 1, 2)
        solved = _coefficients(surface, matrix, weighted @ batch.losses)
        predicted = np.maximum((basis * solved[..., None]).sum(1), 1e-300)
        delta = estimator.turning_point
    inner[:, :num_linear] = solved
    inner = np.clip(inner, surface.lower, surface.upper)
    ratio = np.log(predicted / batch.losses) if estimator.on_logs else predicted - batch.losses
    value = estimator.rounded(ratio / batch.scale, estimator.turning_point)[0]
    return inner, (batch.weights * value).sum(-1)


def _coefficients(surface: Surface, matrix: FloatArray, right: FloatArray) -> FloatArray:
    """Nonnegative coefficients (G, L), the offset at its value where it is held."""
    held = surface.fixed.get(surface.law.offset)
    if held is None:
        return nonnegative_least_squares(matrix, right)
    rest = nonnegative_least_squares(matrix[:, 1:, 1:], right[:, 1:] - held * matrix[:, 1:, 0])
    return np.concatenate([np.full((len(rest), 1), held), rest], axis=1)


def starts_by_projection(
    surface: Surface, batch: Batch, estimator: Estimator, *, num_starts: int
) -> FloatArray:
    """Starts (at most ``num_starts``, P): the best grid cells that are not neighbours."""
    values, places = grid_of(surface)
    per_chunk = max(1, CHUNK_ELEMENTS // batch.losses.shape[-1])
    pieces = []
    for i in range(0, len(values), per_chunk):
        report("cells of the grid of starts", i, len(values))
        pieces.append(_project_chunk(surface, values[i : i + per_chunk], batch, estimator))
    inner = np.concatenate([piece[0] for piece in pieces])
    objective = np.concatenate([piece[1] for piece in pieces])
    order = np.argsort(objective, kind="stable")
    chosen: list[int] = []
    for candidate in order:
        if not chosen or (np.abs(places[chosen] - places[candidate]).max(-1) > 1).all():
            chosen.append(int(candidate))
        if len(chosen) == num_starts:
            break
    return inner[chosen]
