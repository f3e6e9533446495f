"""How well do runs tell the gap of two arms at a budget, and which run would tell it better?

Each arm's losses at a budget lie on a parabola in ln(size); both are one least-squares fit with a
level for every data order that both arms ran, and the gap is the difference of their minima. That
is how a sweep is analysed; the search cannot ask `analysis`, and a test holds both to one interval.
Where an arm runs several K, the analysis has a curve for each and a wider interval than this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from search.design.information import COST_EXPONENT
from search.design.law_model import FloatArray

SCATTER_NATS = 0.015
"""Of a run about its arm's curve, before residuals tell: 0.5 % (a grid of one depth) of 3 nats."""
ORDER_NATS = 0.006
"""What a data order does to all losses of a budget (the same grid)."""
FEWEST_DEGREES = 4
"""Of freedom, from which on residuals tell the scatter."""

SAME_BUDGET = 1e-3
"""Budgets that differ by less, relatively, are one."""

CURVE = 3
"""Coefficients of a parabola: of x^2, x and 1."""
PRIOR_DEVIATION = (0.1, 0.1, 1.0)
"""Of these before any run, nats, x being ln(size) over the expected best: bends of 0.03 to 0.1 in
sweeps of this program. It chooses the first runs; half-widths rest on runs alone."""

PLACE_DEVIATION = 0.5
"""How far a minimum may lie from where it is believed to be, in ln(size): a design that trusts the
place would train one size only, and a curve needs both sides."""


@dataclass(frozen=True, kw_only=True)
class GapRuns:
    """Runs of two arms at one budget; every array is (n,)."""

    places: FloatArray
    """ln of the size over the best one expected."""
    of_other: NDArray[np.bool_]
    """Whether it is of the second arm."""
    orders: NDArray[np.int64]
    """Seeds of the data order."""

    def __len__(self) -> int:
        return len(self.places)

    def joined(self, other: GapRuns) -> GapRuns:
        """Both, these first."""
        return GapRuns(
            **{
                name: np.concatenate([mine, getattr(other, name)])
                for name, mine in vars(self).items()
            }
        )

    def only(self, place: int) -> GapRuns:
        """One of them."""
        return GapRuns(**{name: mine[place : place + 1] for name, mine in vars(self).items()})

    def curves(self) -> FloatArray:
        """Derivatives of the losses by the coefficients of both curves, (n, 6)."""
        powers = np.vander(self.places, CURVE)
        mine = ~self.of_other[:, None]
        return np.concatenate([powers * mine, powers * ~mine], axis=1)

    def levels(self, orders: NDArray[np.int64]) -> FloatArray:
        """Derivatives by what each of these orders adds, (n, s)."""
        return np.asarray(self.orders[:, None] == orders[None, :], dtype=np.float64)

    def common_orders(self) -> NDArray[np.int64]:
        """Those that have a level of their own: both arms' (all but one where no other was run)."""
        common = np.intersect1d(self.orders[self.of_other], self.orders[~self.of_other])
        return common if not np.isin(self.orders, common).all() else common[1:]


@dataclass(frozen=True, kw_only=True)
class GapBelief:
    """Where both minima lie, and how far runs scatter."""

    minima: tuple[float, float] = (0.0, 0.0)
    """Places of the first and of the second arm's."""
    scatter_nats: float = SCATTER_NATS

    def slope(self, off: float = 0.0) -> FloatArray:
        """Derivatives of the gap by the coefficients of both curves, (6,); of the losses at places
        so far off the minima."""
        one, other = (np.array([x**2, x, 1.0]) for x in np.array(self.minima) + off)
        return np.concatenate([-one, other])


def believed(runs: GapRuns, losses: FloatArray) -> GapBelief:
    """What losses (n,), nats, say of the minima and of the scatter; the prior where they do not."""
    design = np.hstack([runs.curves(), runs.levels(runs.common_orders())])
    degrees = len(runs) - design.shape[1]
    if degrees < 0 or np.linalg.matrix_rank(design) < design.shape[1]:
        return GapBelief()
    coefficients = np.asarray(np.linalg.lstsq(design, losses, rcond=None)[0], dtype=np.float64)
    minima = tuple(
        _minimum(coefficients[start : start + CURVE], runs.places[of_it])
        for start, of_it in ((0, ~runs.of_other), (CURVE, runs.of_other))
    )
    found = GapBelief(minima=(minima[0], minima[1]))
    if degrees < FEWEST_DEGREES:
        return found
    rest = losses - design @ coefficients
    return replace(found, scatter_nats=math.sqrt(float(rest @ rest) / degrees))


def _minimum(curve: FloatArray, places: FloatArray) -> float:
    """Its place, within those that were run; the expected one without a minimum there."""
    bend, slope, _ = curve
    place = -slope / (2 * bend) if bend > 0 else math.inf
    return float(place) if places.min() < place < places.max() else 0.0


def half_width(runs: GapRuns, belief: GapBelief) -> float:
    """Half the 95 % interval of the gap, nats; infinite where the runs do not tell it."""
    levels = runs.levels(runs.common_orders())
    design = np.hstack([runs.curves(), levels])
    degrees = len(runs) - design.shape[1]
    if degrees < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return math.inf
    for place, of_it in zip(belief.minima, (~runs.of_other, runs.of_other), strict=True):
        mine = runs.places[of_it]
        if not mine.min() < place < mine.max():
            return math.inf
    slope = np.concatenate([belief.slope(), np.zeros(levels.shape[1])])
    variance = float(slope @ np.linalg.solve(design.T @ design, slope))
    return _student(degrees) * belief.scatter_nats * math.sqrt(variance)


def next_run(runs: GapRuns, candidates: GapRuns, costs: Sequence[float], belief: GapBelief) -> int:
    """The place of the candidate after which the interval is narrowest for what it costs."""
    now = _expected_square(runs, belief)
    gains = [
        now - _expected_square(runs.joined(candidates.only(place)), belief)
        for place in range(len(candidates))
    ]
    return int((np.array(gains) / np.array(costs) ** COST_EXPONENT).argmax())


def _expected_square(runs: GapRuns, belief: GapBelief) -> float:
    """The squared half-width with the prior beside the runs, so that the first has a worth too."""
    orders = np.unique(runs.orders)
    design = np.hstack([runs.curves(), runs.levels(orders)]) / belief.scatter_nats
    deviations = np.array([*PRIOR_DEVIATION, *PRIOR_DEVIATION, *[ORDER_NATS] * len(orders)])
    slopes = np.zeros((3, len(deviations)))
    for row, off in zip(slopes, (-PLACE_DEVIATION, 0.0, PLACE_DEVIATION), strict=True):
        row[: 2 * CURVE] = belief.slope(off)
    covariance = np.linalg.inv(design.T @ design + np.diag(deviations**-2.0))
    variance = np.einsum("ip,pq,iq->", slopes, covariance, slopes) / len(slopes)
    degrees = len(runs) - 2 * CURVE - len(runs.common_orders())
    return float(variance) * _student(max(1, degrees)) ** 2


def _student(degrees: int) -> float:
    return float(stdtrit(degrees, 0.975))
