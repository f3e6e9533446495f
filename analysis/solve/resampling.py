"""How far could the parameters be from the truth? Refits of resampled data, all in one batch.

The default was chosen by measured coverage and width (`experiments/benchmarks/laws/`,
``fit_coverage`` and ``noise_coverage``): where the table has budgets, noise drawn anew with the
share that their runs have in common estimated; the delete-one-budget jackknife with Student's t,
which assumes less and is wider, stands beside it. Pairs where there are no budgets, which assumes
independent noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.laws.law import FloatArray
from analysis.objective.estimators import Estimator
from analysis.objective.newton import SHORT_STEP, Batch, minimise
from analysis.objective.surface import Surface, jacobian, local_quadratic
from analysis.points.checked_points import Points
from analysis.solve.noise_components import NoiseComponents, noise_components
from spaces.errors import RequestError

Resample = Literal[
    "auto", "components", "jackknife", "pairs", "clusters", "residual", "wild", "hessian"
]

FEWEST_GROUPS = 4
"""Budgets that a jackknife or cluster bootstrap needs at least."""

SOLVER_ACCURACY = 1e-9
"""Relative error of a refit; intervals of noise-free data are no narrower than that."""

WEBB_WEIGHTS = np.sqrt(np.array([0.5, 1.0, 1.5]))
"""Six-point distribution for few clusters (Webb 2014): each of these, with either sign."""

ASSUMES = {
    "components": "normal noise, the same everywhere; the share that groups have is estimated",
    "jackknife": "rows of one budget may share noise; budgets are independent",
    "clusters": "rows of one budget may share noise; budgets are independent",
    "wild": "rows of one budget may share noise, symmetric about zero; budgets are independent",
    "pairs": "independent rows",
    "residual": "independent rows with the same noise everywhere",
    "hessian": "independent rows, the same normal noise everywhere, a quadratic objective",
}


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """Parameter vectors of resampled data, and how an interval follows from them."""

    kind: str
    """One of `Resample`, never ``auto``."""
    outer: FloatArray
    """(R, P) law parameters; only converged refits."""
    share_converged: float
    """Converged refits over all."""
    num_groups: int
    """Groups left out one by one (jackknife), or 0."""
    level: float = 0.95
    """Nominal coverage."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of ``components``: estimated share of the noise's variance that the runs of a group have in
    common, by what they have in common."""

    @property
    def assumes(self) -> str:
        """Which noise the intervals assume, in words."""
        said = " and ".join(
            f"runs of one {what} share {100 * share:.0f} %" for what, share in self.shares.items()
        )
        return ASSUMES[self.kind] + (f" ({said} of its variance)" if said else "")

    def standard_error(self, values: FloatArray) -> float:
        """Standard error of a quantity from its replicates (R,)."""
        if self.kind == "jackknife":
            groups = len(values)
            return float(np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum()))
        return float(values.std())

    def interval(
        self, estimate: float, values: FloatArray, *, positive: bool, noise: float = 0.0
    ) -> tuple[float, float] | None:
        """Interval of a quantity, on its logarithm where ``positive``.

        ``noise`` is the standard deviation (of the logarithm where positive) that a new measurement
        adds. None where fewer than two replicates are finite or the estimate is not.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            centre, draws = (np.log(estimate), np.log(values)) if positive else (estimate, values)
        draws = draws[np.isfinite(draws)]
        if len(draws) < 2 or not np.isfinite(centre):
            return None
        tail = 0.5 * (1.0 - self.level)
        if self.kind == "components":
            half = float(np.quantile(np.abs(draws - np.median(draws)), self.level))
            normal = stats.norm.ppf(1.0 - tail) * noise
            low, high = centre - np.hypot(half, normal), centre + np.hypot(half, normal)
        elif self.kind == "jackknife":
            width = stats.t.ppf(1.0 - tail, len(draws) - 1)
            width *= np.hypot(self.standard_error(draws), noise)
            low, high = centre - width, centre + width
        else:
            low, high = np.quantile(draws, [tail, 1.0 - tail])
            normal = stats.norm.ppf(1.0 - tail) * noise
            low = centre - np.hypot(centre - low, normal)
            high = centre + np.hypot(high - centre, normal)
        if positive:
            low, high = np.exp(low), np.exp(high)
        return float(low - SOLVER_ACCURACY * abs(low)), float(high + SOLVER_ACCURACY * abs(high))


def kind_for(points: Points, asked: Resample) -> Resample:
    """The kind that ``auto`` means here, or the one asked for. Raises `RequestError`."""
    if asked not in get_args(Resample):
        raise RequestError(f"--resample takes {', '.join(get_args(Resample))}, got {asked!r}")
    if asked == "auto":
        return "components" if points.num_budgets >= FEWEST_GROUPS else "pairs"
    if asked == "components" and not points.shared_noise:
        raise RequestError(
            "--resample components estimates what groups of runs share, but the table has none; "
            "name a column with --column budget=... or --column trunk=..., or use pairs"
        )
    if asked in ("jackknife", "clusters", "wild") and points.num_budgets < FEWEST_GROUPS:
        raise RequestError(
            f"--resample {asked} needs at least {FEWEST_GROUPS} budgets, the table has "
            f"{points.num_budgets}; name the column with --column budget=..., or use pairs"
        )
    return asked


