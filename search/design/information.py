"""How wide will the intervals of a law be, and which run narrows them most per FLOP?

The information of a set of runs is ``J' V^-1 J``: J holds the derivatives of ln(loss) by the
parameters, V the noise of the rows. Runs of one budget and data order share noise; every such pair
is one more unknown of its own, so that adding a run stays a change of rank one. A question is a
direction in the space of parameters: a run's worth is the fall of the variance along it, over its
cost to an exponent. One direction is c-optimal design, a region of predictions V-optimal
(Atkinson, Donev and Tobias, Optimum Experimental Designs, 2007, sections 10.4 and 10.6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from search.design.law_model import PARAMETERS, PRIOR_DEVIATION, FloatArray, LawModel, LawRuns

NOISE = 0.015
"""Relative scatter of a loss around its law before residuals tell: 0.5 % in a grid of one depth,
1.1 to 2.1 % in sweeps of several (experiments/studies/first_law); seeds alone are 0.1 to 0.5 %."""

SHARED_NOISE = 0.002
"""Relative noise that runs of one budget and data order share: in a grid of 86 runs, six repeats at
three budgets moved together by 3 to 15 thousandths of a nat at 3.7."""

FEWEST_BUDGETS = 4
"""From which on a fit's intervals come from leaving budgets out."""

COST_EXPONENT = 0.5
"""A run's worth is divided by its cost to this power, so that one of four times the cost counts as
two; arXiv 2604.22753 uses .3 to .4."""

UNTOLD = 1e-12
"""Of the largest eigenvalue of the information, scaled to unit diagonal: below it a direction is
told by nothing."""

DRIFT = 0.1
"""Of its value: how far a parameter may be from the law's at the region's smallest and largest
size. Designs that minimise variance alone pile up at the cheapest end, where a law that is only
nearly right is least like itself (Box and Draper, J. Am. Stat. Assoc. 54, 1959, 622)."""

DRIFTING = ("phi", "omega")

LACK_OF_FIT_SHARE = 5
"""Every fifth run goes where no other is, whatever the law says: only there can it be wrong."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Relative noise of a row's loss."""

    own: float = NOISE
    """Of each run by itself."""
    shared: float = SHARED_NOISE
    """Of all runs of a budget and data order together."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """A set of runs under a belief of the law."""

    model: LawModel
    runs: LawRuns
    noise: Noise = Noise()
    has_prior: bool = False
    """Whether the prior counts beside the runs: to choose runs, never to tell a half-width."""

    def information(self) -> FloatArray:
        """Of the parameters (P) and of what each budget and data order shares (G): (P+G, P+G)."""
        rows = self._rows() / self.noise.own
        prior = np.zeros(rows.shape[1])
        prior[len(PARAMETERS) :] = 1 / self.noise.shared**2
        if self.has_prior:
            prior[: len(PARAMETERS)] = [PRIOR_DEVIATION[name] ** -2 for name in PARAMETERS]
        return np.asarray(rows.T @ rows + np.diag(prior))

    def _rows(self) -> FloatArray:
        """Derivatives of ln(loss) by all unknowns, (n, P+G)."""
        numbers = {order: place for place, order in enumerate(dict.fromkeys(self.runs.orders))}
        shared = np.zeros((len(self.runs), len(numbers)))
        for row, order in enumerate(self.runs.orders):
            shared[row, numbers[order]] = 1.0
        return np.concatenate([self.model.jacobian(self.runs), shared], axis=1)

    def covariance(self) -> FloatArray:
        """Of the parameters, (P, P); infinite variance along what the runs do not tell."""
        information = self.information()
        scale = np.sqrt(np.diag(information))
        told = scale > 0
        scale = np.where(told, scale, 1.0)
        values, vectors = np.linalg.eigh(information / np.outer(scale, scale))
        inverse = np.where(values > UNTOLD * values.max(), 1 / np.maximum(values, 1e-300), np.inf)
        num = len(PARAMETERS)
        axes = vectors[:num] / scale[:num, None]
        finite = np.isfinite(inverse)
        covariance = (axes[:, finite] * inverse[finite]) @ axes[:, finite].T
        untold = (np.abs(vectors[:num][:, ~finite]) > 1e-6).any(axis=1)
        covariance[untold, untold] = np.inf
        return np.asarray(covariance)

    def variance(self, slope: FloatArray) -> float:
        """Of a quantity whose derivatives by the parameters are ``slope`` (P,)."""
        covariance = self.covariance()
        used = slope != 0
        if not np.isfinite(np.diag(covariance)[used]).all():
            return float("inf")
        part = covariance[np.ix_(used, used)]
        return float(slope[used] @ part @ slope[used])

    def half_width(self, slope: FloatArray) -> float:
        """Half the 95 % interval of a quantity, by Student's t over budgets as in a fit."""
        return reach(self) * float(np.sqrt(self.variance(slope)))


