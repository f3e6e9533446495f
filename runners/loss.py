"""What does training minimise? Cross-entropy, plus what the recipe charges for loops and gates.

``loss = mean cross-entropy + ponder_penalty * E[loops] + gate_entropy_penalty * H(deep share)``,
the last two as means over layers and tokens, in loops and nats. The cross-entropy is also returned
by itself: it is what a record calls loss.

Shapes in names: N tokens of a batch, B sequences, T tokens of one, D width, V vocabulary, L layers,
K loops.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from search.trial import TrainingRecipe
from spaces.model import DualPathModel, Routing

CHUNK_LOGITS = 1 << 24
"""Logits held in float32 at once: 64 MiB, however large batch and vocabulary are."""


def training_loss(
    model: DualPathModel, inputs_BT: Tensor, targets_BT: Tensor, recipe: TrainingRecipe
) -> tuple[Tensor, Tensor]:
    """What to differentiate, and the mean cross-entropy in nats per token (detached)."""
    hidden_BTD, routing = model.hidden_with_routing(inputs_BT)
    cross_entropy = summed_cross_entropy(model, hidden_BTD, targets_BT) / targets_BT.numel()
    loss = cross_entropy
    if recipe.ponder_penalty:
        loss = loss + recipe.ponder_penalty * expected_loops(routing)
    if recipe.gate_entropy_penalty:
        loss = loss + recipe.gate_entropy_penalty * deep_share_entropy(routing).mean()
    return loss, cross_entropy.detach()


def summed_cross_entropy(model: DualPathModel, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """Sum over tokens of ``-log p(target)`` in nats, through the model's head."""
    weight_VD, hidden_ND = model.head.weight, hidden_BTD.flatten(0, 1)
    kind = hidden_BTD.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        weight_VD, hidden_ND = weight_VD.to(dtype), hidden_ND.to(dtype)
    loss: Tensor = _HeadCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, targets_BT.flatten()
    )
    return loss


def deep_share(routing: Routing) -> Tensor:
    """g_d / (g_d + g_w), L x B x T, in float32."""
    assert routing.gates_LBT2 is not None, "only the dual arm has gates"
    gates = routing.gates_LBT2.float()
    share: Tensor = gates[..., 0] / gates.sum(dim=-1)
    return share


def deep_share_entropy(routing: Routing) -> Tensor:
    """Binary entropy of the deep share in nats, L x B x T; 0 where there are no gates."""
    if routing.gates_LBT2 is None:
        return torch.zeros(())
    share = deep_share(routing)
    entropy: Tensor = torch.special.entr(share) + torch.special.entr(1 - share)
    return entropy


def expected_loops(routing: Routing) -> Tensor:
    """Mean over layers and tokens of ``sum_t t q_t``; 0 where nothing chooses between loops."""
    if routing.loop_weights_LBTK is None:
        return torch.zeros(())
    weights = routing.loop_weights_LBTK.float()
    loops_K = torch.arange(1, weights.shape[-1] + 1, device=weights.device, dtype=weights.dtype)
    return (weights @ loops_K).mean()


class _HeadCrossEntropy(torch.autograd.Function):
    """Head and cross-entropy in chunks of tokens; no logits outlive their chunk.

    The gradients are computed with the logits at hand, in the forward pass, so that a chunk's
    logits are made once. Products run in the inputs' dtype, softmax and sums in float32 or wider.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        needs_gradient = any(ctx.needs_input_grad[:2])
        total = torch.zeros((), dtype=wide, device=hidden_ND.device)
        hidden_grads = []
        weight_grad = torch.zeros_like(weight_VD, dtype=wide) if needs_gradient else None
        rows = max(1, CHUNK_LOGITS // len(weight_VD))
        for hidden, targets in zip(
            torch.split(hidden_ND, rows), torch.split(targets_N, rows), strict=True
        ):
            logits = (hidden @ weight_VD.T).to(wide)
            log_normalizer = logits.logsumexp(dim=-1, keepdim=True)
            total += (log_normalizer - logits.gather(1, targets.unsqueeze(1))).sum()
            if weight_grad is not None:
                residual = logits.sub_(log_normalizer).exp_()
                residual.scatter_add_(1, targets.unsqueeze(1), -torch.ones_like(log_normalizer))
                residual = residual.to(hidden.dtype)
                hidden_grads.append(residual @ weight_VD)
                weight_grad += residual.T @ hidden
        if weight_grad is not None:
            ctx.save_for_backward(torch.cat(hidden_grads), weight_grad.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * gradients[0], weight_grad * gradients[0], None
