"""How are many small fits of one law minimised at once, and when has one converged?

A damped Newton method with the exact Hessian over a batch of problems (starts or resamples): the
absolute values of the Hessian's eigenvalues steer it away from saddles, the damping follows the
success of every step, coordinates at a bound that the gradient pushes outwards are held. Huber's
and LAD's corners are approached through a falling sequence of deltas. Convergence is a statement
about the gradient in units of curvature and objective, never an optimiser's ``success``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.laws.law import FloatArray
from analysis.objective.estimators import Estimator
from analysis.objective.progress import report
from analysis.objective.surface import Quadratic, Surface, local_quadratic

GRADIENT_TOLERANCE = 1e-6
"""Largest scaled gradient of a converged fit: one millionth of the objective's own root scale."""

ROUNDING = 1e-10
"""Residuals below this count as exact: gradients of smaller ones drown in rounding."""

EXACT = 1e-6
"""Residuals below this are a table's own rounding: the objective is then so small that its digits
end before a gradient relative to it could fall under the tolerance."""

LONG_STEP = 1.0
"""Longest step of any inner coordinate in a search for the optimum."""

SHORT_STEP = 0.02
"""Longest step where the basin of the start must be kept, as resamples keep the full fit's.

Huber's objective has more than one minimum on some resamples: of 4,000 pairs resamples of the 240
Chinchilla rows one ends 0.06 % lower in a far basin (B 17,776, not 8,489) when steps are long."""

DELTA_FACTOR = 5.0
"""Factor by which delta falls from stage to stage. With 5 and 30 steps a stage 98 % of LAD refits
of 42 rows converge; with 12 and 12 steps, 30 %."""

STEPS_PER_DELTA = 30
"""Newton steps at every delta but the last."""

CHUNK_ELEMENTS = 40_000
"""Rows times vectors per chunk: the working arrays stay in a core's cache."""

LAST_STEPS, STALLED = 3, 1e-3
"""Undamped steps at most of problems whose scaled gradient is under the second number."""

LONG_TABLE = 2000
"""Rows from which a chunk's arrays exceed what glibc keeps by itself."""

LARGEST_KEPT = 31 << 20
"""Bytes, just under the largest block that glibc's threshold follows (mallopt(3))."""

SMALLEST_CURVATURE = 1e-12
"""Relative curvature below which a direction counts as flat."""


