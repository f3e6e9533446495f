"""What does a pass of a residual block cost?"""

from __future__ import annotations

from typing import Any

from spaces.parts.attention_price import attention_price
from spaces.parts.feed_forward_price import feed_forward_price
from spaces.price import NOTHING, Price, plain_price

BYTES_PER_BLOCK_CHANNEL = 21.5
"""Kept per token, channel and block applied: states, norms, queries, keys, values, attention."""


def block_price(d_model: Any, ffn: Any | Price, tokens: Any, *, attention: bool = True) -> Price:
    """One pass of a block; ``ffn`` is a SwiGLU's hidden size or another feed-forward's price."""
    own = plain_price(kept_bytes=BYTES_PER_BLOCK_CHANNEL * tokens * d_model)
    ffn = ffn if isinstance(ffn, Price) else feed_forward_price(d_model, ffn, tokens)
    attended = attention_price(d_model, tokens) + norm_price(d_model) if attention else NOTHING
    return own + attended + norm_price(d_model) + ffn


def norm_price(d_model: Any) -> Price:
    """Element-wise: no FLOPs."""
    return plain_price(parameters=d_model)
