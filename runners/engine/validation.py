"""How good is a model on the validation windows, and what does its arm read off its layers?

Shapes in names: B sequences, T tokens of one, R readouts, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from runners.engine.batches import DeviceStreams, WindowIndices, gather
from runners.engine.loss import summed_cross_entropy
from spaces.model import LanguageModel

TOKENS_AT_ONCE = {"cpu": 2_048, "cuda": 16_384}
"""Tokens of a forward pass; sums do not depend on it but for rounding."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A model's loss on the validation windows."""

    loss_nats: float
    """Mean cross-entropy, nats per token."""
    bits_per_byte: float
    """The same tokens' cross-entropy in bits over the bytes of text that they stand for."""
    readouts: dict[str, tuple[float, ...]]
    """Of each of the arm's readouts, its mean over tokens by layer."""


@dataclass(frozen=True, kw_only=True)
class BatchSums:
    """What one batch of validation sequences adds; tensors on the device."""

    nats: Tensor
    """Cross-entropy summed over tokens, a scalar."""
    readouts_RL: Tensor | None
    """The arm's readouts summed over tokens, by layer; None where it has none."""

    def clone(self) -> BatchSums:
        """The same values in memory of their own."""
        readouts_RL = None if self.readouts_RL is None else self.readouts_RL.clone()
        return BatchSums(nats=self.nats.clone(), readouts_RL=readouts_RL)


def batch_sums(model: LanguageModel, inputs_BT: Tensor, targets_BT: Tensor) -> BatchSums:
    """Loss and readouts of a batch; no gradient flows, whatever the mode."""
    hidden_BTD, readings = model.hidden_with_readings(inputs_BT)
    with torch.no_grad():
        nats = summed_cross_entropy(model, hidden_BTD.detach(), targets_BT).double()
        values = model.arm.read(readings)
        if not values:
            return BatchSums(nats=nats, readouts_RL=None)
        per_token = torch.stack(list(values.values()))
        return BatchSums(nats=nats, readouts_RL=per_token.sum(dim=(2, 3), dtype=torch.float64))


def measure(
    sums_of: Callable[[Tensor, Tensor], BatchSums],
    streams: DeviceStreams,
    windows: WindowIndices,
    *,
    context_length: int,
    names: Sequence[str],
    sequences_at_once: int | None = None,
) -> Measurement:
    """The loss and the readouts on the named windows of the validation stream.

    ``sums_of`` does the work of one batch: inputs and targets (B x T) to their `BatchSums`;
    ``names`` are those of the readouts in it.
    """
    device = streams.validation.device.type
    at_once = sequences_at_once or max(1, TOKENS_AT_ONCE[device] // context_length)
    nats = torch.zeros((), dtype=torch.float64, device=streams.validation.device)
    num_bytes = torch.zeros((), dtype=torch.int64, device=nats.device)
    readouts: list[Tensor] = []
    for start in range(0, len(windows), at_once):
        inputs_BT, targets_BT = gather(
            streams.validation, windows[start : start + at_once], context_length=context_length
        )
        sums = sums_of(inputs_BT, targets_BT)
        nats += sums.nats
        num_bytes += streams.token_num_bytes[targets_BT].sum()
        if sums.readouts_RL is not None:
            readouts.append(sums.readouts_RL)
    num_tokens = len(windows) * context_length
    return Measurement(
        loss_nats=nats.item() / num_tokens,
        bits_per_byte=nats.item() / math.log(2) / num_bytes.item(),
        readouts=_means(names, readouts, num_tokens=num_tokens),
    )


def _means(
    names: Sequence[str], sums: list[Tensor], *, num_tokens: int
) -> dict[str, tuple[float, ...]]:
    """Means by layer, from sums of shape R x L."""
    if not sums:
        return {}
    means_RL = (torch.stack(sums).sum(dim=0) / num_tokens).tolist()
    return {name: tuple(layers) for name, layers in zip(names, means_RL, strict=True)}
