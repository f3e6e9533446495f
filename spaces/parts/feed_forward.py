"""What does a token compute by itself? SwiGLU, gate and up in one matrix."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.parts.linear import Projection
from spaces.parts.weights import branch_matrix


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (arXiv 2002.05202)."""

    def __init__(self, architecture: Architecture, hidden: int) -> None:
        super().__init__()
        d_model = architecture.d_model
        self.gate_up = Projection(d_model, 2 * hidden)
        self.output = Projection(hidden, d_model, weight=branch_matrix(architecture))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The feed-forward of every token on its own."""
        output: Tensor = self.output(self.activate(self.gate_up(x_BTD)))
        return output

    def activate(self, gate_up_BTF: Tensor) -> Tensor:
        """``silu(gate) * up`` of the two halves."""
        gate, up = gate_up_BTF.chunk(2, dim=-1)
        return F.silu(gate) * up
