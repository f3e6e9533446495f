"""How is a state normed? Root mean square, in at least float32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.parts.weights import Piece, Weight


class RMSNorm(Piece):
    """Root-mean-square norm with one weight per channel."""

    weight: Tensor

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.declare("weight", (size,), Weight(start=1.0))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The normed state, in the state's shape and dtype."""
        x, weight = at_least_float32(x_BTD), at_least_float32(self.weight)
        return F.rms_norm(x, weight.shape, weight, self.epsilon).to(x_BTD.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision values in float32; wider ones as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
