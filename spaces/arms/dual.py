"""The claim: a deep path, looped, beside a wide path, gated per token (arXiv 2605.30202)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from spaces.arms.dual_path import (
    ALPHA,
    DEEP_MULTIPLIER,
    GATE_MODE,
    GATE_TRAINING,
    NUM_LOOPS,
    TRAINED,
    WIDE_MULTIPLIER,
    DualPathArm,
)
from spaces.arms.routing import EXPECTED_LOOPS, GATES, ROUTER_LOGITS
from spaces.axes import D_MODEL, NUM_LAYERS, Axis, SolveMode

_SHAPE = (NUM_LAYERS, D_MODEL)
_TRAINED = (*TRAINED, GATE_MODE, *GATE_TRAINING)


class Dual(DualPathArm):
    """Both paths in every layer."""

    name = "dual"
    has_wide_path = True
    has_loop = True
    axes: ClassVar[Mapping[SolveMode, tuple[Axis, ...]]] = {
        "tokens": (NUM_LOOPS, WIDE_MULTIPLIER, DEEP_MULTIPLIER, *_SHAPE, *_TRAINED),
        "deep_ffn": (NUM_LOOPS, WIDE_MULTIPLIER, *_SHAPE, *_TRAINED),
        "wide_ffn": (NUM_LOOPS, DEEP_MULTIPLIER, *_SHAPE, *_TRAINED),
        "both_ffn": (NUM_LOOPS, ALPHA, *_SHAPE, *_TRAINED),
        "d_model": (NUM_LOOPS, WIDE_MULTIPLIER, DEEP_MULTIPLIER, NUM_LAYERS, *_TRAINED),
    }
    derived: ClassVar[Mapping[SolveMode, str]] = {
        "deep_ffn": "deep_ffn",
        "wide_ffn": "wide_ffn",
        "both_ffn": "wide_ffn",
    }
    readouts = (*GATES, EXPECTED_LOOPS, *ROUTER_LOGITS)


ARM = Dual()
