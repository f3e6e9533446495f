"""What does each choice do by itself? A base, every other value of every axis alone, on all seeds.

The base is each axis's own default where an experiment names it, else its first value. All variants
run with the same seeds, so that each is compared with the base seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping

from spaces.arms.contract import find_arm
from spaces.axes import AxisValue

AS_IT_IS = "as it is"


def base_point(arm: str, axes: Mapping[str, tuple[AxisValue, ...]]) -> dict[str, AxisValue]:
    """The point that the others differ from in one axis."""
    own = {axis.name: axis.values for axis in find_arm(arm).all_axes()}
    base: dict[str, AxisValue] = {}
    for name, values in axes.items():
        defaults = [value for value in own.get(name, ()) if value in values]
        base[name] = defaults[0] if len(own.get(name, ())) == 1 and defaults else values[0]
    return base


def ablation_points(
    arm: str, axes: Mapping[str, tuple[AxisValue, ...]]
) -> list[dict[str, AxisValue]]:
    """The base, then every other value of every axis alone."""
    base = base_point(arm, axes)
    return [base] + [
        base | {name: value}
        for name, values in axes.items()
        for value in values
        if value != base[name]
    ]


def varied(point: Mapping[str, AxisValue], base: Mapping[str, AxisValue]) -> str:
    """In which axis a point differs from the base: ``gate_mode = convex``."""
    changed = [
        f"{name} = {value:g}" if isinstance(value, int | float) else f"{name} = {value}"
        for name, value in point.items()
        if base.get(name) != value
    ]
    return ", ".join(changed) or AS_IT_IS
