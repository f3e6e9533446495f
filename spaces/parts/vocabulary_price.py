"""What do embedding and head cost?"""

from __future__ import annotations

from typing import Any

from spaces.price import Price, plain_price


def embedding_price(vocab_size: Any, d_model: Any) -> Price:
    """A look-up costs no FLOPs."""
    return plain_price(parameters=vocab_size * d_model)


def head_price(vocab_size: Any, d_model: Any, tokens: Any) -> Price:
    """Logits of every token of a sequence."""
    size = vocab_size * d_model
    return plain_price(products=2 * tokens * size, parameters=size)
