"""How good is a model on the validation windows, and where do its gates send tokens?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from runners.batches import DeviceStreams, WindowIndices, gather
from runners.loss import deep_share, deep_share_entropy, summed_cross_entropy
from search.trial import GateSummary, Precision
from spaces.model import DualPathModel

TOKENS_AT_ONCE = {"cpu": 2_048, "cuda": 65_536}
"""Tokens of a forward pass; sums do not depend on it but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A model's loss on the validation windows."""

    loss_nats: float
    """Mean cross-entropy, nats per token."""
    bits_per_byte: float
    """The same tokens' cross-entropy in bits over the bytes of text that they stand for."""
    gates: tuple[GateSummary, ...]
    """Routing by layer; empty where the arm has no gates."""


@torch.no_grad()
def measure(
    model: DualPathModel, streams: DeviceStreams, windows: WindowIndices, *, precision: Precision
) -> Measurement:
    """The loss and the routing on the named windows of the validation stream."""
    context_length = model.architecture.context_length
    device = streams.validation.device.type
    num_at_once = max(1, TOKENS_AT_ONCE.get(device, 2_048) // context_length)
    nats = torch.zeros((), dtype=torch.float64, device=streams.validation.device)
    num_bytes = torch.zeros((), dtype=torch.int64, device=nats.device)
    gate_sums: list[Tensor] = []
    for start in range(0, len(windows), num_at_once):
        inputs_BT, targets_BT = gather(
            streams.validation,
            windows[start : start + num_at_once],
            context_length=context_length,
        )
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            hidden_BTD, routing = model.hidden_with_routing(inputs_BT)
            nats += summed_cross_entropy(model, hidden_BTD, targets_BT)
        num_bytes += streams.token_num_bytes[targets_BT].sum()
        if routing.gates_LBT2 is not None:
            per_token = torch.stack((deep_share(routing), deep_share_entropy(routing)))
            gate_sums.append(per_token.sum(dim=(2, 3), dtype=torch.float64))
    num_tokens = len(windows) * context_length
    return Measurement(
        loss_nats=nats.item() / num_tokens,
        bits_per_byte=nats.item() / math.log(2) / num_bytes.item(),
        gates=_summarize(gate_sums, num_tokens=num_tokens),
    )


def _summarize(gate_sums: list[Tensor], *, num_tokens: int) -> tuple[GateSummary, ...]:
    """Means by layer of the deep share and its entropy, from sums of shape 2 x L."""
    if not gate_sums:
        return ()
    shares, entropies = (torch.stack(gate_sums).sum(dim=0) / num_tokens).tolist()
    return tuple(
        GateSummary(layer=layer, mean_deep_share=share, mean_entropy_nats=entropy)
        for layer, (share, entropy) in enumerate(zip(shares, entropies, strict=True))
    )