def reach(design: Design) -> float:
    """Student's t of a 95 % interval: over budgets where a fit leaves budgets out, else over rows;
    infinite where no degree of freedom is left."""
    budgets = len({budget for budget, _ in design.runs.orders})
    moved = (np.abs(design.model.jacobian(design.runs)) > 0).any(axis=0)
    freedom = len(design.runs) - int(moved.sum())
    if freedom < 1:
        return float("inf")
    if budgets >= FEWEST_BUDGETS:
        freedom = min(freedom, budgets - 1)
    return float(stdtrit(freedom, 0.975))


def slope_of(name: str) -> FloatArray:
    """The direction of one parameter, (P,); of a coefficient, its logarithm."""
    slope = np.zeros(len(PARAMETERS))
    slope[PARAMETERS.index(name)] = 1.0
    return slope


def slope_of_exponent(model: LawModel) -> FloatArray:
    """Of ``a = beta / (alpha + beta)``, N* ~ C^a (arXiv 2203.15556, section 3.3), (P,)."""
    alpha, beta = model.values["alpha"], model.values["beta"]
    total = (alpha + beta) ** 2
    return np.asarray(alpha / total * slope_of("beta") - beta / total * slope_of("alpha"))


def slopes_of_losses(model: LawModel, targets: LawRuns) -> FloatArray:
    """Of the losses of targets, in the model's unit of loss, (n, P)."""
    return np.asarray(model.losses(targets)[:, None] * model.jacobian(targets))


def slope_of_gap(model: LawModel, one: LawRuns, other: LawRuns) -> FloatArray:
    """Of one run's loss less another's: what both depend on alike cancels, (P,)."""
    return np.asarray(slopes_of_losses(model, one)[0] - slopes_of_losses(model, other)[0])


def worths(
    design: Design,
    candidates: LawRuns,
    slopes: FloatArray,
    *,
    cost_exponent: float = COST_EXPONENT,
    drift: float = DRIFT,
) -> FloatArray:
    """Fall of the expected squared errors along ``slopes`` (Q, P), summed, per cost, if a candidate
    ran; (n,).

    An error has a variance and a bias: what the fit makes of a law whose shapes drift with size
    (``drift``), so that runs at one end of the region do not speak for all of it. The prior counts,
    so that the first run has a worth as well.
    """
    known = Design(model=design.model, runs=design.runs, noise=design.noise, has_prior=True)
    inverse = np.linalg.inv(known.information())
    num = len(PARAMETERS)
    places = {order: num + i for i, order in enumerate(dict.fromkeys(design.runs.orders))}
    rows = np.zeros((len(candidates), len(inverse)))
    rows[:, :num] = design.model.jacobian(candidates)
    own = np.full(len(candidates), design.noise.own**2)
    for row, order in enumerate(candidates.orders):
        if order in places:
            rows[row, places[order]] = 1.0
        else:  # an order of its own: all of its noise is the run's
            own[row] += design.noise.shared**2
    middle, reach = _region(design.model, design.runs.joined(candidates))
    there = drift * _drifts(design.model, design.runs, middle, reach)
    here = drift * _drifts(design.model, candidates, middle, reach)
    before = known._rows().T @ there / design.noise.own**2
    wanted = np.concatenate([slopes, np.zeros((len(slopes), len(inverse) - num))], axis=1)
    weights = wanted @ inverse
    moved = rows @ inverse
    scale = own + (moved * rows).sum(axis=1)
    # Sherman and Morrison: the inverse after each candidate, along the wanted directions
    along = moved @ wanted.T
    after = weights[None] - (along / scale[:, None])[:, :, None] * moved[:, None, :]
    biases = after @ before + (along / scale[:, None])[:, :, None] * here[:, None, :]
    errors = np.einsum("nqp,qp->nq", after, wanted) + (biases**2).sum(axis=2)
    now = np.einsum("qp,qp->q", weights, wanted) + ((weights @ before) ** 2).sum(axis=1)
    return np.asarray((now[None] - errors).sum(axis=1) / candidates.costs**cost_exponent)


