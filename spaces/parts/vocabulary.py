"""How do tokens become states, and states logits? The embedding and the untied head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.parts.linear import Projection
from spaces.parts.weights import WEIGHT_STD, Weight, matrix


class TokenEmbedding(nn.Embedding):
    """An embedding that says what its weights are."""

    part = "embedding"

    def __init__(self, vocab_size: int, d_model: int) -> None:
        super().__init__(vocab_size, d_model)
        self.weights = {"weight": Weight(std=WEIGHT_STD, kind="embedding")}

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""

    def look_up(self, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """The tokens' rows, B x T x D."""
        return self(tokens_BT).to(dtype)  # type: ignore[no-any-return]


class Head(Projection):
    """The untied output matrix."""

    part = "head"

    def __init__(self, d_model: int, vocab_size: int) -> None:
        super().__init__(d_model, vocab_size, weight=matrix(kind="readout"))
