"""Does the model compute the published block, in every arm?"""

from __future__ import annotations

import pytest
import torch

from spaces.architecture import Architecture, Arm
from spaces.model import DualPathModel

ARMS: tuple[Arm, ...] = ("dual", "loop", "wide", "standard")


def small(arm: Arm, **fields: object) -> Architecture:
    """A small architecture of an arm."""
    values: dict[str, object] = {
        "num_layers": 2,
        "num_loops": 3 if arm in ("dual", "loop") else 1,
        "d_model": 32,
        "head_dim": 8,
        "deep_ffn": None if arm == "wide" else 40,
        "wide_ffn": 96 if arm in ("dual", "wide") else None,
        "context_length": 16,
        "vocab_size": 64,
    }
    return Architecture(arm=arm, **(values | fields))  # type: ignore[arg-type]


def some_tokens(architecture: Architecture, *, batch: int = 2) -> torch.Tensor:
    """Random tokens of a full context."""
    shape = (batch, architecture.context_length)
    generator = torch.Generator().manual_seed(7)
    return torch.randint(architecture.vocab_size, shape, generator=generator)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_gives_finite_logits_and_gradients_everywhere(arm: Arm) -> None:
    model = DualPathModel(small(arm))
    logits = model(some_tokens(model.architecture))
    assert logits.shape == (2, 16, 64)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
