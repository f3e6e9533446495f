"""How good is a model on the validation windows, and where do its gates send tokens?"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from runners.engine.batches import DeviceStreams, WindowIndices, gather
from runners.engine.loss import deep_share, deep_share_entropy, summed_cross_entropy
from search.record.trial import GateSummary
from spaces.model import DualPathModel

TOKENS_AT_ONCE = {"cpu": 2_048, "cuda": 16_384}
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


@dataclass(frozen=True, kw_only=True)
class BatchSums:
    """What one batch of validation sequences adds; tensors on the device."""

    nats: Tensor
    """Cross-entropy summed over tokens, a scalar."""
    gates_2L: Tensor | None
    """Deep share and its entropy summed over tokens, by layer; None where there are no gates."""

    def clone(self) -> BatchSums:
        """The same values in memory of their own."""
        gates_2L = None if self.gates_2L is None else self.gates_2L.clone()
        return BatchSums(nats=self.nats.clone(), gates_2L=gates_2L)


def batch_sums(model: DualPathModel, inputs_BT: Tensor, targets_BT: Tensor) -> BatchSums:
    """Loss and routing of a batch; no gradient flows, whatever the mode."""
    hidden_BTD, routing = model.hidden_with_routing(inputs_BT)
    with torch.no_grad():
        nats = summed_cross_entropy(model, hidden_BTD.detach(), targets_BT).double()
        if routing.gates_LBT2 is None:
            return BatchSums(nats=nats, gates_2L=None)
        per_token = torch.stack((deep_share(routing), deep_share_entropy(routing)))
        return BatchSums(nats=nats, gates_2L=per_token.sum(dim=(2, 3), dtype=torch.float64))


def measure(
    sums_of: Callable[[Tensor, Tensor], BatchSums],
    streams: DeviceStreams,
    windows: WindowIndices,
    *,
    context_length: int,
    sequences_at_once: int | None = None,
) -> Measurement:
    """The loss and the routing on the named windows of the validation stream.

    ``sums_of`` does the work of one batch: inputs and targets (B x T) to their `BatchSums`.
    """
    device = streams.validation.device.type
    at_once = sequences_at_once or max(1, TOKENS_AT_ONCE[device] // context_length)
    nats = torch.zeros((), dtype=torch.float64, device=streams.validation.device)
    num_bytes = torch.zeros((), dtype=torch.int64, device=nats.device)
    gate_sums: list[Tensor] = []
    for start in range(0, len(windows), at_once):
        inputs_BT, targets_BT = gather(
            streams.validation, windows[start : start + at_once], context_length=context_length
        )
        sums = sums_of(inputs_BT, targets_BT)
        nats += sums.nats
        num_bytes += streams.token_num_bytes[targets_BT].sum()
        if sums.gates_2L is not None:
            gate_sums.append(sums.gates_2L)
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
