"""How much compute is an arm worth? What the standard arm would have to spend for the same loss.

The compute-equivalent gain at a budget C is C_std(L) / C: the standard arm's frontier, the minimum
of its iso-FLOP curve per budget, is fitted by a power law with a floor, L = E + A C^-a, and
inverted at the minimum L of the arm's curve. Above 1 the arm is the better use of compute. The
interval is a parametric bootstrap: every minimum is drawn again with its standard error, and the
whole is done again. The same frontiers give the arms' gaps (`analysis.sweep.arm_trends`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MIN_BUDGETS = 3
NUM_RESAMPLES = 1000
LEVEL = 0.95
_NUM_FLOORS = 60


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """The frontier of an arm at one budget."""

    train_flops: float
    """C."""
    loss_nats: float | None
    """Minimum of the iso-FLOP curve, nats per token; None where it has none."""
    noise_nats: float | None
    """Standard error of it; None where nothing tells it."""
    refused: str | None = None
    """Why there is no minimum."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The compute-equivalent gain of an arm at one budget, or why there is none."""

    arm: str
    train_flops: float
    gain: float | None
    """C_std(L) / C; None where refused."""
    interval: tuple[float, float] | None
    """95 %, by bootstrap; an end beyond the standard arm's range is that range's end."""
    refused: str | None
    """Why there is no number, or no interval."""


def compute_equivalent_gains(
    frontiers: Mapping[str, Sequence[FrontierPoint]],
    *,
    standard: str = "standard",
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> list[Gain]:
    """The gain of every arm but the standard one at each of its budgets."""
    chance = np.random.default_rng(seed)
    reference = sorted(frontiers.get(standard, ()), key=lambda point: point.train_flops)
    gains = []
    for arm in sorted(set(frontiers) - {standard}):
        for point in sorted(frontiers[arm], key=lambda point: point.train_flops):
            gains.append(_gain(arm, point, reference, num_resamples, chance))
    return gains


def _gain(
    arm: str,
    point: FrontierPoint,
    reference: Sequence[FrontierPoint],
    num_resamples: int,
    chance: np.random.Generator,
) -> Gain:
    def refuse(why: str) -> Gain:
        return Gain(arm=arm, train_flops=point.train_flops, gain=None, interval=None, refused=why)

    if point.loss_nats is None:
        return refuse(f"{arm} has no frontier there: {point.refused}")
    reference = [each for each in reference if each.loss_nats is not None]
    if len(reference) < MIN_BUDGETS:
        return refuse(
            f"the standard arm needs a minimum at {MIN_BUDGETS} budgets, got {len(reference)}"
        )
    flops = np.array([each.train_flops for each in reference])
    losses = np.array([each.loss_nats for each in reference], dtype=np.float64)
    if not np.all(np.diff(losses) < 0):
        return refuse("the standard arm's frontier does not fall from budget to budget")
    low, high = losses[-1], losses[0]
    if not low <= point.loss_nats <= high:
        return refuse(
            f"none where a loss lies beyond the standard arm's range, {low:.4f} to {high:.4f} nats"
        )
    gain = _inverted(flops, losses, point.loss_nats) / float(point.train_flops)
    noises = [each.noise_nats for each in reference]
    if point.noise_nats is None or any(noise is None for noise in noises):
        return Gain(
            arm=arm,
            train_flops=point.train_flops,
            gain=gain,
            interval=None,
            refused="no interval where nothing tells the error of a minimum",
        )
    spread = np.array(noises, dtype=np.float64)
    drawn = losses + spread * chance.standard_normal((num_resamples, len(losses)))
    asked = point.loss_nats + point.noise_nats * chance.standard_normal(num_resamples)
    found = [_clipped(flops, row, loss) for row, loss in zip(drawn, asked, strict=True)]
    tail = (1 - LEVEL) / 2
    ends = np.quantile(np.array(found) / point.train_flops, [tail, 1 - tail])
    return Gain(
        arm=arm,
        train_flops=point.train_flops,
        gain=gain,
        interval=(float(ends[0]), float(ends[1])),
        refused=None,
    )


def _clipped(flops: Floats, losses: Floats, loss: float) -> float:
    """The inverse for drawn losses, which may cross: they are sorted, and the range holds."""
    ordered = np.sort(losses)[::-1]
    gaps = np.maximum(-np.diff(ordered), 1e-9)
    ordered = ordered[0] - np.concatenate([[0.0], np.cumsum(gaps)])
    return _inverted(flops, ordered, float(np.clip(loss, ordered[-1], ordered[0])))


def _inverted(flops: Floats, losses: Floats, loss: float) -> float:
    """C at which the fitted frontier has a loss, within the range of its budgets."""
    floor, slope, offset = _fit(flops, losses)
    value = math.exp((math.log(max(loss - floor, 1e-12)) - offset) / slope)
    return float(np.clip(value, flops[0], flops[-1]))


def _fit(flops: Floats, losses: Floats) -> tuple[float, float, float]:
    """Floor E, and slope and offset of ln(L - E) over ln C: the floor by search, the line exactly.

    Residuals are taken on the losses, so that no point near the floor decides alone.
    """
    x = np.log(flops)
    reach = losses[0] - losses[-1]
    floors = losses[-1] - reach * np.geomspace(0.02, 20, _NUM_FLOORS)
    floors = floors[floors > 0] if np.any(floors > 0) else np.zeros(1)
    y = np.log(losses[None, :] - floors[:, None])
    centered = x - x.mean()
    slopes = (y - y.mean(axis=1, keepdims=True)) @ centered / float(centered @ centered)
    offsets = y.mean(axis=1) - slopes * x.mean()
    fitted = floors[:, None] + np.exp(offsets[:, None] + slopes[:, None] * x)
    best = int(np.argmin(np.sum((fitted - losses) ** 2, axis=1)))
    return float(floors[best]), float(slopes[best]), float(offsets[best])