def resample(
    points: Points,
    surface: Surface,
    inner: FloatArray,
    estimator: Estimator,
    *,
    kind: Resample,
    num: int,
    seed: int,
) -> Replicates:
    """Refit ``num`` resamples (as many as budgets for the jackknife) from the optimum (P,)."""
    kind = kind_for(points, kind)
    generator = np.random.default_rng(seed)
    base = points.batch(on_logs=estimator.on_logs)
    if kind == "hessian":
        draws = _normal_draws(surface, inner, base, estimator, num, generator)
        return Replicates(kind=kind, outer=surface.outer(draws), share_converged=1.0, num_groups=0)
    if kind == "components":
        found = components_of(points, surface, inner, estimator)
        losses = _around(surface, inner, found.draw(num, generator) * base.scale, estimator)
        drawn = Batch(losses, base.weights, base.scale)
        shares = dict(zip(points.shared_noise, map(float, found.mean_shares), strict=True))
        return replace(refit(surface, inner, drawn, estimator, kind=kind), shares=shares)
    batch = _resampled(points, surface, inner, base, estimator, kind, num, generator)
    return refit(surface, inner, batch, estimator, kind=kind)


def refit(
    surface: Surface, inner: FloatArray, batch: Batch, estimator: Estimator, *, kind: str
) -> Replicates:
    """Refit a batch of resamples (weights or losses (R, n)) from one optimum (P,)."""
    num = max(len(part) for part in batch.parts if part.ndim == 2)
    starts = np.repeat(inner[None], num, axis=0)
    optima = minimise(surface, starts, batch, estimator, longest_step=SHORT_STEP)
    good = optima.converged
    return Replicates(
        kind=kind,
        outer=surface.outer(optima.inner[good]),
        share_converged=float(good.mean()),
        num_groups=num if kind == "jackknife" else 0,
    )


def components_of(
    points: Points, surface: Surface, inner: FloatArray, estimator: Estimator
) -> NoiseComponents:
    """What the residuals at an optimum (P,) say about noise that runs share."""
    base = points.batch(on_logs=estimator.on_logs)
    residuals = -surface.residuals(inner[None], base.losses, estimator)[0] / base.scale
    free = np.array([name not in surface.fixed for name in surface.law.parameters])
    slopes = jacobian(surface, inner[None], on_logs=estimator.on_logs)[0].T[:, free]
    sizes = [points.columns[role] for role in sorted(points.columns)]
    return noise_components(
        residuals,
        slopes / base.scale[:, None],
        list(points.shared_noise.values()),
        order=np.lexsort([points.losses, *sizes]),
    )


def weights_of(draws: NDArray[np.int64], num_rows: int) -> FloatArray:
    """Counts (R, num_rows) of every index in ``draws`` (R, k): a resample as weights."""
    return np.stack([np.bincount(draw, minlength=num_rows) for draw in draws]).astype(np.float64)


def _resampled(
    points: Points,
    surface: Surface,
    inner: FloatArray,
    base: Batch,
    estimator: Estimator,
    kind: str,
    num: int,
    generator: np.random.Generator,
) -> Batch:
    rows, groups, labels = points.num_rows, points.num_budgets, points.budgets
    if kind == "pairs":
        counts = weights_of(generator.integers(0, rows, (num, rows)), rows)
        return Batch(base.losses, base.weights * counts, base.scale)
    if kind in ("clusters", "jackknife"):
        assert labels is not None
        if kind == "jackknife":
            counts = (labels[None] != np.arange(groups)[:, None]).astype(np.float64)
        else:
            counts = weights_of(generator.integers(0, groups, (num, groups)), groups)[:, labels]
        return Batch(base.losses, base.weights * counts, base.scale)
    return _resampled_losses(points, surface, inner, base, estimator, kind, num, generator)


def _resampled_losses(
    points: Points,
    surface: Surface,
    inner: FloatArray,
    base: Batch,
    estimator: Estimator,
    kind: str,
    num: int,
    generator: np.random.Generator,
) -> Batch:
    """New losses around the fitted law: residuals redrawn, or flipped and scaled by budget."""
    residuals = -surface.residuals(inner[None], base.losses, estimator)[0]
    if kind == "residual":
        standard = residuals / base.scale
        standard = (standard - standard.mean()) * np.sqrt(
            len(standard) / max(1, len(standard) - surface.num_parameters)
        )
        drawn = standard[generator.integers(0, len(standard), (num, len(standard)))] * base.scale
    else:
        assert points.budgets is not None
        signs = np.concatenate([-WEBB_WEIGHTS, WEBB_WEIGHTS])
        drawn = residuals * generator.choice(signs, (num, points.num_budgets))[:, points.budgets]
    return Batch(_around(surface, inner, drawn, estimator), base.weights, base.scale)


def _around(
    surface: Surface, inner: FloatArray, drawn: FloatArray, estimator: Estimator
) -> FloatArray:
    """Losses (R, n) of the law at ``inner`` (P,) with noise of the estimator's kind."""
    fitted = surface.predict(inner[None])[0]
    with_noise = fitted * np.exp(drawn) if estimator.on_logs else fitted + drawn
    return np.asarray(np.maximum(with_noise, 1e-12))


def _normal_draws(
    surface: Surface,
    inner: FloatArray,
    base: Batch,
    estimator: Estimator,
    num: int,
    generator: np.random.Generator,
) -> FloatArray:
    """Draws (num, P) from the normal that the Hessian suggests when taken at its word."""
    local = local_quadratic(surface, inner[None], *base.parts, estimator, estimator.turning_point)
    freedom = max(1, base.losses.shape[-1] - surface.num_parameters)
    covariance = 2.0 * local.value[0] / freedom * np.linalg.pinv(local.hessian[0])
    values, vectors = np.linalg.eigh(covariance)
    shapes = generator.normal(size=(num, len(inner))) * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(np.clip(inner + shapes @ vectors.T, surface.lower, surface.upper))
