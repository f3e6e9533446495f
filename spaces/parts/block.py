"""What is one residual block? Attention, then a feed-forward, each a pre-normed, scaled step.

What lies between matrix products are methods of their own, for which the engine on a GPU has
kernels: `Block.attend`, `Block.add_ffn`, and those of the pieces inside.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.parts.attention import Attention, Rotation
from spaces.parts.feed_forward import SwiGLU
from spaces.parts.norm import RMSNorm


class Block(nn.Module):
    """Pre-norm attention (where it has one), then pre-norm feed-forward."""

    def __init__(
        self,
        architecture: Architecture,
        *,
        ffn: int | nn.Module,
        attention: bool = True,
    ) -> None:
        """``ffn``: the hidden size of a SwiGLU, or another feed-forward of the tokens."""
        super().__init__()
        d_model, epsilon = architecture.d_model, architecture.norm_epsilon
        self.attention_norm = RMSNorm(d_model, epsilon) if attention else None
        self.attention = Attention(architecture) if attention else None
        self.ffn_norm = RMSNorm(d_model, epsilon)
        self.ffn = SwiGLU(architecture, ffn) if isinstance(ffn, int) else ffn

    def forward(self, x_BTD: Tensor, rotation: Rotation, step_scale: Tensor | None) -> Tensor:
        """The state after both steps; ``step_scale`` is a positive scalar, None means 1."""
        x_BTD, ffn_BTD = self.before_ffn_step(x_BTD, rotation, step_scale)
        return self.add_ffn(x_BTD, ffn_BTD, step_scale)

    def before_ffn_step(
        self, x_BTD: Tensor, rotation: Rotation, step_scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The state after the attention step, and the feed-forward's output for the next step."""
        x_BTD, normed_BTD = self.attend(x_BTD, rotation, step_scale)
        return x_BTD, self.ffn(normed_BTD)

    def attend(
        self, x_BTD: Tensor, rotation: Rotation, step_scale: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The state after the attention step (where there is one), and that state normed."""
        if self.attention is not None and self.attention_norm is not None:
            attended_BTD = self.attention(self.attention_norm(x_BTD), rotation)
            x_BTD = stepped(x_BTD, attended_BTD, step_scale)
        return x_BTD, self.ffn_norm(x_BTD)

    def add_ffn(self, x_BTD: Tensor, ffn_BTD: Tensor, step_scale: Tensor | None) -> Tensor:
        """The state after the feed-forward step."""
        return stepped(x_BTD, ffn_BTD, step_scale)


def step_scales_of(raw_K: Tensor | None, num_loops: int) -> list[Tensor | None]:
    """The positive scale of every loop; None (which means 1) where there is no parameter."""
    return [None] * num_loops if raw_K is None else list(F.softplus(raw_K).unbind())


def stepped(x_BTD: Tensor, output_BTD: Tensor, step_scale: Tensor | None) -> Tensor:
    """The state after a residual step of that scale."""
    return x_BTD + (output_BTD if step_scale is None else step_scale * output_BTD)
