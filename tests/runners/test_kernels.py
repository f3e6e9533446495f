"""Do the GPU's kernels compute the plain forms, forward and backward?

Without a GPU: ``pip install triton``, then ``TRITON_INTERPRET=1 pytest`` on this file.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from runners.engine.loss import nats_and_residual_of, training_loss
from search.record.trial import TrainingRecipe
from spaces.architecture import Architecture
from spaces.model import LanguageModel

pytest.importorskip("triton", reason="the kernels need Triton")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]

DUAL = Architecture(
    arm="dual",
    num_layers=2,
    num_loops=3,
    d_model=48,
    deep_ffn=40,
    wide_ffn=72,
    head_dim=16,
    context_length=16,
    vocab_size=64,
)
ONE_PATH: dict[str, dict[str, Any]] = {
    "loop": {"wide_ffn": None},
    "wide": {"deep_ffn": None, "num_loops": 1},
    "standard": {"wide_ffn": None, "num_loops": 1},
}
ARCHITECTURES = {
    "dual": DUAL,
    **{arm: replace(DUAL, arm=arm, **changes) for arm, changes in ONE_PATH.items()},
    "one loop": replace(DUAL, num_loops=1),
    "softmax": replace(DUAL, gate_mode="softmax"),
    "convex": replace(DUAL, gate_mode="convex"),
    "fixed": replace(DUAL, gate_mode="fixed"),
    "average": replace(DUAL, loop_output="average"),
    "final": replace(DUAL, loop_output="final"),
    "no attention": replace(DUAL, wide_attention=False),
    "norm before": replace(DUAL, qk_norm="before"),
    "norm after": replace(DUAL, qk_norm="after"),
    "no norm": replace(DUAL, qk_norm="none"),
    "heads of 24": replace(DUAL, head_dim=24),
}


def shaken(architecture: Architecture) -> LanguageModel:
    """A model whose every weight matters."""
    model = LanguageModel(architecture, seed=1)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model.to(DEVICE)


def gradients(model: LanguageModel, *, penalty: float) -> dict[str, Tensor]:
    """Loss and gradients on random tokens."""
    tokens = torch.randint(0, 64, (3, 17), generator=torch.Generator().manual_seed(5)).to(DEVICE)
    recipe = TrainingRecipe(
        learning_rate=0.01,
        batch_sequences=3,
        ponder_penalty=penalty,
        gate_entropy_penalty=penalty,
    )
    loss, _ = training_loss(model, tokens[:, :-1], tokens[:, 1:], recipe)
    loss.backward()
    found = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {"loss": loss.detach(), **found}


@pytest.mark.parametrize("penalty", [0.0, 0.3])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_a_model_with_kernels_has_the_plain_one_s_loss_and_gradients(
    name: str, penalty: float
) -> None:
    from runners.engine.fused import use_kernels

    plain, fused = shaken(ARCHITECTURES[name]), shaken(ARCHITECTURES[name])
    use_kernels(fused)
    expected, found = gradients(plain, penalty=penalty), gradients(fused, penalty=penalty)
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        distance = (tensor - expected[key]).norm() / expected[key].norm().clamp(min=1e-6)
        assert distance < (1e-3 if tensor.numel() == 1 else 1e-4), key  # one number may cancel


@pytest.mark.parametrize("vocabulary", [64, 5_000])
def test_the_softmax_s_kernel_overwrites_the_logits_by_their_gradient(vocabulary: int) -> None:
    from runners.engine.kernels.tokens import softmax_nats

    generator = torch.Generator().manual_seed(2)
    logits = 9 * torch.randn(7, vocabulary, generator=generator)
    targets = torch.randint(0, vocabulary, (7,), generator=generator)
    nats, residual = nats_and_residual_of(logits.clone(), targets)
    found = logits.to(DEVICE)
    assert softmax_nats(found, targets.to(DEVICE), with_residual=False).sum().cpu() == (
        pytest.approx(nats.item(), rel=1e-6)
    )
    torch.testing.assert_close(found.cpu(), logits)
    softmax_nats(found, targets.to(DEVICE), with_residual=True)
    torch.testing.assert_close(found.cpu(), residual, rtol=1e-5, atol=1e-7)


def test_what_is_no_number_stays_none() -> None:
    from runners.engine.kernels.tokens import softmax_nats

    logits = torch.zeros(2, 64)
    logits[1, 3] = torch.nan
    nats = softmax_nats(logits.to(DEVICE), torch.tensor([0, 5]).to(DEVICE), with_residual=False)
    assert nats.isnan().tolist() == [False, True]
