"""Which feed-forward does a token use? Its top k of E experts, chosen by a router; none is dropped.

Shapes in names: B batch, T tokens, N of both, D width, E experts, K experts of a token, M rows
(N times K, sorted by expert), F both halves of the hidden channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.parts.attention import Rotation
from spaces.parts.block import Block
from spaces.parts.expert_products import expert_product
from spaces.parts.layers import stacked
from spaces.parts.linear import Projection
from spaces.parts.norm import at_least_float32
from spaces.parts.weights import Piece, branch_matrix, matrix, readout


@dataclass(frozen=True)
class Choice:
    """Where the tokens of a batch go."""

    logits_BTE: Tensor
    """Of the router, in at least float32."""
    experts_BTK: Tensor
    """The chosen experts, best first."""
    weights_BTK: Tensor
    """Softmax over the chosen: they sum to one."""


class ExpertRouter(Projection):
    """Token choice: the experts with the highest logits, weighed by a softmax over them."""

    part = "shared"

    def __init__(self, d_model: int, *, num_experts: int, top_k: int) -> None:
        super().__init__(d_model, num_experts, weight=readout())
        self.top_k = top_k

    def choose(self, x_BTD: Tensor) -> Choice:
        """The experts of every token."""
        logits_BTE = at_least_float32(self(x_BTD))
        top_BTK, experts_BTK = torch.topk(logits_BTE, self.top_k, dim=-1)
        return Choice(logits_BTE, experts_BTK, torch.softmax(top_BTK, dim=-1))


class Experts(Piece):
    """E SwiGLUs, of which a token passes those that its router chooses."""

    gate_up: Tensor
    output: Tensor

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        a, own = architecture, architecture.own
        hidden = own.expert_ffn
        self.router = ExpertRouter(a.d_model, num_experts=own.num_experts, top_k=own.top_k)
        self.declare("gate_up", (own.num_experts, a.d_model, 2 * hidden), matrix())
        self.declare("output", (own.num_experts, hidden, a.d_model), branch_matrix(a))

    def forward(self, x_BTD: Tensor) -> tuple[Tensor, Choice]:
        """The weighted sum of each token's experts, and what was chosen."""
        choice = self.router.choose(x_BTD)
        x_ND = x_BTD.flatten(0, 1)
        experts_NK = choice.experts_BTK.flatten(0, 1)
        experts_M, order_M = torch.sort(experts_NK.flatten(), stable=True)
        ends_E = ends_of(experts_M, self.gate_up.shape[0])
        rows_MD = x_ND.index_select(0, order_M // experts_NK.shape[1])
        hidden_MF = expert_product(rows_MD, self.gate_up, ends_E)
        out_MD = expert_product(self.activate(hidden_MF), self.output, ends_E)
        weights_M = choice.weights_BTK.flatten().index_select(0, order_M)
        weighted_MD = weights_M.to(out_MD.dtype).unsqueeze(1) * out_MD
        unsorted_MD = torch.zeros_like(weighted_MD).index_add(0, order_M, weighted_MD)
        return unsorted_MD.view(*x_BTD.shape[:2], -1, x_BTD.shape[2]).sum(dim=2), choice

    def activate(self, gate_up_MF: Tensor) -> Tensor:
        """``silu(gate) * up`` of the two halves."""
        gate, up = gate_up_MF.chunk(2, dim=-1)
        return F.silu(gate) * up


class ExpertLayer(nn.Module):
    """A block whose feed-forward is experts. Its attention is named as the standard arm's, so that
    both start equal."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.deep = nn.Module()
        self.deep.part = "deep"  # type: ignore[assignment]
        self.deep.block = Block(architecture, ffn=Experts(architecture))

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, Choice]:
        """The next state, and what was chosen."""
        block = self.deep.block
        assert isinstance(block, Block)
        x_BTD, normed_BTD = block.attend(x_BTD, rotation, None)
        out_BTD, choice = block.ffn(normed_BTD)
        return block.add_ffn(x_BTD, out_BTD, None), choice


class ExpertStack(nn.ModuleList):
    """Layers of experts, one after the other."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(ExpertLayer(architecture) for _ in range(architecture.num_layers))

    def forward(self, x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, dict[str, Tensor]]:
        """The last state; the routers' logits and the chosen experts of every layer."""
        choices: list[Choice] = []
        for layer in self:
            x_BTD, choice = layer(x_BTD, rotation)
            choices.append(choice)
        logits: list[Tensor | None] = [choice.logits_BTE for choice in choices]
        experts: list[Tensor | None] = [choice.experts_BTK for choice in choices]
        return x_BTD, stacked(router_logits_LBTE=logits, experts_LBTK=experts)


def ends_of(experts_M: Tensor, num_experts: int) -> Tensor:
    """Of sorted rows, where each expert's end (int32)."""
    every = torch.arange(num_experts, device=experts_M.device, dtype=experts_M.dtype)
    return torch.searchsorted(experts_M, every, right=True).to(torch.int32)


def balance(logits_LBTE: Tensor, experts_LBTK: Tensor) -> Tensor:
    """E times the sum over experts of share of choices times mean probability, by layer (L): 1
    where all experts are used alike (Switch Transformer, arXiv 2101.03961)."""
    num_experts = logits_LBTE.shape[-1]
    probability_LE = torch.softmax(logits_LBTE, dim=-1).mean(dim=(1, 2))
    chosen = F.one_hot(experts_LBTK, num_experts).to(probability_LE.dtype)
    share_LE = chosen.mean(dim=(1, 2, 3))
    return num_experts * (share_LE * probability_LE).sum(dim=-1)


def squared_normalizer(logits_LBTE: Tensor) -> Tensor:
    """The z-loss of every layer and token, ``logsumexp(logits)^2`` (ST-MoE, arXiv 2202.08906)."""
    return torch.logsumexp(logits_LBTE, dim=-1).square()


def choice_entropy(logits_LBTE: Tensor) -> Tensor:
    """Entropy of the router's softmax in nats, L x B x T."""
    probability_LBTE = torch.softmax(logits_LBTE, dim=-1)
    entropy: Tensor = torch.special.entr(probability_LBTE).sum(dim=-1)
    return entropy
