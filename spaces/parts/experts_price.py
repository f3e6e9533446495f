"""What do experts cost? What a token uses, and what is stored."""

from __future__ import annotations

from typing import Any

from spaces.parts.feed_forward_price import feed_forward_price
from spaces.price import Price, plain_price

BYTES_PER_ROUTED_CHANNEL = 12.0
"""Kept per token, channel and expert chosen: the sorted rows, what leaves the experts, weighed."""


def experts_price(d_model: Any, hidden: Any, tokens: Any, *, num_experts: Any, top_k: Any) -> Price:
    """k of E SwiGLUs run on each token: the FLOPs of k, the parameters of E."""
    run = feed_forward_price(d_model, top_k * hidden, tokens)
    one = 3 * d_model * hidden
    stored = plain_price(
        parameters=(num_experts - top_k) * one,
        active_parameters=0,
        kept_bytes=BYTES_PER_ROUTED_CHANNEL * tokens * top_k * d_model,
    )
    return run + stored


def expert_router_price(d_model: Any, tokens: Any, *, num_experts: Any) -> Price:
    """A router costs 2 d E per token."""
    return plain_price(
        products=2 * tokens * d_model * num_experts, parameters=d_model * num_experts
    )