@dataclass(frozen=True)
class Batch:
    """The data of R problems: each entry (n,), shared, or (R, n)."""

    losses: FloatArray
    weights: FloatArray
    scale: FloatArray
    """Standard deviations that divide the residuals; ones where none are known."""

    def rows(self, select: Any) -> Batch:
        """The problems at ``select``; shared entries stay shared."""
        return Batch(*(x if x.ndim == 1 else x[select] for x in self.parts))

    @property
    def parts(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Losses, weights, scale."""
        return self.losses, self.weights, self.scale


@dataclass(frozen=True)
class Optima:
    """Where R minimisations ended."""

    inner: FloatArray
    """(R, P)."""
    objective: FloatArray
    """(R,), sum of the rounded loss."""
    scaled_gradient: FloatArray
    """(R,), Newton decrement over the objective's root: dimensionless."""
    moved: FloatArray
    """(R,), longest coordinate of the way from the start."""

    @property
    def converged(self) -> FloatArray:
        """(R,) booleans: the gradient test."""
        return np.asarray(self.scaled_gradient <= GRADIENT_TOLERANCE)


def delta_schedule(estimator: Estimator, residuals: FloatArray) -> list[float | None]:
    """Deltas to pass through, from the residuals' own size down to the estimator's."""
    final = estimator.turning_point
    if final is None:
        return [None]
    largest = float(np.median(np.abs(residuals)))
    if not np.isfinite(largest) or largest <= 4.0 * final:
        return [final]
    num = int(np.ceil(np.log(largest / final) / np.log(DELTA_FACTOR))) + 1
    return [float(delta) for delta in np.geomspace(largest, final, num)]


def minimise(
    surface: Surface,
    start: FloatArray,
    batch: Batch,
    estimator: Estimator,
    *,
    max_iterations: int = 200,
    longest_step: float = LONG_STEP,
) -> Optima:
    """Minimise R problems from R starts (R, P), chunk by chunk."""
    per_chunk = max(1, CHUNK_ELEMENTS // batch.losses.shape[-1])
    pieces = []
    if batch.losses.shape[-1] > LONG_TABLE:
        _keep_freed_memory()
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(start), per_chunk):
            report("refits", first, len(start))
            rows = slice(first, first + per_chunk)
            data = batch.rows(rows)
            pieces.append(
                _minimise_chunk(surface, start[rows], data, estimator, max_iterations, longest_step)
            )
    return Optima(
        inner=np.concatenate([piece.inner for piece in pieces]),
        objective=np.concatenate([piece.objective for piece in pieces]),
        scaled_gradient=np.concatenate([piece.scaled_gradient for piece in pieces]),
        moved=np.concatenate([piece.moved for piece in pieces]),
    )


def _keep_freed_memory() -> None:
    """Have glibc keep freed blocks, as it does once one of this size was freed.

    Otherwise every array of a long table goes back to the kernel and comes again page by page,
    which takes longer than the arithmetic.
    """
    np.empty(LARGEST_KEPT, dtype=np.uint8)


def _minimise_chunk(
    surface: Surface,
    start: FloatArray,
    batch: Batch,
    estimator: Estimator,
    max_iterations: int,
    longest_step: float,
) -> Optima:
    inner = np.clip(start, surface.lower, surface.upper)
    residuals = surface.residuals(inner, batch.losses, estimator) / batch.scale
    deltas = delta_schedule(estimator, residuals)
    for delta in deltas:
        final = delta == deltas[-1]
        limits = Limits(
            num_steps=max_iterations if final else min(max_iterations, STEPS_PER_DELTA),
            longest_step=longest_step,
            tolerance=GRADIENT_TOLERANCE * (1e-3 if final else 1e3),
        )
        inner, quadratic = _descend(surface, inner, batch, estimator, delta, limits)
    measure = scaled_gradient(surface, inner, quadratic, batch, estimator)
    for _ in range(LAST_STEPS):
        _step_below_rounding(surface, inner, quadratic, measure, batch, estimator)
    return Optima(
        inner=inner,
        objective=quadratic.value,
        scaled_gradient=measure,
        moved=np.abs(inner - start).max(-1),
    )


def _step_below_rounding(
    surface: Surface,
    inner: FloatArray,
    quadratic: Quadratic,
    measure: FloatArray,
    batch: Batch,
    estimator: Estimator,
) -> None:
    """One undamped step, in place, of problems that stalled next to their optimum.

    There the objective's change is lost in its rounding, so the gradient tells what is better.
    """
    near = np.flatnonzero((measure > GRADIENT_TOLERANCE) & (measure < STALLED))
    if not len(near):
        return
    here, data = _take(quadratic, near), batch.rows(near)
    step, _ = newton_step(surface, inner[near], here, data, np.zeros(len(near)))
    trial = np.clip(inner[near] + step, surface.lower, surface.upper)
    there = local_quadratic(surface, trial, *data.parts, estimator, estimator.turning_point)
    ahead = scaled_gradient(surface, trial, there, data, estimator)
    better = (ahead < measure[near]) & (there.value <= here.value * (1.0 + STALLED))
    inner[near[better]], measure[near[better]] = trial[better], ahead[better]
    _put(quadratic, near[better], _take(there, better))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far and how fine one descent goes."""

    num_steps: int
    longest_step: float
    tolerance: float
    """Scaled gradient at which a problem is left alone."""


def _shortened(step: FloatArray, longest: float) -> FloatArray:
    length = np.abs(step).max(-1, keepdims=True)
    return np.asarray(step * np.minimum(1.0, longest / np.maximum(length, 1e-300)))


def _take(quadratic: Quadratic, select: Any) -> Quadratic:
    return Quadratic(
        value=quadratic.value[select],
        gradient=quadratic.gradient[select],
        hessian=quadratic.hessian[select],
        gauss_newton=quadratic.gauss_newton[select],
    )


def _put(target: Quadratic, select: Any, source: Quadratic) -> None:
    target.value[select] = source.value
    target.gradient[select] = source.gradient
    target.hessian[select] = source.hessian
    target.gauss_newton[select] = source.gauss_newton


def _descend(
    surface: Surface,
    inner: FloatArray,
    batch: Batch,
    estimator: Estimator,
    delta: float | None,
    limits: Limits,
) -> tuple[FloatArray, Quadratic]:
    """Newton steps at one delta until every problem converges, stalls or runs out of steps."""
    inner = inner.copy()
    quadratic = local_quadratic(surface, inner, *batch.parts, estimator, delta)
    damping = np.full(len(inner), 1e-3)
    active = np.arange(len(inner))
    for _ in range(limits.num_steps):
        here, data = _take(quadratic, active), batch.rows(active)
        step, size = newton_step(surface, inner[active], here, data, damping[active])
        step = _shortened(step, limits.longest_step)
        going = (size > limits.tolerance) & (damping[active] < 1e12)
        if not going.any():
            break
        active, step, here = active[going], step[going], _take(here, going)
        trial = np.clip(inner[active] + step, surface.lower, surface.upper)
        there = local_quadratic(surface, trial, *batch.rows(active).parts, estimator, delta)
        better = there.value < here.value
        _put(quadratic, active[better], _take(there, better))
        inner[active[better]] = trial[better]
        damping[active] = np.where(better, damping[active] * 0.1, damping[active] * 10.0 + 1e-6)
    return inner, quadratic


def _scaled_model(
    surface: Surface, inner: FloatArray, quadratic: Quadratic
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Scale (R, P), gradient along eigenvectors, eigenvalues, eigenvectors of the scaled model."""
    held = (inner <= surface.lower) & (quadratic.gradient > 0)
    held |= (inner >= surface.upper) & (quadratic.gradient < 0)
    scale = np.sqrt(quadratic.gauss_newton)
    scale = np.maximum(scale, 1e-12 * scale.max(-1, keepdims=True)) + 1e-300
    gradient = np.where(held, 0.0, quadratic.gradient / scale)
    hessian = quadratic.hessian / (scale[:, :, None] * scale[:, None, :])
    hessian = np.where(held[:, :, None] | held[:, None, :], 0.0, hessian)
    hessian += held[:, :, None] * np.eye(inner.shape[1])
    values, vectors = np.linalg.eigh(hessian)
    along = (np.swapaxes(vectors, 1, 2) @ gradient[..., None])[..., 0]
    return scale, along, values, vectors


def _objective_scale(quadratic: Quadratic, batch: Batch) -> FloatArray:
    """Root of twice the objective, floored where residuals are rounding noise; (R,)."""
    weight = (batch.weights / batch.scale**2 * np.ones_like(batch.losses)).sum(-1)
    return np.asarray(np.sqrt(2.0 * quadratic.value + weight * ROUNDING**2))


def _exact_scale(batch: Batch, estimator: Estimator) -> FloatArray:
    """Root of twice the objective of rows that all miss by `EXACT`, (R,) or ()."""
    residuals = EXACT / batch.scale * np.ones_like(batch.losses)
    value = estimator.rounded(residuals, estimator.turning_point)[0]
    return np.asarray(np.sqrt(2.0 * (batch.weights * value).sum(-1)))


def _decrement(along: FloatArray, values: FloatArray) -> FloatArray:
    stiffness = np.maximum(np.abs(values), SMALLEST_CURVATURE)
    return np.asarray(np.sqrt((along**2 / stiffness).sum(-1)))


def newton_step(
    surface: Surface, inner: FloatArray, quadratic: Quadratic, batch: Batch, damping: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Damped step (R, P), and the scaled gradient (R,) before it."""
    scale, along, values, vectors = _scaled_model(surface, inner, quadratic)
    stiffness = np.maximum(np.abs(values), SMALLEST_CURVATURE) + damping[:, None]
    step = -(vectors @ (along / stiffness)[..., None])[..., 0] / scale
    return step, _decrement(along, values) / _objective_scale(quadratic, batch)


def scaled_gradient(
    surface: Surface, inner: FloatArray, quadratic: Quadratic, batch: Batch, estimator: Estimator
) -> FloatArray:
    """The convergence measure of R vectors, (R,)."""
    _, along, values, _ = _scaled_model(surface, inner, quadratic)
    scale = np.hypot(_objective_scale(quadratic, batch), _exact_scale(batch, estimator))
    return np.asarray(_decrement(along, values) / scale)
