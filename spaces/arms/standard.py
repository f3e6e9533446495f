"""What everyone would use: an ordinary transformer, the deep path applied once.

Its residual steps have scale 1, or trained scales where the arms that it is compared with do.
"""

from __future__ import annotations

from spaces.arms.dual_path import (
    ONLY_MULTIPLIER,
    PERHAPS_TRAINED,
    DualPathArm,
    derives_everywhere,
    one_path_axes,
)


class Standard(DualPathArm):
    """One block a layer."""

    name = "standard"
    has_step_scales = False
    learning_rate = 0.0015
    spans_depths = True
    axes = one_path_axes(ONLY_MULTIPLIER, others=PERHAPS_TRAINED)
    derived = derives_everywhere("deep_ffn")


ARM = Standard()
