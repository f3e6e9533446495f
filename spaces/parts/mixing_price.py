"""What does mixing cost? Gates of two paths, and a router over loops."""

from __future__ import annotations

from typing import Any

from spaces.architecture import GateMode
from spaces.price import Price, plain_price

GATE_OUTPUTS: dict[GateMode, int] = {"independent": 2, "softmax": 2, "convex": 1, "fixed": 0}
"""Outputs of the gate's linear map: none where the halves are fixed."""
BYTES_PER_GATED_CHANNEL = 3.7
"""Kept per token, channel and layer that gates combine."""

BYTES_PER_MIXED_CHANNEL = 4.6
"""Kept per token, channel and loop that a router mixes."""


def gate_price(mode: GateMode, d_model: Any, tokens: Any) -> Price:
    """Each output of the gate costs 2 d per token."""
    outputs = GATE_OUTPUTS[mode]
    return plain_price(
        products=2 * outputs * tokens * d_model,
        parameters=outputs * (d_model + 1),
        kept_bytes=BYTES_PER_GATED_CHANNEL * tokens * d_model,
    )


def loop_router_price(d_model: Any, tokens: Any) -> Price:
    """One call costs 2 (d + 1) per token."""
    return plain_price(
        products=2 * tokens * (d_model + 1),
        parameters=d_model + 2,
        kept_bytes=BYTES_PER_MIXED_CHANNEL * tokens * d_model,
    )
