"""What every arm must keep to, the ones that ship and one of one's own."""

from __future__ import annotations

from pathlib import Path

from spaces.architecture import Architecture, CommonFields
from spaces.arms.contract import Arm, find_arm
from spaces.arms.registry import BUILT_IN, load_arms
from spaces.axes import Axis, AxisValue, SolveMode

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "parallel_arm.py"

COMMON = CommonFields(context_length=16, vocab_size=64, head_dim=8)
FFN_MULTIPLE = 8

(OWN,) = load_arms(EXAMPLE)
ARMS = (*BUILT_IN, OWN)
"""Every arm that ships, and the example of the docs."""


def point_of(arm: Arm, mode: SolveMode) -> dict[str, AxisValue]:
    """The last value that each shape axis comes with, but small layers and widths."""
    small = {"num_layers": 2, "d_model": 32, "num_loops": 2, "alpha": 0.5}
    axes = [axis for axis in arm.axes[mode] if axis.role == "shape"]
    return {axis.name: small.get(axis.name, last(axis)) for axis in axes}


def last(axis: Axis) -> AxisValue:
    """The last value of an axis."""
    value: AxisValue = axis.values[-1]
    return value


def architecture_of(name: str) -> Architecture:
    """A small architecture of an arm, as its own axes make it."""
    arm = find_arm(name)
    return arm.shape(point_of(arm, "tokens"), COMMON, d_model=32, ffn_multiple=FFN_MULTIPLE)
