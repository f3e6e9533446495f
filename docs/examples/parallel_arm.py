"""An arm of one's own: attention and feed-forward side by side, in one residual step (GPT-J)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spaces.architecture import Architecture
from spaces.arms.contract import Arm
from spaces.arms.dual_path import derives_everywhere, one_path_axes
from spaces.axes import LEARNING_RATE_MULTIPLIER, Axis
from spaces.parts.attention_price import attention_price
from spaces.parts.block_price import BYTES_PER_BLOCK_CHANNEL, norm_price
from spaces.parts.feed_forward_price import feed_forward_price
from spaces.price import plain_price


@dataclass(frozen=True, kw_only=True)
class ParallelFields:
    """What only this arm has; part of the identity of its trials."""

    ffn: int
    """SwiGLU hidden size."""


class Parallel(Arm):
    """``x + attention(norm(x)) + ffn(norm(x))`` in every layer."""

    name = "parallel"
    fields = ParallelFields
    axes = one_path_axes(
        Axis(
            name="ffn_multiplier",
            doc="FFN size over the width.",
            values=(8 / 3,),
            sizes="ffn",
            read=lambda architecture: architecture.own.ffn / architecture.d_model,
        ),
        others=(LEARNING_RATE_MULTIPLIER,),
    )
    derived = derives_everywhere("ffn")

    def body_price(self, shape: Any) -> Any:
        """Attention and a feed-forward a layer, and one norm for both."""
        width, tokens = shape.d_model, shape.context_length
        layer = attention_price(width, tokens) + feed_forward_price(width, shape.own.ffn, tokens)
        kept = plain_price(kept_bytes=BYTES_PER_BLOCK_CHANNEL * tokens * width)
        return {"deep": (layer + norm_price(width) + kept) * shape.num_layers}

    def body(self, architecture: Architecture) -> Any:
        """The layers."""
        import torch
        from torch import nn

        from spaces.parts.attention import Attention
        from spaces.parts.feed_forward import SwiGLU
        from spaces.parts.norm import RMSNorm

        class Layers(nn.Module):
            part = "deep"

            def __init__(self, a: Architecture) -> None:
                super().__init__()
                pieces = range(a.num_layers)
                self.norms = nn.ModuleList(RMSNorm(a.d_model, a.norm_epsilon) for _ in pieces)
                self.attention = nn.ModuleList(Attention(a) for _ in pieces)
                self.ffn = nn.ModuleList(SwiGLU(a, a.own.ffn) for _ in pieces)

            def forward(self, x_BTD: torch.Tensor, rotation: Any) -> Any:
                for norm, attention, ffn in zip(self.norms, self.attention, self.ffn, strict=True):
                    normed_BTD = norm(x_BTD)
                    x_BTD = x_BTD + attention(normed_BTD, rotation) + ffn(normed_BTD)
                return x_BTD, {}

        return Layers(architecture)


PARALLEL = Parallel()
