"""What everyone would use: an ordinary transformer, the deep path applied once and unscaled."""

from __future__ import annotations

from spaces.arms.dual_path import (
    DEEP_MULTIPLIER,
    DualPathArm,
    derives_everywhere,
    one_path_axes,
)
from spaces.axes import LEARNING_RATE_MULTIPLIER


class Standard(DualPathArm):
    """One block a layer, residual steps of scale 1."""

    name = "standard"
    has_step_scales = False
    learning_rate = 0.0015
    spans_depths = True
    axes = one_path_axes(DEEP_MULTIPLIER, others=(LEARNING_RATE_MULTIPLIER,))
    derived = derives_everywhere("deep_ffn")


ARM = Standard()
