"""Are the rounded weights a copy in the products only, and do their gradients come home?"""

from __future__ import annotations

import pytest
import torch

from runners.engine.loss import training_loss
from runners.engine.rounded_weights import WorkingModel
from runners.engine.step import EagerEngine
from search.record.trial import TrainingRecipe
from spaces.model import LanguageModel
from tests.runners.small import SIZES, small_architecture

RECIPE = TrainingRecipe(learning_rate=0.01, batch_sequences=4, precision="bfloat16")


def batch(num_sequences: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 256, (num_sequences, 17), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def test_in_float32_the_model_is_its_own() -> None:
    model = LanguageModel(small_architecture("dual"))
    assert WorkingModel(model, "float32").model is model


@pytest.mark.parametrize("arm", list(SIZES))
def test_products_and_state_are_bfloat16_and_the_rest_is_shared(arm: str) -> None:
    model = LanguageModel(small_architecture(arm))
    working = WorkingModel(model, "bfloat16").model
    own = dict(model.named_parameters())
    for name, parameter in working.named_parameters():
        is_product = parameter.dtype == torch.bfloat16
        assert is_product != (parameter is own[name]), name
        plain = ("norm" in name, "step_scale" in name, name.startswith("embedding"))
        assert is_product != any(plain), name
    hidden_BTD, readings = working.hidden_with_readings(batch()[0])
    assert hidden_BTD.dtype == torch.bfloat16
    for name, tensor in readings.items():
        assert name == "experts_LBTK" or tensor.dtype == torch.float32
    torch.testing.assert_close(working(batch()[0]).float(), model(batch()[0]), rtol=0.1, atol=0.05)


def test_refreshing_rounds_the_weights_anew() -> None:
    model = LanguageModel(small_architecture("dual"))
    working = WorkingModel(model, "bfloat16")
    with torch.no_grad():
        model.head.weight.mul_(3.0)
    working.refresh()
    assert torch.equal(working.model.head.weight, model.head.weight.bfloat16())


def test_gradients_come_home_in_float32_and_add_up() -> None:
    model = LanguageModel(small_architecture("dual"))
    working = WorkingModel(model, "bfloat16")
    for count in (1, 2):
        loss, _ = training_loss(working.model, *batch(), RECIPE)
        torch.autograd.backward(loss)
        taken = [p.grad.clone() for p in working.model.parameters() if p.grad is not None]
        working.collect_gradients()
        assert len(taken) == len(list(model.parameters()))
        gradient = model.head.weight.grad
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert working.model.head.weight.grad is None
        torch.testing.assert_close(gradient, count * taken[-1].float(), rtol=1e-2, atol=1e-6)


def test_bfloat16_learns_as_float32_does() -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        recipe = TrainingRecipe(learning_rate=0.01, batch_sequences=4, precision=precision)
        engine = EagerEngine(LanguageModel(small_architecture("dual"), seed=2), recipe)
        losses[precision] = [engine.step(*batch(), learning_rate=0.01).item() for _ in range(20)]
        sums = engine.validation_sums(*batch())
        assert sums.nats.item() / 64 < losses[precision][-1]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["float32"][-1] < 0.8 * losses["float32"][0]
