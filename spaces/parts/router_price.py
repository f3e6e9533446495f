"""What does a router of loops cost?"""

from __future__ import annotations

from typing import Any

from spaces.price import Price, plain_price

BYTES_PER_MIXED_CHANNEL = 4.6
"""Kept per token, channel and loop that a router mixes."""


def loop_router_price(d_model: Any, tokens: Any) -> Price:
    """One call costs 2 (d + 1) per token."""
    return plain_price(
        products=2 * tokens * (d_model + 1),
        parameters=d_model + 2,
        kept_bytes=BYTES_PER_MIXED_CHANNEL * tokens * d_model,
    )