def _region(model: LawModel, runs: LawRuns) -> tuple[float, float]:
    """Middle and half the range of ln(size); half the range is at least ln 2."""
    sizes = np.log(model.sizes(runs))
    low, high = float(sizes.min()), float(sizes.max())
    return (low + high) / 2, max(math.log(2), (high - low) / 2)


def _drifts(model: LawModel, runs: LawRuns, middle: float, reach: float) -> FloatArray:
    """What a drift of each shape by its own value adds to ln(loss), (n, D)."""
    place = (np.log(model.sizes(runs)) - middle) / reach
    slopes = model.jacobian(runs)
    columns = [model.values[name] * slopes[:, PARAMETERS.index(name)] * place for name in DRIFTING]
    return np.stack(columns, axis=1)


def distances(design: Design, candidates: LawRuns) -> FloatArray:
    """How far each candidate lies from the nearest run, in the logarithms of what a law reads and
    the share of the wide path; (n,)."""
    theirs, ours = _place(candidates), _place(design.runs)
    if not len(ours):
        return np.ones(len(theirs))
    return np.asarray(np.abs(theirs[:, None] - ours[None]).sum(axis=2).min(axis=1))


def _place(runs: LawRuns) -> FloatArray:
    total = runs.params_once + runs.params_deep + runs.params_wide
    return np.stack(
        [
            np.log(total),
            np.log(runs.tokens),
            np.log(runs.num_loops),
            2 * runs.params_wide / total,
        ],
        axis=1,
    )


def next_run(
    design: Design,
    candidates: LawRuns,
    slopes: FloatArray,
    *,
    number: int,
    cost_exponent: float = COST_EXPONENT,
) -> int:
    """The place of the candidate to run next, greedily; ``number`` counts the runs chosen so far.

    Every fifth goes where no other run is, cheap ones first among equals.
    """
    if number % LACK_OF_FIT_SHARE == LACK_OF_FIT_SHARE - 1:
        far = distances(design, candidates)
        near = far >= 0.9 * far.max()
        return int(np.where(near, candidates.costs, np.inf).argmin())
    return int(worths(design, candidates, slopes, cost_exponent=cost_exponent).argmax())


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A design that was chosen run by run."""

    design: Design
    places: tuple[int, ...]
    """Of the candidates that were added, in order; one may be there several times."""
    half_width: float
    """Of the question at the end; that of the first direction."""


def choose_runs(
    design: Design,
    candidates: LawRuns,
    slopes: FloatArray,
    *,
    enough: Callable[[Design], bool],
    most: int,
    repeats: bool = True,
) -> Chosen:
    """Runs added greedily until the design is ``enough`` or ``most`` were added.

    With ``repeats`` a candidate may be taken again, in another data order.
    """
    places: list[int] = []
    left = list(range(len(candidates)))
    times: dict[int, int] = {}
    while len(places) < most and left and not enough(design):
        offered = _again(candidates.taken(left), [times.get(place, 0) for place in left])
        found = next_run(design, offered, slopes, number=len(places))
        place = left[found]
        design = Design(
            model=design.model,
            runs=design.runs.joined(offered.taken([found])),
            noise=design.noise,
        )
        places.append(place)
        times[place] = times.get(place, 0) + 1
        if not repeats:
            left.pop(found)
    return Chosen(design=design, places=tuple(places), half_width=design.half_width(slopes[0]))


def _again(candidates: LawRuns, times: Sequence[int]) -> LawRuns:
    """Candidates in the data order of their next repeat."""
    orders = tuple(
        (budget, seed + repeat)
        for (budget, seed), repeat in zip(candidates.orders, times, strict=True)
    )
    return LawRuns(
        **{name: getattr(candidates, name) for name in vars(candidates) if name != "orders"},
        orders=orders,
    )
