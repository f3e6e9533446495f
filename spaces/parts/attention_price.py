"""What does attention cost?"""

from __future__ import annotations

from typing import Any

from spaces.price import Price, plain_price


def attention_price(d_model: Any, tokens: Any) -> Price:
    """A pass costs 8 d^2 per token, its scores over the whole square 4 T d."""
    return plain_price(
        products=8 * tokens * d_model * d_model,
        scores=4 * tokens * tokens * d_model,
        parameters=4 * d_model * d_model,
    )
