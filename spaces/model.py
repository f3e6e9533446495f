"""What does an architecture compute? The dual-path transformer, for all arms in one class.

A layer (`spaces.layers`) holds a deep path, one block applied K times with shared weights and mixed
over loops by a router, beside a wide path, one block with an enlarged feed-forward applied once,
and two gates that weigh them. Loop and wide arms are the same layer with one path missing; standard
is the deep path with K = 1, no router and step scale 1.

Shapes in names: B batch, T tokens, D width, C channels, L layers, K loops, V vocabulary.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.errors import RequestError
from spaces.layers import Layer, Projection, RMSNorm, Rotation, TokenEmbedding

WEIGHT_STD = 0.02
"""Standard deviation of fresh weights (the authors' public configurations)."""


@dataclass(frozen=True)
class Routing:
    """Where the tokens of one batch went; None where the arm has no such choice."""

    gates_LBT2: Tensor | None
    """(g_d, g_w) of every layer and token; only in the dual arm."""
    loop_weights_LBTK: Tensor | None
    """Share of each loop in the deep output, summing to one; only where there is a router."""


class DualPathModel(nn.Module):
    """The language model of one architecture: embedding, layers, final norm, untied head.

    On a real device every weight is drawn from ``seed``; on ``meta`` nothing is.
    """

    rotation_cos_TC: Tensor
    rotation_sin_TC: Tensor

    def __init__(self, architecture: Architecture, *, seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        a = architecture
        self.embedding = TokenEmbedding(a.vocab_size, a.d_model)
        self.layers = nn.ModuleList(Layer(a) for _ in range(a.num_layers))
        self.final_norm = RMSNorm(a.d_model, a.norm_epsilon)
        self.head = Projection(a.d_model, a.vocab_size, bias=False)
        for name in ("rotation_cos_TC", "rotation_sin_TC"):
            table = torch.empty(a.context_length, a.head_dim // 2)
            self.register_buffer(name, table, persistent=False)
        if not self.embedding.weight.is_meta:
            self.initialize(seed)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits of the next token, B x T x V."""
        logits_BTV: Tensor = self.head(self.hidden(tokens_BT))
        return logits_BTV

    def hidden(self, tokens_BT: Tensor) -> Tensor:
        """The state after the final norm, before the head (B x T x D)."""
        return self.hidden_with_routing(tokens_BT)[0]

    def hidden_with_routing(self, tokens_BT: Tensor) -> tuple[Tensor, Routing]:
        """The state before the head, with the gates and the loops' weights of every layer."""
        rotation = self._rotation(tokens_BT.shape[1])
        x_BTD = self.embedding.look_up(tokens_BT, self.head.weight.dtype)
        gates, loop_weights = [], []
        for layer in self.layers:
            x_BTD, gates_BT2, loop_weights_BTK = layer(x_BTD, rotation)
            gates.append(gates_BT2)
            loop_weights.append(loop_weights_BTK)
        return self.final_norm(x_BTD), Routing(stacked(gates), stacked(loop_weights))

    def _rotation(self, num_tokens: int) -> Rotation:
        if num_tokens > self.architecture.context_length:
            raise RequestError(
                f"a sequence must fit the context_length, got {num_tokens} tokens and "
                f"{self.architecture.context_length}; cut the sequence or build a longer context"
            )
        return Rotation(self.rotation_cos_TC[:num_tokens], self.rotation_sin_TC[:num_tokens])

    @torch.no_grad()
    def initialize(self, seed: int) -> None:
        """Set every weight and table anew: equal seeds give equal weights on every device.

        Matrices are normal with standard deviation 0.02; the projections that end a residual step
        have ``0.02 / sqrt(2 * num_layers)``, GPT-2's rule for the two steps of a layer. K is left
        out on purpose: a start that depended on it would mix the effect of a loop with that of a
        start. Each weight has its own generator, seeded by (seed, name), so that what two
        architectures share starts equal. Norms start at 1, gates and biases as the architecture
        says, step scales at ``step_scale_init``.
        """
        for name, parameter in self.named_parameters():
            parameter.copy_(fresh_weight(name, parameter.shape, self.architecture, seed))
        a = self.architecture
        for name, table in rotation_tables(a.context_length, a.head_dim, a.rope_base).items():
            getattr(self, name).copy_(table)
        for layer in self.layers:
            if isinstance(layer, Layer) and layer.deep is not None:
                layer.deep.initialize()

    def matrix_parameters(self) -> list[nn.Parameter]:
        """What weight decay acts on: the projections of attention and SwiGLU, and the head.

        Not the embedding, a look-up whose rare rows decay would shrink between their uses (OLMo 2,
        arXiv 2501.00656), nor gates and routers, which it would pull towards one half.
        """
        return [parameter for name, parameter in self.named_parameters() if is_matrix(name)]

    def other_parameters(self) -> list[nn.Parameter]:
        """Every parameter without weight decay."""
        return [parameter for name, parameter in self.named_parameters() if not is_matrix(name)]

    def named_parameters_by_part(self) -> Iterator[tuple[str, str, nn.Parameter]]:
        """(part, name, parameter): embedding, head, deep, wide or shared."""
        for name, parameter in self.named_parameters():
            yield part_of(name), name, parameter


def part_of(name: str) -> str:
    """The part of `ParameterCounts` that a parameter's name belongs to."""
    if name.startswith(("embedding.", "head.")):
        return name.split(".")[0]
    if ".router." in name or ".gate." in name or name.startswith("final_norm."):
        return "shared"
    return "deep" if ".deep." in name else "wide"


def is_matrix(name: str) -> bool:
    """Whether a parameter is a matrix of a path or of the head."""
    return name.endswith(("qkv.weight", "output.weight", "gate_up.weight", "head.weight"))


def fresh_weight(name: str, shape: torch.Size, architecture: Architecture, seed: int) -> Tensor:
    """The start of one parameter, on the CPU in float32."""
    if "norm" in name:
        return torch.ones(shape)
    if "step_scale" in name:
        return torch.full(shape, architecture.step_scale_init)
    if ".gate." in name:
        bias = name.endswith("bias")
        return torch.full(shape, architecture.gate_bias_init if bias else 0.0)
    if name.endswith("bias"):
        return torch.zeros(shape)
    residual = name.endswith("output.weight")
    std = WEIGHT_STD / math.sqrt(2 * architecture.num_layers) if residual else WEIGHT_STD
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator(device="cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.empty(shape, device="cpu").normal_(0.0, std, generator=generator)


@lru_cache(maxsize=8)
def rotation_tables(context_length: int, head_dim: int, base: float) -> dict[str, Tensor]:
    """Cosines and sines of ``t * base^(-2 c / C)``, computed in float64; not to be written to."""
    channels = torch.arange(0, head_dim, 2, device="cpu", dtype=torch.float64)
    frequencies = base ** (-channels / head_dim)
    positions = torch.arange(context_length, device="cpu", dtype=torch.float64)
    angles = torch.outer(positions, frequencies)
    return {"rotation_cos_TC": angles.cos(), "rotation_sin_TC": angles.sin()}


def stacked(tensors: list[Tensor | None]) -> Tensor | None:
    """The layers' values in one tensor; None where the layers have none."""
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(present) if present else None
