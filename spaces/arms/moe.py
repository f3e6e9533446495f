"""What experts buy: the standard block with a token-choice mixture of experts as its feed-forward.

The capacity baseline beside a wide path: a token pays for ``top_k`` of ``num_experts`` SwiGLUs and
for the router's 2 d E FLOPs. Nothing is dropped. The loss holds a balance term and a z-loss; which
weights they have is part of the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.architecture import Architecture
from spaces.arms.contract import Arm, Readings, Readout, Shape
from spaces.arms.dual_path import derives_everywhere, one_path_axes
from spaces.axes import LEARNING_RATE_MULTIPLIER, Axis
from spaces.parts.block_price import block_price
from spaces.parts.experts_price import expert_router_price, experts_price
from spaces.price import Part, Price

if TYPE_CHECKING:
    from torch import Tensor, nn

EXPERT_MULTIPLIER = Axis(
    name="expert_multiplier",
    doc="Hidden size of one expert over the width.",
    values=(4 / 3,),
    sizes="expert_ffn",
    read=lambda architecture: float(architecture.own.expert_ffn / architecture.d_model),
)
NUM_EXPERTS = Axis(name="num_experts", doc="E, experts of a layer.", values=(4, 8))
TOP_K = Axis(name="top_k", doc="Experts that a token uses.", values=(2,))

BALANCE = Readout(name="expert_balance", doc="E sum f P; 1 where all experts are used alike.")
ENTROPY = Readout(name="router_entropy_nats", doc="Entropy of the router's softmax.")


@dataclass(frozen=True, kw_only=True)
class MoeFields:
    """What only this arm has."""

    num_experts: int
    """E, experts of a layer."""
    top_k: int
    """Experts that a token uses."""
    expert_ffn: int
    """SwiGLU hidden size of one expert."""
    balance_penalty: float = 0.01
    """Weight of the balance term in the loss (Switch Transformer, arXiv 2101.03961)."""
    z_penalty: float = 0.001
    """Weight of the mean squared log-normalizer of the router (ST-MoE, arXiv 2202.08906)."""


class Moe(Arm):
    """Top-k experts in every layer."""

    name = "moe"
    fields = MoeFields
    learning_rate = 0.0015
    axes = one_path_axes(
        EXPERT_MULTIPLIER, loops=(NUM_EXPERTS, TOP_K), others=(LEARNING_RATE_MULTIPLIER,)
    )
    derived = derives_everywhere("expert_ffn")
    readouts = (BALANCE, ENTROPY)

    def problems(self, architecture: Architecture) -> list[str]:
        """Sizes below 1, or more experts of a token than there are."""
        own = architecture.own
        problems = [
            f"{name} must be at least 1, got {getattr(own, name)}"
            for name in ("num_experts", "top_k", "expert_ffn")
            if getattr(own, name) < 1
        ]
        if own.top_k > own.num_experts:
            problems.append(
                f"top_k must not exceed num_experts, got {own.top_k} and {own.num_experts}"
            )
        return problems

    def sizes(self, architecture: Architecture) -> dict[str, int]:
        """Experts, those of a token, and their hidden size."""
        own = architecture.own
        return {"experts": own.num_experts, "top": own.top_k, "hidden": own.expert_ffn}

    def body_price(self, shape: Shape) -> dict[Part, Price]:
        """Per layer: attention, the router, and k experts of E."""
        s, own, tokens = shape, shape.own, shape.context_length
        experts = experts_price(
            s.d_model, own.expert_ffn, tokens, num_experts=own.num_experts, top_k=own.top_k
        )
        router = expert_router_price(s.d_model, tokens, num_experts=own.num_experts)
        return {
            "deep": block_price(s.d_model, experts, tokens) * s.num_layers,
            "shared": router * s.num_layers,
        }

    def body(self, architecture: Architecture) -> nn.Module:
        """Layers of experts."""
        from spaces.parts.experts import ExpertStack

        return ExpertStack(architecture)

    def penalties(
        self, architecture: Architecture, readings: Readings, charges: Mapping[str, float]
    ) -> Iterator[tuple[float, Tensor]]:
        """Balance and z-loss, as means over layers and tokens."""
        from spaces.parts.experts import balance, squared_normalizer

        own, logits = architecture.own, readings["router_logits_LBTE"]
        if own.balance_penalty:
            yield own.balance_penalty, balance(logits, readings["experts_LBTK"]).mean()
        if own.z_penalty:
            yield own.z_penalty, squared_normalizer(logits).mean()

    def read(self, readings: Readings) -> dict[str, Tensor]:
        """How evenly experts are used, and how decided the router is."""
        from spaces.parts.experts import balance, choice_entropy

        logits = readings["router_logits_LBTE"]
        entropy = choice_entropy(logits)
        even = balance(logits, readings["experts_LBTK"])
        return {BALANCE.name: even[:, None, None].expand_as(entropy), ENTROPY.name: entropy}


ARM = Moe()
