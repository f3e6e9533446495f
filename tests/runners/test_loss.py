"""Is the chunked loss the plain one, with the same gradients, and are the penalties theirs?"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import runners.engine.loss
from runners.engine.loss import training_loss
from runners.engine.rounded_weights import WorkingModel
from search.record.trial import TrainingRecipe
from spaces.architecture import Architecture
from spaces.model import LanguageModel
from spaces.parts.gate import deep_share, deep_share_entropy
from spaces.parts.router import expected_loops

DUAL = Architecture(
    arm="dual",
    num_layers=2,
    num_loops=3,
    d_model=16,
    head_dim=8,
    deep_ffn=24,
    wide_ffn=32,
    context_length=12,
    vocab_size=50,
)
RECIPE = TrainingRecipe(learning_rate=1e-3, batch_sequences=4)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(0, 50, (4, 13), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


def gradients(model: LanguageModel, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True))


@pytest.mark.parametrize("chunk_logits", [50, 50 * 7, 1 << 24])
def test_chunked_loss_and_gradients_are_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, chunk_logits: int
) -> None:
    monkeypatch.setattr(runners.engine.loss, "LOGITS_AT_ONCE", chunk_logits)
    model = LanguageModel(DUAL, seed=1).double()
    inputs, targets = batch()
    plain = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss, cross_entropy = training_loss(model, inputs, targets, RECIPE)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-13)
    assert cross_entropy.item() == loss.item()
    for found, expected in zip(gradients(model, loss), gradients(model, plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-14)


def test_in_float32_the_losses_are_equal_to_rounding() -> None:
    model = LanguageModel(DUAL, seed=1)
    inputs, targets = batch()
    plain = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
    loss, _ = training_loss(model, inputs, targets, RECIPE)
    assert loss.item() == pytest.approx(plain.item(), rel=2e-7)


def test_bfloat16_products_stay_near() -> None:
    model = LanguageModel(DUAL, seed=1)
    inputs, targets = batch()
    plain, _ = training_loss(model, inputs, targets, RECIPE)
    loss, _ = training_loss(WorkingModel(model, "bfloat16").model, inputs, targets, RECIPE)
    assert loss.item() == pytest.approx(plain.item(), rel=2e-3)
    assert loss.item() != plain.item()


def test_penalties_add_expected_loops_and_entropy() -> None:
    model = LanguageModel(DUAL, seed=1)
    inputs, targets = batch()
    recipe = TrainingRecipe(
        learning_rate=1e-3, batch_sequences=4, ponder_penalty=0.5, gate_entropy_penalty=2.0
    )
    loss, cross_entropy = training_loss(model, inputs, targets, recipe)
    _, readings = model.hidden_with_readings(inputs)
    expected = 0.5 * expected_loops(readings["loop_weights_LBTK"]).mean()
    expected = expected + 2.0 * deep_share_entropy(readings["gates_LBT2"]).mean()
    assert loss.item() - cross_entropy.item() == pytest.approx(expected.item(), rel=1e-5)
    plain, plain_cross_entropy = training_loss(model, inputs, targets, RECIPE)
    assert cross_entropy.item() == plain_cross_entropy.item() == plain.item()


def test_routing_quantities_by_hand() -> None:
    gates = torch.tensor([[0.9, 0.3], [0.5, 0.5]]).view(1, 1, 2, 2)
    weights = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]]).view(1, 1, 2, 3)
    torch.testing.assert_close(deep_share(gates).flatten(), torch.tensor([0.75, 0.5]))
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    torch.testing.assert_close(
        deep_share_entropy(gates).flatten(), torch.tensor([entropy, math.log(2)])
    )
    assert expected_loops(weights).mean().item() == pytest.approx((1.75 + 3) / 2)


def test_penalties_without_gates_or_router_are_nothing() -> None:
    model = LanguageModel(
        Architecture(
            arm="standard",
            num_layers=1,
            d_model=16,
            head_dim=8,
            deep_ffn=24,
            context_length=12,
            vocab_size=50,
        )
    )
    recipe = TrainingRecipe(
        learning_rate=1e-3, batch_sequences=4, ponder_penalty=1.0, gate_entropy_penalty=1.0
    )
    loss, cross_entropy = training_loss(model, *batch(), recipe)
    assert loss.item() == cross_entropy.item()
