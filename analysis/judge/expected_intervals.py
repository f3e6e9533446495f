"""How wide will a law's intervals be? From the design alone, before a single run.

The covariance of least squares is noise^2 (J' J)^-1, J being the derivatives of ln(loss) by the
parameters at every planned run. Its parameters are believed as in `PRIOR` until runs tell
otherwise. Assumes independent noise: what runs of one budget share makes intervals wider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from analysis.laws.law import Columns, FloatArray, Law
from analysis.objective.surface import Surface, jacobian

PRIOR: Mapping[str, float] = {
    "E": 0.6,
    "coefficient": 0.2,
    "alpha": 0.4,
    "beta": 0.3,
    "phi": 0.5,
    "omega": 1.0,
}
"""Exponents and shapes; of the loss at the centre of the table, the shares of E and of each term.
Between Hoffmann et al. (arXiv 2203.15556) and a grid of small models of this program's own (alpha
0.46, beta 0.14, E 58 % of the loss)."""

NOISE = 0.015
"""Relative scatter of a loss around its law, before residuals tell: 0.5 % in a grid of one depth,
1.1 to 2.1 % in sweeps of several (experiments/studies/first_law); seeds alone are 0.1 to 0.5 %."""

FEWEST_BUDGETS = 4
"""From which on a fit's intervals come from leaving budgets out."""

WIDE = 0.25
"""A relative half-width beyond which a parameter says little."""
HOPELESS = 1.0
"""From here on it says nothing: the certificate refuses."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a design is expected to tell of one quantity."""

    name: str
    value: float
    """As believed beforehand."""
    half_width: float
    """Of its 95 % interval, in its own unit; infinite where the design says nothing."""

    @property
    def relative(self) -> float:
        """The half-width over the value."""
        return self.half_width / abs(self.value)


def expected_intervals(
    law: Law,
    columns: Columns,
    *,
    num_budgets: int | None = None,
    believed: Mapping[str, float] = PRIOR,
    noise: float = NOISE,
) -> list[Expected]:
    """Every parameter but coefficients, and the exponent a of N* ~ C^a; columns are (n,) arrays.

    With four ``num_budgets`` or more, intervals are those of a jackknife over budgets. Empty where
    there are no more runs than parameters.
    """
    surface = Surface(law, columns, 1.0)
    rows = len(next(iter(columns.values())))
    freedom = rows - surface.num_parameters
    if freedom < 1:
        return []
    inner = np.array([believed.get(name, believed["coefficient"]) for name in law.parameters])
    slopes = jacobian(surface, inner[None], on_logs=True)[0]
    covariance = noise**2 * np.linalg.pinv(slopes @ slopes.T, rcond=1e-13)
    if num_budgets is not None and num_budgets >= FEWEST_BUDGETS:
        freedom = num_budgets - 1
    reach = float(stdtrit(freedom, 0.975))
    names = ("E", *law.nonlinear)
    found = [
        _expected(name, inner[surface.index(name)], _unit(surface, name), covariance, reach)
        for name in names
    ]
    if {"alpha", "beta"} <= set(law.exponents):
        alpha, beta = believed["alpha"], believed["beta"]
        slope = np.zeros(surface.num_parameters)
        slope[surface.index("alpha")] = -beta / (alpha + beta) ** 2
        slope[surface.index("beta")] = alpha / (alpha + beta) ** 2
        found.append(_expected("a", beta / (alpha + beta), slope, covariance, reach))
    return found


def _unit(surface: Surface, name: str) -> FloatArray:
    slope = np.zeros(surface.num_parameters)
    slope[surface.index(name)] = 1.0
    return slope


def _expected(
    name: str, value: float, slope: FloatArray, covariance: FloatArray, reach: float
) -> Expected:
    variance = float(slope @ covariance @ slope)
    return Expected(name=name, value=float(value), half_width=reach * float(np.sqrt(variance)))
