"""What do gates cost?"""

from __future__ import annotations

from typing import Any

from spaces.architecture import GateMode
from spaces.price import Price, plain_price

GATE_OUTPUTS: dict[GateMode, int] = {"independent": 2, "softmax": 2, "convex": 1, "fixed": 0}
"""Outputs of the gate's linear map: none where the halves are fixed."""
BYTES_PER_GATED_CHANNEL = 3.7
"""Kept per token, channel and layer that gates combine."""


def gate_price(mode: GateMode, d_model: Any, tokens: Any) -> Price:
    """Each output of the gate costs 2 d per token."""
    outputs = GATE_OUTPUTS[mode]
    return plain_price(
        products=2 * outputs * tokens * d_model,
        parameters=outputs * (d_model + 1),
        kept_bytes=BYTES_PER_GATED_CHANNEL * tokens * d_model,
    )
