"""Which freedoms did each arm have, and were they the same?

An arm that may choose more does better for that alone. What is compared is what several arms have:
depth, width, the size of a feed-forward over the width, and trained step scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from search.record.trial_records import TrialRecord
from spaces.arms.contract import find_arm
from spaces.axes import Axis

Freedom = Literal["searched", "fixed", "none"]

SHARED = ("depth", "width", "feed-forward ratio", "step scales")


@dataclass(frozen=True, kw_only=True)
class ArmFreedoms:
    """What an arm's trials had to choose from."""

    arm: str
    searched: tuple[str, ...]
    """Axes that its trials hold several values of."""
    shared: dict[str, Freedom]
    """Of what arms can have in common: several values, one, or none at all (step scales that are
    not trained)."""


def arm_freedoms(records: Sequence[TrialRecord]) -> list[ArmFreedoms]:
    """The freedoms of every arm of a sweep that is known here."""
    arms: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.set_aside is None and record.proposal.config.architecture.is_known:
            arms.setdefault(record.proposal.arm, []).append(record)
    return [_freedoms(arm, mine) for arm, mine in sorted(arms.items())]


def unequal_freedoms(found: Sequence[ArmFreedoms]) -> str | None:
    """In which shared freedoms the arms differ, in one line; None where in none."""
    parts = []
    for name in SHARED:
        groups: dict[Freedom, list[str]] = {}
        for each in found:
            groups.setdefault(each.shared[name], []).append(each.arm)
        if len(groups) > 1:
            listed = "; ".join(f"{how}: {', '.join(arms)}" for how, arms in sorted(groups.items()))
            parts.append(f"{name} ({listed})")
    return f"arms had unequal freedoms: {', '.join(parts)}" if parts else None


def _freedoms(arm: str, records: Sequence[TrialRecord]) -> ArmFreedoms:
    values: dict[str, set[object]] = {}
    for record in records:
        for name, value in record.proposal.axes.items():
            values.setdefault(name, set()).add(value)
    searched = {name for name, several in values.items() if len(several) > 1}
    axes = find_arm(arm).all_axes()
    scaled = {_scales_steps(record) for record in records}
    free: dict[str, bool] = {
        "depth": "num_layers" in searched,
        "width": bool({"d_model"} & searched) or "d_model" not in values,
        "feed-forward ratio": any(axis.name in searched for axis in axes if _is_ratio(axis)),
    }
    shared: dict[str, Freedom] = {
        n: "searched" if is_free else "fixed" for n, is_free in free.items()
    }
    shared["step scales"] = (
        "searched" if {"step_scale_init", "step_scales"} & searched or len(scaled) > 1 else "fixed"
    )
    if scaled == {False}:
        shared["step scales"] = "none"
    return ArmFreedoms(arm=arm, searched=tuple(sorted(searched)), shared=shared)


def _scales_steps(record: TrialRecord) -> bool:
    architecture = record.proposal.config.architecture
    return find_arm(architecture.arm).scales_steps(architecture)


def _is_ratio(axis: Axis) -> bool:
    return axis.sizes is not None and axis.sizes.endswith("_ffn")
