"""What the loop buys: the deep path alone, applied K times."""

from __future__ import annotations

from spaces.arms.dual_path import (
    NUM_LOOPS,
    ONLY_MULTIPLIER,
    TRAINED,
    DualPathArm,
    derives_everywhere,
    one_path_axes,
)
from spaces.arms.routing import EXPECTED_LOOPS, ROUTER_LOGITS


class Loop(DualPathArm):
    """The deep path of every layer."""

    name = "loop"
    has_loop = True
    axes = one_path_axes(ONLY_MULTIPLIER, loops=(NUM_LOOPS,), others=TRAINED)
    derived = derives_everywhere("deep_ffn")
    readouts = (EXPECTED_LOOPS, *ROUTER_LOGITS)


ARM = Loop()
