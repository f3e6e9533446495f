"""What is a layer? A block applied K times, an enlarged one applied once, or both and gates.

The layer is that of arXiv 2605.30202 (section 2). What lies between matrix products are methods of
their own, for which the engine on a GPU has kernels: `DeepPath.mix`, `Layer.combine`, and those of
the pieces inside. The state and the matrix products have the dtype of the projections' weights;
norms, rotary positions, and the sigmoids of gates and routers compute in at least float32.

Shapes in names: B batch, T tokens, D width, K loops, L layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.parts.attention import Rotation
from spaces.parts.block import Block, step_scales_of, stepped
from spaces.parts.gate import Gate
from spaces.parts.norm import at_least_float32
from spaces.parts.router import LoopRouter
from spaces.parts.weights import Piece, Weight


class DeepPath(Piece):
    """One block applied K times with shared weights, and what leaves its loops."""

    part = "deep"
    step_scales: Tensor | None
    loop_positions_K: Tensor
    is_last_loop_K: Tensor

    def __init__(
        self, architecture: Architecture, block: Block, *, has_step_scales: bool, has_router: bool
    ) -> None:
        super().__init__()
        num_loops = self.num_loops = architecture.num_loops
        self.loop_output = architecture.loop_output
        self.block = block
        if has_step_scales:
            start = Weight(start=architecture.step_scale_init)
            self.declare("step_scales", (num_loops,), start)
        else:
            self.step_scales = None
        self.router = LoopRouter(architecture.d_model) if has_router else None
        positions, is_last = torch.empty(num_loops), torch.empty(num_loops).bool()
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
        """End one loop: its state, the mixture with it, the share left, and the loop's weight."""
        assert self.router is not None
        x_BTD = stepped(x_BTD, ffn_BTD, step_scale)
        mixed_BTD, left_BT1, weight_BT1 = self.router.mix(
            x_BTD, mixed_BTD, left_BT1, position=position, is_last=is_last
        )
        return x_BTD, mixed_BTD, left_BT1, weight_BT1


class WidePath(Piece):
    """One block with an enlarged SwiGLU, applied once; with or without attention of its own."""

    part = "wide"
    step_scale: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        assert architecture.wide_ffn is not None
        self.block = Block(
            architecture, ffn=architecture.wide_ffn, attention=architecture.wide_attention
        )
        self.declare("step_scale", (1,), Weight(start=architecture.step_scale_init))

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> Tensor:
        """The path's output."""
        output: Tensor = self.block(x_BTD, rotation, self.scale())
        return output

    def scale(self) -> Tensor:
        """The positive scale of both steps, a scalar."""
        return F.softplus(self.step_scale)[0]


class Layer(nn.Module):
    """The paths side by side; with both, their gated sum. There is no outer residual."""

    def __init__(self, *, deep: DeepPath | None, wide: WidePath | None, gate: Gate | None) -> None:
        super().__init__()
        self.deep, self.wide, self.gate = deep, wide, gate

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


class LayerStack(nn.ModuleList):
    """Layers one after the other: what runs between embedding and final norm."""

    def __init__(
        self,
        architecture: Architecture,
        *,
        has_deep_path: bool,
        has_wide_path: bool,
        has_step_scales: bool,
        has_router: bool,
    ) -> None:
        def layer() -> Layer:
            deep = wide = gate = None
            if has_deep_path:
                assert architecture.deep_ffn is not None
                deep = DeepPath(
                    architecture,
                    Block(architecture, ffn=architecture.deep_ffn),
                    has_step_scales=has_step_scales,
                    has_router=has_router,
                )
            if has_wide_path:
                wide = WidePath(architecture)
            if has_deep_path and has_wide_path:
                gate = Gate(architecture)
            return Layer(deep=deep, wide=wide, gate=gate)

        super().__init__(layer() for _ in range(architecture.num_layers))

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, dict[str, Tensor]]:
        """The last state; the gates and the loops' weights of every layer, if any."""
        gates, loop_weights = [], []
        for layer in self:
            x_BTD, gates_BT2, loop_weights_BTK = layer(x_BTD, rotation)
            gates.append(gates_BT2)
            loop_weights.append(loop_weights_BTK)
        return x_BTD, stacked(gates_LBT2=gates, loop_weights_LBTK=loop_weights)


def stacked(**readings: list[Tensor | None]) -> dict[str, Tensor]:
    """The layers' values in one tensor each; what they have none of is absent."""
    present = {
        name: [tensor for tensor in tensors if tensor is not None]
        for name, tensors in readings.items()
    }
    return {name: torch.stack(tensors) for name, tensors in present.items() if tensors}
