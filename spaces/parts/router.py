"""How much does each loop count for a token? A router that stops step by step.

Shapes in names: B batch, T tokens, D width, K loops, L layers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spaces.parts.linear import Projection
from spaces.parts.norm import at_least_float32
from spaces.parts.weights import Weight, readout


class LoopRouter(Projection):
    """The chance to stop after a loop, from the state and the loop's position."""

    part = "shared"

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model + 1, 1, weight=readout(), bias=Weight(is_rounded=True))

    def mix(
        self,
        x_BTD: Tensor,
        mixed_BTD: Tensor,
        left_BT1: Tensor,
        *,
        position: Tensor,
        is_last: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The mixture with one loop's state, the share left, and the loop's weight.

        q_t = p_t prod_{i<t} (1 - p_i), the last with all that is left: they sum to one. The last
        probability is computed as published and has no effect. ``position`` and ``is_last`` are
        scalar tensors: nothing depends on K or t as Python values.
        """
        width = x_BTD.shape[-1]
        weight_state, weight_position = torch.split(self.weight, [width, 1], dim=1)
        position_BT1 = position.to(x_BTD.dtype).expand(*x_BTD.shape[:2], 1)
        logit_BT1 = F.linear(x_BTD, weight_state, self.bias)
        logit_BT1 = logit_BT1 + F.linear(position_BT1, weight_position)
        probability_BT1 = torch.sigmoid(at_least_float32(logit_BT1))
        probability_BT1 = torch.where(is_last, torch.ones_like(probability_BT1), probability_BT1)
        weight_BT1 = probability_BT1 * left_BT1
        left_BT1 = left_BT1 * (1 - probability_BT1)
        return mixed_BTD + weight_BT1.to(x_BTD.dtype) * x_BTD, left_BT1, weight_BT1


def stop_logits(loop_weights_LBTK: Tensor) -> Tensor:
    """Logits of the probabilities to stop that gave the weights, L x B x T x (K - 1).

    ``p_t / (1 - p_t) = q_t / sum_{i>t} q_i``; where a weight is 0 in float32, that weight's least
    number stands for it. The last loop has no choice.
    """
    weights = loop_weights_LBTK.float()
    after = weights.flip(-1).cumsum(-1).flip(-1)[..., 1:]
    tiny = torch.finfo(torch.float32).tiny
    return weights[..., :-1].clamp_min(tiny).log() - after.clamp_min(tiny).log()


def expected_loops(loop_weights_LBTK: Tensor) -> Tensor:
    """``sum_t t q_t`` of every layer and token, L x B x T."""
    weights = loop_weights_LBTK.float()
    loops_K = torch.arange(1, weights.shape[-1] + 1, device=weights.device, dtype=weights.dtype)
    return weights @ loops_K
