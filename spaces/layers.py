"""What is a layer? The deep path with its loops, the wide path, and the gates that weigh them.

The block is that of arXiv 2605.30202 (section 2). What lies between matrix products are methods of
their own, for which the engine on a GPU has kernels (`runners.engine.fused`): `Block.attend`,
`Block.add_ffn`, `DeepPath.mix`, `Layer.combine`, `Attention.position`, `SwiGLU.activate`.

The state and the matrix products have the dtype of the projections' weights. Norms, rotary
positions, and the sigmoids of gates and routers compute in at least float32.

Shapes in names: B batch, T tokens, D width, H heads, C channels of a head (or half of them in the
rotary tables), K loops, G the query, key and value of one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.architecture import Architecture


class Projection(nn.Linear):
    """A linear map without a start of its own: `DualPathModel.initialize` draws every weight."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""


class TokenEmbedding(nn.Embedding):
    """An embedding without a start of its own: `DualPathModel.initialize` draws every weight."""

    def reset_parameters(self) -> None:
        """Leave the memory as it is."""

    def look_up(self, tokens_BT: Tensor, dtype: torch.dtype) -> Tensor:
        """The tokens' rows, B x T x D."""
        return self(tokens_BT).to(dtype)  # type: ignore[no-any-return]


class RMSNorm(nn.Module):
    """Root-mean-square norm with one weight per channel."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The normed state, in the state's shape and dtype."""
        x, weight = at_least_float32(x_BTD), at_least_float32(self.weight)
        return F.rms_norm(x, weight.shape, weight, self.epsilon).to(x_BTD.dtype)


class Attention(nn.Module):
    """Causal multi-head attention with rotary positions and weightless query and key norms.

    Without weights the norm commutes with the rotation, which keeps lengths: ``before`` and
    ``after`` differ by rounding only.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.head_dim = architecture.head_dim
        self.qk_norm = architecture.qk_norm
        self.norm_epsilon = architecture.norm_epsilon
        d_model = architecture.d_model
        self.qkv = Projection(d_model, 3 * d_model, bias=False)
        self.output = Projection(d_model, d_model, bias=False)

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


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (arXiv 2002.05202), gate and up in one matrix."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = Projection(d_model, 2 * hidden, bias=False)
        self.output = Projection(hidden, d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The feed-forward of every token on its own."""
        output: Tensor = self.output(self.activate(self.gate_up(x_BTD)))
        return output

    def activate(self, gate_up_BTF: Tensor) -> Tensor:
        """``silu(gate) * up`` of the two halves."""
        gate, up = gate_up_BTF.chunk(2, dim=-1)
        return F.silu(gate) * up


class Block(nn.Module):
    """Pre-norm attention (where it has one), then pre-norm SwiGLU, each a scaled residual step."""

    def __init__(self, architecture: Architecture, *, ffn: int, attention: bool = True) -> None:
        super().__init__()
        d_model, epsilon = architecture.d_model, architecture.norm_epsilon
        self.attention_norm = RMSNorm(d_model, epsilon) if attention else None
        self.attention = Attention(architecture) if attention else None
        self.ffn_norm = RMSNorm(d_model, epsilon)
        self.ffn = SwiGLU(d_model, ffn)

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


