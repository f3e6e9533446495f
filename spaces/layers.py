"""What is a layer? The deep path with its loops, the wide path, and the gates that weigh them.

The block is that of arXiv 2605.30202 (section 2). The seams are where a later engine compiles: one
`DeepPath.step`, and `Layer.gated_wide`; neither depends on K, on the loop or on the depth.

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


class RMSNorm(nn.Module):
    """Root-mean-square norm with one weight per channel."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.epsilon = epsilon

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The normed state, in the state's shape."""
        return F.rms_norm(x_BTD, self.weight.shape, self.weight, self.epsilon)


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
        B, T, D = x_BTD.shape
        heads_BTGHC = self.qkv(x_BTD).view(B, T, 3, D // self.head_dim, self.head_dim)
        q_BHTC, k_BHTC, v_BHTC = heads_BTGHC.permute(2, 0, 3, 1, 4).unbind(0)
        mixed_BHTC = F.scaled_dot_product_attention(
            self._positioned(q_BHTC, rotation),
            self._positioned(k_BHTC, rotation),
            v_BHTC,
            is_causal=True,
        )
        output: Tensor = self.output(mixed_BHTC.transpose(1, 2).reshape(B, T, D))
        return output

    def _positioned(self, x_BHTC: Tensor, rotation: Rotation) -> Tensor:
        """Queries or keys, rotated and normed in at least float32, in their own dtype."""
        x = at_least_float32(x_BHTC)
        if self.qk_norm == "before":
            x = F.rms_norm(x, (self.head_dim,), eps=self.norm_epsilon)
        x = rotation.apply(x)
        if self.qk_norm == "after":
            x = F.rms_norm(x, (self.head_dim,), eps=self.norm_epsilon)
        return x.to(x_BHTC.dtype)


@dataclass(frozen=True)
class Rotation:
    """Rotary positions (arXiv 2104.09864) of T tokens: channel c turns with channel c + C / 2."""

    cos_TC: Tensor
    """Cosines, T x C / 2."""
    sin_TC: Tensor
    """Sines, T x C / 2."""

    def apply(self, x_BHTC: Tensor) -> Tensor:
        """Turn every pair of channels by its position's angle."""
        first, second = x_BHTC.chunk(2, dim=-1)
        return torch.cat(
            (
                first * self.cos_TC - second * self.sin_TC,
                second * self.cos_TC + first * self.sin_TC,
            ),
            dim=-1,
        )


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))`` (arXiv 2002.05202), gate and up in one matrix."""

    def __init__(self, d_model: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = Projection(d_model, 2 * hidden, bias=False)
        self.output = Projection(hidden, d_model, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """The feed-forward of every token on its own."""
        gate, up = self.gate_up(x_BTD).chunk(2, dim=-1)
        output: Tensor = self.output(F.silu(gate) * up)
        return output


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
        if self.attention is not None and self.attention_norm is not None:
            x_BTD = x_BTD + scaled(self.attention(self.attention_norm(x_BTD), rotation), step_scale)
        return x_BTD + scaled(self.ffn(self.ffn_norm(x_BTD)), step_scale)


class DeepPath(nn.Module):
    """One block applied K times with shared weights, and the mixture over its loops."""

    loop_positions_K: Tensor

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
        self.register_buffer(
            "loop_positions_K", torch.empty(architecture.num_loops), persistent=False
        )

    def step(
        self,
        x_BTD: Tensor,
        rotation: Rotation,
        step_scale: Tensor | None,
        loop_position: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """One loop: the next state, and the router's probability of taking it (B x T x 1).

        ``loop_position`` is (t - 1) / max(1, K - 1) as a scalar tensor: nothing here depends on
        K or t as Python values, so that one compiled step serves every loop of every depth.
        """
        x_BTD = self.block(x_BTD, rotation, step_scale)
        if self.router is None:
            return x_BTD, None
        position_BT1 = loop_position.to(x_BTD.dtype).expand(*x_BTD.shape[:2], 1)
        logit_BT1 = self.router(torch.cat((x_BTD, position_BT1), dim=-1))
        return x_BTD, torch.sigmoid(at_least_float32(logit_BT1))

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor | None]:
        """The path's output and, where a router exists, its weight of each loop (B x T x K).

        The router's last probability is computed as published and has no effect: the last loop
        gets its own share and all that is left.
        """
        states, probabilities = [], []
        scales = step_scales_of(self.step_scales, self.num_loops)
        for step_scale, loop_position in zip(scales, self.loop_positions_K.unbind(), strict=True):
            x_BTD, probability_BT1 = self.step(x_BTD, rotation, step_scale, loop_position)
            states.append(x_BTD)
            if probability_BT1 is not None:
                probabilities.append(probability_BT1)
        if probabilities:
            weights_BTK = torch.cat(mixture_weights(probabilities), dim=-1)
            return weighted_sum(states, weights_BTK), weights_BTK
        if self.loop_output == "average":
            return torch.stack(states).mean(dim=0), None
        return states[-1], None


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
        output: Tensor = self.block(x_BTD, rotation, F.softplus(self.step_scale)[0])
        return output


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
        wide_BTD, gates_BT2 = self.gated_wide(x_BTD, rotation)
        out_BTD = weighted_sum([deep_BTD, wide_BTD], gates_BT2)
        return out_BTD, gates_BT2, loop_weights_BTK

    def gated_wide(self, x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """The wide path's output with both gates: what a dual layer does outside its loops."""
        assert self.wide is not None
        assert self.gate is not None
        return self.wide(x_BTD, rotation), self.gate(x_BTD)


def mixture_weights(probabilities: list[Tensor]) -> list[Tensor]:
    """q_t = p_t prod_{i<t} (1 - p_i), the last with all that is left: they sum to one."""
    weights = []
    left = torch.ones_like(probabilities[0])
    for probability in probabilities:
        weights.append(probability * left)
        left = left * (1 - probability)
    weights[-1] = weights[-1] + left
    return weights


def weighted_sum(states: list[Tensor], weights: Tensor) -> Tensor:
    """Sum of B x T x D states with B x T x n weights, in the states' dtype."""
    shares = weights.to(states[0].dtype).unsqueeze(-2).unbind(dim=-1)
    total = shares[0] * states[0]
    for share, state in zip(shares[1:], states[1:], strict=True):
        total = total + share * state
    return total


def step_scales_of(raw_K: Tensor | None, num_loops: int) -> list[Tensor | None]:
    """The positive scale of every loop; None (which means 1) where there is no parameter."""
    return [None] * num_loops if raw_K is None else list(F.softplus(raw_K).unbind())


def scaled(x_BTD: Tensor, step_scale: Tensor | None) -> Tensor:
    """A residual step times its scale."""
    return x_BTD if step_scale is None else step_scale * x_BTD


def at_least_float32(x: Tensor) -> Tensor:
    """Half-precision values in float32; wider ones as they are."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
