"""What does training minimise? The arm's objective: cross-entropy, and what it adds to it.

The recipe's penalties charge for what an arm reads off itself (for loops and gates: the expected
number of loops and the entropy of the deep share, as means over layers and tokens, in loops and
nats). The cross-entropy is also returned by itself: it is what a record calls loss.

Shapes in names: N tokens of a batch, B sequences, T tokens of one, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from search.limits.memory import LOGITS_AT_ONCE
from search.record.trial import TrainingRecipe
from spaces.arms.contract import Batch
from spaces.model import LanguageModel
from spaces.parts.norm import at_least_float32


def training_loss(
    model: LanguageModel,
    inputs_BT: Tensor,
    targets_BT: Tensor,
    recipe: TrainingRecipe,
    *,
    seed: int = 0,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    """What to differentiate, and the mean cross-entropy in nats per token (detached)."""

    def mean_nats(hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        return summed_cross_entropy(model, hidden_BTD, targets_BT) / targets_BT.numel()

    batch = Batch(
        inputs_BT=inputs_BT,
        targets_BT=targets_BT,
        mean_nats=mean_nats,
        charges=charges_of(recipe),
        seed=seed,
        step=step,
    )
    objective = model.arm.objective(model, batch)
    return objective.loss, objective.cross_entropy


def charges_of(recipe: TrainingRecipe) -> dict[str, float]:
    """What a recipe charges for, by the name of its field."""
    return {name: value for name, value in vars(recipe).items() if name.endswith("_penalty")}


def summed_cross_entropy(model: LanguageModel, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """Sum over tokens of ``-log p(target)`` in nats, through the model's head."""
    loss: Tensor = _HeadCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_BTD.flatten(0, 1), model.head.weight, targets_BT.flatten()
    )
    return loss


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
