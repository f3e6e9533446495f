"""How do tokens look at each other? Causal attention with rotary positions.

Shapes in names: B batch, T tokens, D width, H heads, C channels of a head (or half of them in the
rotary tables), G the query, key and value of one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.parts.linear import Projection
from spaces.parts.norm import at_least_float32
from spaces.parts.weights import branch_matrix


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions and weightless query and key norms.

    Without weights the norm commutes with the rotation, which keeps lengths: ``before`` and
    ``after`` differ by rounding only.
    """

    computes_scores = True
    """Products in here that are of no module inside are attention scores and their use."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.head_dim = architecture.head_dim
        self.qk_norm = architecture.qk_norm
        self.norm_epsilon = architecture.norm_epsilon
        d_model = architecture.d_model
        self.qkv = Projection(d_model, 3 * d_model)
        self.output = Projection(d_model, d_model, weight=branch_matrix(architecture))

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> Tensor:
        """Attention over the tokens so far."""
        q_BTHC, k_BTHC, v_BTHC = self.position(self.qkv(x_BTD), rotation)
        mixed_BHTC = F.scaled_dot_product_attention(
            q_BTHC.transpose(1, 2), k_BTHC.transpose(1, 2), v_BTHC.transpose(1, 2), is_causal=True
        )
        output: Tensor = self.output(mixed_BHTC.transpose(1, 2).reshape(x_BTD.shape))
        return output

    def position(self, qkv_BTE: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys with their positions, and values; each B x T x H x C."""
        heads_BTGHC = qkv_BTE.view(*qkv_BTE.shape[:2], 3, -1, self.head_dim)
        q_BTHC, k_BTHC, v_BTHC = heads_BTGHC.unbind(2)
        return self._positioned(q_BTHC, rotation), self._positioned(k_BTHC, rotation), v_BTHC

    def _positioned(self, x_BTHC: Tensor, rotation: Rotation) -> Tensor:
        """Queries or keys, rotated and normed in at least float32, in their own dtype."""
        x = at_least_float32(x_BTHC)
        if self.qk_norm == "before":
            x = F.rms_norm(x, (self.head_dim,), eps=self.norm_epsilon)
        x = rotation.apply(x)
        if self.qk_norm == "after":
            x = F.rms_norm(x, (self.head_dim,), eps=self.norm_epsilon)
        return x.to(x_BTHC.dtype)


@dataclass(frozen=True)
class Rotation:
    """Rotary positions (arXiv 2104.09864) of T tokens: channel c turns with channel c + C / 2."""

    cos_TC: Tensor
    """Cosines, T x C / 2."""
    sin_TC: Tensor
    """Sines, T x C / 2."""

    def apply(self, x_BTHC: Tensor) -> Tensor:
        """Turn every pair of channels by its position's angle."""
        first, second = x_BTHC.chunk(2, dim=-1)
        cos_T1C, sin_T1C = self.cos_TC.unsqueeze(1), self.sin_TC.unsqueeze(1)
        return torch.cat(
            (first * cos_T1C - second * sin_T1C, second * cos_T1C + first * sin_T1C), dim=-1
        )


@lru_cache(maxsize=8)
def rotation_tables(context_length: int, head_dim: int, base: float) -> dict[str, Tensor]:
    """Cosines and sines of ``t * base^(-2 c / C)``, computed in float64; not to be written to."""
    channels = torch.arange(0, head_dim, 2, device="cpu", dtype=torch.float64)
    frequencies = base ** (-channels / head_dim)
    positions = torch.arange(context_length, device="cpu", dtype=torch.float64)
    angles = torch.outer(positions, frequencies)
    return {"rotation_cos_TC": angles.cos(), "rotation_sin_TC": angles.sin()}