class DeepPath(nn.Module):
    """One block applied K times with shared weights, and the mixture over its loops."""

    loop_positions_K: Tensor
    is_last_loop_K: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        assert architecture.deep_ffn is not None
        self.num_loops = architecture.num_loops
        self.loop_output = architecture.loop_output
        self.block = Block(architecture, ffn=architecture.deep_ffn)
        self.step_scales = (
            None
            if architecture.arm == "standard"
            else nn.Parameter(torch.empty(architecture.num_loops))
        )
        self.router = Projection(architecture.d_model + 1, 1) if architecture.has_router else None
        positions, is_last = torch.empty(self.num_loops), torch.empty(self.num_loops).bool()
        self.register_buffer("loop_positions_K", positions, persistent=False)
        self.register_buffer("is_last_loop_K", is_last, persistent=False)

    def initialize(self) -> None:
        """Set the loops' positions, (t - 1) / max(1, K - 1), and which is the last."""
        loops_K = torch.arange(self.num_loops, device="cpu")
        self.loop_positions_K.copy_(loops_K / max(1, self.num_loops - 1))
        self.is_last_loop_K.copy_(loops_K == self.num_loops - 1)

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor | None]:
        """The path's output and, where a router exists, its weight of each loop (B x T x K)."""
        scales = step_scales_of(self.step_scales, self.num_loops)
        if self.router is not None:
            return self._mixture(x_BTD, rotation, scales)
        states = []
        for step_scale in scales:
            x_BTD = self.block(x_BTD, rotation, step_scale)
            states.append(x_BTD)
        return torch.stack(states).mean(0) if self.loop_output == "average" else x_BTD, None

    def _mixture(
        self, x_BTD: Tensor, rotation: Rotation, scales: list[Tensor | None]
    ) -> tuple[Tensor, Tensor]:
        mixed_BTD = torch.zeros_like(x_BTD)
        left_BT1 = torch.ones_like(at_least_float32(x_BTD[..., :1]))
        weights = []
        loops = zip(
            scales, self.loop_positions_K.unbind(), self.is_last_loop_K.unbind(), strict=True
        )
        for step_scale, position, is_last in loops:
            x_BTD, ffn_BTD = self.block.before_ffn_step(x_BTD, rotation, step_scale)
            x_BTD, mixed_BTD, left_BT1, weight_BT1 = self.mix(
                x_BTD, ffn_BTD, mixed_BTD, left_BT1, step_scale, position, is_last
            )
            weights.append(weight_BT1)
        return mixed_BTD, torch.cat(weights, dim=-1)

    def mix(
        self,
        x_BTD: Tensor,
        ffn_BTD: Tensor,
        mixed_BTD: Tensor,
        left_BT1: Tensor,
        step_scale: Tensor | None,
        position: Tensor,
        is_last: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """End one loop: its state, the mixture with it, the share left, and the loop's weight.

        q_t = p_t prod_{i<t} (1 - p_i), the last with all that is left: they sum to one. The
        router's last probability is computed as published and has no effect. ``position`` and
        ``is_last`` are scalar tensors: nothing depends on K or t as Python values.
        """
        assert self.router is not None
        x_BTD = stepped(x_BTD, ffn_BTD, step_scale)
        width = x_BTD.shape[-1]
        weight_state, weight_position = torch.split(self.router.weight, [width, 1], dim=1)
        position_BT1 = position.to(x_BTD.dtype).expand(*x_BTD.shape[:2], 1)
        logit_BT1 = F.linear(x_BTD, weight_state, self.router.bias)
        logit_BT1 = logit_BT1 + F.linear(position_BT1, weight_position)
        probability_BT1 = torch.sigmoid(at_least_float32(logit_BT1))
        probability_BT1 = torch.where(is_last, torch.ones_like(probability_BT1), probability_BT1)
        weight_BT1 = probability_BT1 * left_BT1
        left_BT1 = left_BT1 * (1 - probability_BT1)
        mixed_BTD = mixed_BTD + weight_BT1.to(x_BTD.dtype) * x_BTD
        return x_BTD, mixed_BTD, left_BT1, weight_BT1


class WidePath(nn.Module):
    """One block with an enlarged SwiGLU, applied once; with or without attention of its own."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        assert architecture.wide_ffn is not None
        self.block = Block(
            architecture, ffn=architecture.wide_ffn, attention=architecture.wide_attention
        )
        self.step_scale = nn.Parameter(torch.empty(1))

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> Tensor:
        """The path's output."""
        output: Tensor = self.block(x_BTD, rotation, self.scale())
        return output

    def scale(self) -> Tensor:
        """The positive scale of both steps, a scalar."""
        return F.softplus(self.step_scale)[0]


class Gate(nn.Module):
    """The weights (g_d, g_w) of the two paths, per token, from the un-normalised state."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.mode = architecture.gate_mode
        outputs = architecture.num_gate_outputs
        self.linear = Projection(architecture.d_model, outputs) if outputs else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Gates, B x T x 2: deep first."""
        if self.linear is None:
            return torch.full_like(x_BTD[..., :2], 0.5)
        logits = at_least_float32(self.linear(x_BTD))
        if self.mode == "softmax":
            return torch.softmax(logits, dim=-1)
        gates = torch.sigmoid(logits)
        return gates if self.mode == "independent" else torch.cat((gates, 1 - gates), dim=-1)


class Layer(nn.Module):
    """The arm's paths side by side; with both, their gated sum. There is no outer residual."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.deep = DeepPath(architecture) if architecture.has_deep_path else None
        self.wide = WidePath(architecture) if architecture.has_wide_path else None
        self.gate = Gate(architecture) if architecture.arm == "dual" else None

    def forward(
        self, x_BTD: Tensor, rotation: Rotation
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The next state, the gates (B x T x 2) and the loops' weights (B x T x K), if any."""
        if self.deep is None:
            assert self.wide is not None
            return self.wide(x_BTD, rotation), None, None
        deep_BTD, loop_weights_BTK = self.deep(x_BTD, rotation)
        if self.wide is None:
            return deep_BTD, None, loop_weights_BTK
        wide_BTD, ffn_BTD = self.wide.block.before_ffn_step(x_BTD, rotation, self.wide.scale())
        out_BTD, gates_BT2 = self.combine(x_BTD, deep_BTD, wide_BTD, ffn_BTD)
        return out_BTD, gates_BT2, loop_weights_BTK

    def combine(
        self, x_BTD: Tensor, deep_BTD: Tensor, wide_BTD: Tensor, ffn_BTD: Tensor
    ) -> tuple[Tensor, Tensor]:
        """End the wide path; the gated sum of both paths, and the gates (B x T x 2)."""
        assert self.wide is not None
        assert self.gate is not None
        wide_BTD = stepped(wide_BTD, ffn_BTD, self.wide.scale())
        gates_BT2 = self.gate(x_BTD)
        gate_deep_BT1, gate_wide_BT1 = gates_BT2.to(x_BTD.dtype).split(1, dim=-1)
        return gate_deep_BT1 * deep_BTD + gate_wide_BT1 * wide_BTD, gates_BT2


def step_scales_of(raw_K: Tensor | None, num_loops: int) -> list[Tensor | None]:
    """The positive scale of every loop; None (which means 1) where there is no parameter."""
    return [None] * num_loops if raw_K is None else list(F.softplus(raw_K).unbind())


def stepped(x_BTD: Tensor, output_BTD: Tensor, step_scale: Tensor | None) -> Tensor:
    """The state after a residual step of that scale."""
    return x_BTD + (output_BTD if step_scale is None else step_scale * output_BTD)


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision values in float32; wider ones as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
