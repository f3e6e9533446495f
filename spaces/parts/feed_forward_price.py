"""What does a feed-forward cost?"""

from __future__ import annotations

from typing import Any

from spaces.price import Price, plain_price

BYTES_PER_HIDDEN = 6.25
"""Kept per token and hidden channel of each feed-forward applied: both halves and their product."""
BYTES_PER_WIDEST_HIDDEN = 2.45
"""Per token and hidden channel of the widest feed-forward: the gradients passing through it."""


def feed_forward_price(d_model: Any, hidden: Any, tokens: Any) -> Price:
    """A SwiGLU of hidden size h costs 6 d h per token."""
    return plain_price(
        products=6 * tokens * d_model * hidden,
        parameters=3 * d_model * hidden,
        kept_bytes=BYTES_PER_HIDDEN * tokens * hidden,
        passing_bytes=BYTES_PER_WIDEST_HIDDEN * tokens * hidden,
    )
