"""Where are the minima of several curves that runs of a budget lie on?

Every K of an arm has a curve of its own: a parabola through the losses of its sizes. All curves of
a budget are one least-squares fit that has a level for every data order that the arms share: what
an order does to all is no difference between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.isoflop.isoflop_curves import fit_curve
from analysis.laws.law import FloatArray


@dataclass(frozen=True, kw_only=True)
class ArmRuns:
    """Results of one arm at one budget."""

    sizes: FloatArray
    """Parameters, (m,)."""
    tokens: FloatArray
    """Training tokens, (m,)."""
    losses: FloatArray
    """Nats per token, (m,)."""
    data_seeds: NDArray[np.int64]
    """Which order of the training text each saw, (m,)."""
    loops: FloatArray
    """K of each, 1 without a loop, (m,)."""

    def of_loop(self, num_loops: float) -> ArmRuns:
        """Those of one K."""
        mine = self.loops == num_loops
        return ArmRuns(**{name: each[mine] for name, each in vars(self).items()})


@dataclass(frozen=True, kw_only=True)
class ArmCurves:
    """The runs of an arm at a budget, parted into curves."""

    curves: tuple[ArmRuns, ...]
    """One for every K that has a minimum by itself; one of all runs where none has."""
    left_out: tuple[float, ...] = ()
    """Each K without a minimum of its own beside others that have one."""

    @property
    def loops(self) -> tuple[float | None, ...]:
        """K of each curve; None where several stand on it."""
        several = [np.unique(each.loops) for each in self.curves]
        return tuple(float(each[0]) if len(each) == 1 else None for each in several)


def curves_of(runs: ArmRuns, flops: float) -> ArmCurves | str:
    """An arm's curves at a budget, or why it has no minimum there."""
    loops = [float(each) for each in np.unique(runs.loops)]
    if len(loops) > 1:
        apart = {each: runs.of_loop(each) for each in loops}
        known = [each for each in loops if why_no_minimum(apart[each], flops) is None]
        if known:
            return ArmCurves(
                curves=tuple(apart[each] for each in known),
                left_out=tuple(each for each in loops if each not in known),
            )
    return why_no_minimum(runs, flops) or ArmCurves(curves=(runs,))


@dataclass(frozen=True)
class JointFit:
    """Parabolas that were fitted together."""

    minima: tuple[float | None, ...]
    """Of each, nats; None where, with data orders taken out, it has none among its sizes."""
    gradients: FloatArray
    """Of each minimum in all coefficients, (curves, coefficients)."""
    covariance: FloatArray
    """Of the coefficients."""
    scatter: float
    """Standard deviation of a run about its curve, nats."""
    degrees: int
    """Of freedom of the residuals."""

    def error(self, number: int) -> float:
        """Standard error of a minimum."""
        return self._error(self.gradients[number])

    def error_of_difference(self, number: int, other: int) -> float:
        """Standard error of the second minimum less the first."""
        return self._error(self.gradients[other] - self.gradients[number])

    def _error(self, gradient: FloatArray) -> float:
        return math.sqrt(float(gradient @ self.covariance @ gradient))


def joint_fit(curves: Sequence[ArmRuns], orders: NDArray[np.int64]) -> JointFit | str:
    """Parabolas through the runs of each curve, with a level for each of ``orders``; or why not.

    A minimum moves with the coefficients as the curve does at its place, since it is flat there.
    """
    from scipy.linalg import block_diag

    logs = [_centred(each) for each in curves]
    losses = np.concatenate([each.losses for each in curves])
    seeds = np.concatenate([each.data_seeds for each in curves])
    design = np.hstack([block_diag(*(np.vander(each, 3) for each in logs)), _levels(seeds, orders)])
    degrees = len(losses) - design.shape[1]
    if degrees < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        return "no run is left over to tell the scatter about the curves; add sizes or seeds"
    inverse = np.linalg.inv(design.T @ design)
    coefficients = inverse @ design.T @ losses
    rest = losses - design @ coefficients
    minima: list[float | None] = []
    gradients = np.zeros((len(logs), design.shape[1]))
    for number, mine in enumerate(logs):
        block = slice(3 * number, 3 * number + 3)
        bend, slope, level = coefficients[block]
        place = -slope / (2 * bend) if bend > 0 else math.inf
        is_inside = mine.min() < place < mine.max()
        minima.append(float(level - slope**2 / (4 * bend)) if is_inside else None)
        gradients[number, block] = place**2, place, 1.0
    return JointFit(
        minima=tuple(minima),
        gradients=gradients,
        covariance=inverse * float(rest @ rest) / degrees,
        scatter=math.sqrt(float(rest @ rest) / degrees),
        degrees=degrees,
    )


def why_no_minimum(runs: ArmRuns, flops: float) -> str | None:
    """What the curve of an arm's runs says against its minimum; None where it has one."""
    if not len(runs.sizes):
        return f"budget {flops:.3g}: an arm has no run that may be compared"
    curve = fit_curve(runs.sizes, runs.losses, runs.tokens, budget=flops)
    if curve.loss_star is not None:
        return None
    return next(reason.message for reason in curve.reasons if reason.status == "refused")


def _centred(runs: ArmRuns) -> FloatArray:
    logs = np.log(runs.sizes)
    return np.asarray(logs - logs.mean())


def common_orders(one: Sequence[ArmRuns], other: Sequence[ArmRuns]) -> NDArray[np.int64]:
    """Data orders that the curves of both arms saw, ascending."""
    mine, others = (np.concatenate([each.data_seeds for each in arm]) for arm in (one, other))
    return np.intersect1d(mine, others)


def _levels(seeds: NDArray[np.int64], orders: NDArray[np.int64]) -> FloatArray:
    """A column for each common order, (n, s): all but the first where nothing else was run."""
    mine = orders if not np.isin(seeds, orders).all() else orders[1:]
    return np.asarray(seeds[:, None] == mine[None, :], dtype=np.float64)
