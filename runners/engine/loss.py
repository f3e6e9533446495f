"""What does training minimise? Cross-entropy, plus what the recipe charges for loops and gates.

``loss = mean cross-entropy + ponder_penalty * E[loops] + gate_entropy_penalty * H(deep share)``,
the last two as means over layers and tokens, in loops and nats. The cross-entropy is also returned
by itself: it is what a record calls loss.

Shapes in names: N tokens of a batch, B sequences, T tokens of one, D width, V vocabulary, L layers,
K loops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from search.limits.memory import LOGITS_AT_ONCE
from search.record.trial import TrainingRecipe
from spaces.layers import at_least_float32
from spaces.model import DualPathModel, Routing


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
    loss: Tensor = _HeadCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_BTD.flatten(0, 1), model.head.weight, targets_BT.flatten()
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


def nats_of(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Sum of ``-log p(target)``, in at least float32."""
    if logits_NV.is_cuda:
        return _softmax_kernel()(logits_NV, targets_N, with_residual=False).sum()
    logits = at_least_float32(logits_NV)
    return (logits.logsumexp(dim=-1) - logits.gather(1, targets_N.unsqueeze(1)).squeeze(1)).sum()


def nats_and_residual_of(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """`nats_of`, and its gradient by the logits: probabilities less the targets, N x V.

    On a GPU the gradient takes the logits' memory.
    """
    if logits_NV.is_cuda:
        return _softmax_kernel()(logits_NV, targets_N, with_residual=True).sum(), logits_NV
    logits = at_least_float32(logits_NV)
    log_normalizer_N1 = logits.logsumexp(dim=-1, keepdim=True)
    targets_N1 = targets_N.unsqueeze(1)
    nats = (log_normalizer_N1 - logits.gather(1, targets_N1)).sum()
    residual = (logits - log_normalizer_N1).exp_()
    residual.scatter_add_(1, targets_N1, -torch.ones_like(log_normalizer_N1))
    return nats, residual.to(logits_NV.dtype)


def _softmax_kernel() -> Callable[..., Tensor]:
    from runners.engine.kernels.tokens import softmax_nats

    return softmax_nats


class _HeadCrossEntropy(torch.autograd.Function):
    """Head and cross-entropy in chunks of tokens; no logits outlive their chunk.

    The gradients are computed with the logits at hand, in the forward pass, so that a chunk's
    logits are made once. Products run in the inputs' dtype, softmax and sums in at least float32;
    on a GPU one kernel makes the gradient where the logits were, so that none in float32 ever reach
    its memory.
    """

    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor) -> Tensor:
        rows = max(1, LOGITS_AT_ONCE // len(weight_VD))
        chunks = zip(torch.split(hidden_ND, rows), torch.split(targets_N, rows), strict=True)
        if not any(ctx.needs_input_grad[:2]):
            return torch.stack([nats_of(h @ weight_VD.T, targets) for h, targets in chunks]).sum()
        wide = torch.promote_types(hidden_ND.dtype, torch.float32)
        total = torch.zeros((), dtype=wide, device=hidden_ND.device)
        hidden_grad_ND = torch.empty_like(hidden_ND)
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=wide)
        for (hidden, targets), hidden_grad in zip(
            chunks, torch.split(hidden_grad_ND, rows), strict=True
        ):
            nats, residual = nats_and_residual_of(hidden @ weight_VD.T, targets)
            total += nats
            torch.mm(residual, weight_VD, out=hidden_grad)
            weight_grad_VD += residual.T @ hidden
        ctx.save_for_backward(hidden_grad_ND, weight_grad_VD.to(weight_VD.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        hidden_grad_ND, weight_grad_VD = ctx.saved_tensors
        return hidden_grad_ND * gradients[0], weight_grad_VD * gradients[0], None
