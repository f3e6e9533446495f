"""Can this design tell the parameters apart, whatever the noise?

Looks at the Jacobian at the optimum and at the design itself; never at an interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.laws.law import FloatArray
from analysis.objective.surface import Surface, jacobian

COLLINEARITY_LIMIT = 1000.0
"""Factor by which a parameter's standard error exceeds what it would be alone; beyond, refused.

Measured: 5 to 60 on the Chinchilla rows, noise-free iso-FLOP grids and the looped table, 345 on a
two-budget grid with D/N 10, 20, 40; 3,000 and more for D = 20 N and for frontier-only points."""

SAME_SIZE_LOG = 1e-3
"""Log sizes closer than 0.1 % are one level of a design."""

FOLLOWS_LOG_STD = 0.05
"""Tokens within 5 % of a power of the model size leave nothing to tell the two exponents apart."""

PARTNER_SHARE = 0.1
"""Share of the weakest direction from which a parameter counts as confounded in it."""


@dataclass(frozen=True, kw_only=True)
class Identifiability:
    """What the Jacobian says at one parameter vector."""

    condition: float
    """Condition number of the Jacobian with columns of unit length."""
    collinearity: FloatArray
    """(P,) root of the variance inflation factor."""
    weakest: tuple[int, ...]
    """Positions of the parameters that make up the weakest direction."""
    unit_errors: FloatArray
    """(P,) standard errors, in inner coordinates, per unit of residual noise."""


def identifiability(surface: Surface, inner: FloatArray, *, on_logs: bool) -> Identifiability:
    """Singular value analysis of the Jacobian at ``inner`` (P,).

    Parameters that are held are left out; their collinearity and errors are 0.
    """
    free = np.array([name not in surface.fixed for name in surface.law.parameters])
    slopes = jacobian(surface, inner[None], on_logs=on_logs)[0].T[:, free]
    lengths = np.linalg.norm(slopes, axis=0)
    idle = ~(lengths > 0)
    scaled = slopes / np.where(idle, 1.0, lengths)
    _, sizes, directions = np.linalg.svd(np.nan_to_num(scaled), full_matrices=False)
    sizes = np.maximum(sizes, 1e-15 * sizes.max())
    collinearity = np.sqrt(((directions / sizes[:, None]) ** 2).sum(0))
    collinearity[idle] = np.inf
    share = directions[-1] ** 2
    errors = collinearity / np.where(idle, 1e-300, lengths)
    weakest = np.flatnonzero(free)[(share >= PARTNER_SHARE) | idle]
    return Identifiability(
        condition=float(sizes.max() / sizes.min()),
        collinearity=_spread_over(free, collinearity),
        weakest=tuple(int(place) for place in weakest),
        unit_errors=_spread_over(free, errors),
    )


def _spread_over(free: NDArray[np.bool_], values: FloatArray) -> FloatArray:
    """Values (P,) of all parameters from those of the free ones, 0 elsewhere."""
    whole = np.zeros(len(free))
    whole[free] = values
    return whole


def num_levels(log_sizes: FloatArray) -> int:
    """Distinct levels among log sizes (n,)."""
    return 1 + int((np.diff(np.sort(log_sizes)) > SAME_SIZE_LOG).sum())


@dataclass(frozen=True, kw_only=True)
class Following:
    """How closely log tokens follow the log model size over the rows."""

    residual_log_std: float
    """Standard deviation of log tokens about the line."""
    slope: float
    """Exponent of tokens as a power of size."""
    ratio: float
    """Geometric mean of tokens over size."""

    @property
    def follows(self) -> bool:
        """Whether tokens are, for a fit, a function of the model size."""
        return self.residual_log_std < FOLLOWS_LOG_STD


def following(log_sizes: FloatArray, log_tokens: FloatArray) -> Following | None:
    """The regression of log tokens on log sizes, both (n,); None where sizes do not vary."""
    centred = log_sizes - log_sizes.mean()
    spread = float(centred @ centred)
    if spread < 1e-12:
        return None
    slope = float(centred @ (log_tokens - log_tokens.mean())) / spread
    rest = log_tokens - log_tokens.mean() - slope * centred
    return Following(
        residual_log_std=float(rest.std()),
        slope=slope,
        ratio=float(np.exp((log_tokens - log_sizes).mean())),
    )


def moving_together(columns: dict[str, FloatArray], limit: float = 0.95) -> list[tuple[str, str]]:
    """Pairs of design columns whose logs correlate beyond ``limit`` in size."""
    logs = {
        role: np.log(values)
        for role, values in columns.items()
        if (values > 0).all() and float(np.std(np.log(values))) > 1e-9
    }
    roles = sorted(logs)
    return [
        (one, two)
        for place, one in enumerate(roles)
        for two in roles[place + 1 :]
        if abs(float(np.corrcoef(logs[one], logs[two])[0, 1])) > limit
    ]
