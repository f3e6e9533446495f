"""What the width buys: the wide path alone, applied once."""

from __future__ import annotations

from spaces.arms.dual_path import (
    TRAINED,
    WIDE_MULTIPLIER,
    DualPathArm,
    derives_everywhere,
    one_path_axes,
)


class Wide(DualPathArm):
    """The wide path of every layer."""

    name = "wide"
    has_deep_path = False
    has_wide_path = True
    axes = one_path_axes(WIDE_MULTIPLIER, others=TRAINED)
    derived = derives_everywhere("wide_ffn")


ARM = Wide()
