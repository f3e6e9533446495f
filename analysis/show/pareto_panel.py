"""What is drawn of a Pareto front, and which of very many points are marked?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.isoflop.isoflop_curves import IsoflopCurve
from analysis.laws.law import FloatArray

MOST_MARKS = 1500
"""Marks of one panel; more can neither be told apart nor opened quickly."""

GRID_DRAWN = 101
"""Points of a fitted curve that are drawn."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Configurations of one arm."""

    costs: FloatArray
    """(m,)."""
    losses: FloatArray
    """Nats, (m,)."""
    names: tuple[str, ...]
    """What each is, (m,)."""


@dataclass(frozen=True, kw_only=True)
class ParetoPanel:
    """Loss against one cost."""

    label: str
    """Of the cost."""
    clouds: Mapping[str, Cloud]
    """By arm."""
    front_costs: FloatArray
    """Of the front, ascending, (f,)."""
    front_losses: FloatArray
    """Nats, falling, (f,)."""
    front_arms: tuple[str, ...]
    """Whose each is, (f,)."""


def thinned(x: FloatArray, y: FloatArray, most: int) -> NDArray[np.int64]:
    """Which of many points (m,) to mark, at most ``most``, ascending: the lowest of every range of
    x, and every so many of the others."""
    if len(x) <= most:
        return np.arange(len(x))
    order = np.lexsort((y, x))
    parts = np.array_split(order, most // 2)
    lowest = np.array([part[np.argmin(y[part])] for part in parts])
    others = np.setdiff1d(order, lowest)
    chosen = others[np.linspace(0, len(others) - 1, most - len(lowest)).astype(np.int64)]
    return np.unique(np.concatenate([lowest, chosen]))


def drawn_curve(curve: IsoflopCurve, most: int) -> IsoflopCurve:
    """A curve with so many of its runs and of its grid as are drawn."""
    runs = thinned(curve.sizes, curve.losses, most)
    step = max(1, len(curve.grid) // (GRID_DRAWN - 1))
    return replace(
        curve,
        sizes=curve.sizes[runs],
        losses=curve.losses[runs],
        grid=curve.grid[::step],
        grid_losses=curve.grid_losses[::step],
    )
