"""How much does each path count for a token? Gates from the un-normalised state.

Shapes in names: B batch, T tokens, D width, L layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.parts.linear import Projection
from spaces.parts.mixing_price import GATE_OUTPUTS
from spaces.parts.norm import at_least_float32
from spaces.parts.weights import Weight, readout


class Gate(nn.Module):
    """The weights (g_d, g_w) of the two paths, per token; its weights start at zero."""

    part = "shared"

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.mode = architecture.gate_mode
        outputs = GATE_OUTPUTS[self.mode]
        bias = Weight(start=architecture.gate_bias_init, is_rounded=True)
        weight = readout(0.0)
        d_model = architecture.d_model
        self.linear = Projection(d_model, outputs, weight=weight, bias=bias) if outputs else None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Gates, B x T x 2: deep first."""
        if self.linear is None:
            return torch.full_like(x_BTD[..., :2], 0.5)
        logits = at_least_float32(self.linear(x_BTD))
        if self.mode == "softmax":
            return torch.softmax(logits, dim=-1)
        gates = torch.sigmoid(logits)
        return gates if self.mode == "independent" else torch.cat((gates, 1 - gates), dim=-1)


def deep_share(gates_LBT2: Tensor) -> Tensor:
    """g_d / (g_d + g_w), L x B x T, in float32."""
    gates = gates_LBT2.float()
    share: Tensor = gates[..., 0] / gates.sum(dim=-1)
    return share


def deep_share_entropy(gates_LBT2: Tensor) -> Tensor:
    """Binary entropy of the deep share in nats, L x B x T.

    A share that rounds to 0 or 1 counts as the nearest one that does not: there the entropy's slope
    is infinite, and times the gate's, which is 0, no number.
    """
    rounding = torch.finfo(torch.float32).eps
    share = deep_share(gates_LBT2).clamp(rounding, 1 - rounding)
    entropy: Tensor = torch.special.entr(share) + torch.special.entr(1 - share)
    return entropy


def imbalance(gates_LBT2: Tensor) -> Tensor:
    """``(m - 1/2)^2`` of the mean deep share m over the tokens of a sequence, L x B: 0 where both
    paths are used alike, 1/4 where one is used alone. A sequence's own, so that it does not depend
    on how a batch is split."""
    mean_LB = deep_share(gates_LBT2).mean(dim=-1)
    return (mean_LB - 0.5).square()
