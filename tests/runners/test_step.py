"""Is a step what its parts say, however it is split, and does it survive a lack of memory?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import runners.engine.step
from runners.engine.loss import charges_of
from runners.engine.step import (
    EagerEngine,
    OutOfMemoryAtOneSequence,
    make_optimizer,
    rate_groups,
)
from search.record.trial import TrainingRecipe
from spaces.model import LanguageModel
from spaces.parametrization import Parametrization, ParametrizationName
from tests.runners.small import SIZES, small_architecture

RECIPE = TrainingRecipe(learning_rate=0.01, batch_sequences=6, weight_decay=0.3)


def batch(num_sequences: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    tokens = torch.randint(0, 256, (num_sequences, 17), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def engine(arm: str = "dual", **options: Any) -> EagerEngine:
    model = LanguageModel(small_architecture(arm), seed=2)
    return EagerEngine(model, options.pop("recipe", RECIPE), **options)


@pytest.mark.parametrize("arm", list(SIZES))
def test_a_step_is_forward_backward_clip_and_adamw(arm: str) -> None:
    found = engine(arm)
    model = LanguageModel(small_architecture(arm), seed=2)
    inputs, targets = batch()
    hidden_BTD, readings = model.hidden_with_readings(inputs)
    loss = F.cross_entropy(model.head(hidden_BTD).flatten(0, 1), targets.flatten())
    penalties = model.arm.penalties(model.architecture, readings, charges_of(RECIPE))
    sum((weight * penalty for weight, penalty in penalties), start=loss).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    matrices = {id(each.parameter) for each in model.declared() if each.weight.decays}
    for parameter in model.parameters():
        assert parameter.grad is not None
        decay = 0.3 if id(parameter) in matrices else 0.0
        torch.optim.AdamW(
            [parameter], lr=0.02, betas=(0.9, 0.95), weight_decay=decay, fused=False
        ).step()
    assert found.step(inputs, targets, learning_rate=0.02).item() == pytest.approx(
        loss.item(), rel=1e-6
    )
    for one, other in zip(found.model.parameters(), model.parameters(), strict=True):
        # Adam's first step is the gradient's sign: compare where the gradient is not noise
        clear = other.grad.abs() > 1e-6 if other.grad is not None else None
        torch.testing.assert_close(one[clear], other[clear], rtol=1e-5, atol=2e-5)


def test_fifty_steps_are_those_of_a_plain_loop() -> None:
    found, model = engine(), LanguageModel(small_architecture("dual"), seed=2)
    groups = [
        {
            "params": [each.parameter for each in model.declared() if each.weight.decays == decays],
            "weight_decay": decay,
        }
        for decays, decay in ((True, 0.3), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), foreach=False)
    generator = torch.Generator().manual_seed(8)
    for step in range(50):
        tokens = torch.randint(0, 256, (6, 17), generator=generator)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        rate = 0.01 * min(1.0, (step + 1) / 10)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step_loss = found.step(inputs, targets, learning_rate=rate)
        assert step_loss.item() == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_leave_the_gradient_as_it_is(size: int) -> None:
    whole, split = engine(), engine(micro_batch_sequences=size)
    recipe_loss = [e.step(*batch(), learning_rate=0.0).item() for e in (whole, split)]
    assert recipe_loss[0] == pytest.approx(recipe_loss[1], rel=1e-6)
    for one, other in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-7)


def test_penalties_are_means_over_the_whole_batch_however_it_is_split() -> None:
    recipe = TrainingRecipe(
        learning_rate=0.01, batch_sequences=6, ponder_penalty=0.1, gate_entropy_penalty=0.1
    )
    whole, split = engine(recipe=recipe), engine(recipe=recipe, micro_batch_sequences=4)
    for e in (whole, split):
        e.step(*batch(), learning_rate=0.0)
    for one, other in zip(whole.model.parameters(), split.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=1e-7)


def limit_memory(monkeypatch: pytest.MonkeyPatch, num_sequences: int) -> list[int]:
    """A device that holds so many sequences; returns the sizes that were tried."""
    tried: list[int] = []
    honest = runners.engine.step.training_loss

    def limited(model: Any, inputs: Tensor, *others: Any, **named: Any) -> Any:
        tried.append(len(inputs))
        if len(inputs) > num_sequences:
            raise torch.OutOfMemoryError("CUDA out of memory.\nmore")
        return honest(model, inputs, *others, **named)

    monkeypatch.setattr(runners.engine.step, "training_loss", limited)
    return tried


def test_lack_of_memory_halves_the_micro_batch_and_changes_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = engine()
    losses = [whole.step(*batch(), learning_rate=0.01).item() for _ in range(2)]
    tried = limit_memory(monkeypatch, 2)
    halved = engine()
    found = [halved.step(*batch(), learning_rate=0.01).item() for _ in range(2)]
    assert tried == [6, 3, 1, 1, 1, 1, 1, 1] + [1] * 6
    assert halved.micro_batch_sequences == 1
    assert found == pytest.approx(losses, rel=1e-5)


def test_no_memory_for_one_sequence_is_its_own_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = limit_memory(monkeypatch, 0)
    with pytest.raises(OutOfMemoryAtOneSequence, match="CUDA out of memory"):
        engine().step(*batch(), learning_rate=0.01)
    assert tried == [6, 3, 1]


def test_optimizer_state_goes_and_comes_back_exactly() -> None:
    one = engine()
    assert one.optimizer_tensors() == {}
    one.step(*batch(), learning_rate=0.01)
    other = engine()
    other.model.load_state_dict(one.model.state_dict())
    other.load_optimizer_tensors({k: v.clone() for k, v in one.optimizer_tensors().items()})
    for e in (one, other):
        e.step(*batch(4), learning_rate=0.02)
    assert other.optimizer_tensors().keys() == one.optimizer_tensors().keys()
    assert len(one.optimizer_tensors()) == 3 * len(list(one.model.parameters()))
    for name, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name]), name


@pytest.mark.parametrize("arm", list(SIZES))
@pytest.mark.parametrize("name", ["mup", "complete-p"])
def test_at_its_base_shape_a_parametrization_trains_the_same_to_the_bit(
    arm: str, name: ParametrizationName
) -> None:
    a = small_architecture(arm)
    rule = Parametrization(
        name=name,
        base_width=a.d_model,
        base_layers=a.num_layers,
        base_loops=a.num_loops,
        loop_factor="inverse",
    )
    recipe = replace(RECIPE, parametrization=rule.at(a))
    model = LanguageModel(a, seed=2, parametrization=recipe.parametrization)
    one, other = engine(arm), EagerEngine(model, recipe)
    for index in range(4):
        losses = [e.step(*batch(), learning_rate=0.01, index=index).item() for e in (one, other)]
        assert losses[0] == losses[1]
    for name_of, tensor in one.model.state_dict().items():
        assert torch.equal(tensor, other.model.state_dict()[name_of]), name_of


def test_one_group_where_nothing_is_scaled_and_one_for_each_set_of_factors() -> None:
    model = LanguageModel(small_architecture("dual", d_model=64))
    assert len(rate_groups(model)) == 1
    rule = Parametrization(name="mup", base_width=16)
    groups = rate_groups(model, rule.at(model.architecture))
    assert len(groups) == 3
    optimizer = make_optimizer(groups, RECIPE)
    found = {
        (g.factors.rate, own["eps"]) for g, own in zip(groups, optimizer.param_groups, strict=True)
    }
    assert found == {(1.0, 2.5e-9), (0.25, 2.5e-9), (0.25, 1e-8)}
    assert sum(len(group.parameters) for group in groups) == len(list(model.parameters()))


def test_each_group_moves_by_its_rate_and_decays_by_rate_and_decay() -> None:
    a = small_architecture("dual", d_model=64)
    rule = Parametrization(name="mup", base_width=16).at(a)
    recipe = replace(RECIPE, parametrization=rule)
    e = EagerEngine(LanguageModel(a, seed=2, parametrization=rule), recipe)
    before = {name: tensor.clone() for name, tensor in e.model.state_dict().items()}
    e.step(*batch(), learning_rate=0.02)
    for each in e.model.declared():
        factors, gradient = each.factors(rule), each.parameter.grad
        assert gradient is not None
        rate, decay = 0.02 * factors.rate, 0.3 * factors.decay * each.weight.decays
        share = gradient / (gradient.abs() + recipe.adam_epsilon * factors.epsilon)
        expected = before[each.name] * (1 - rate * decay) - rate * share
        torch.testing.assert_close(each.parameter.detach(), expected, rtol=1e-4, atol=2e-6)


def test_golden_training_steps() -> None:
    """Changed arithmetic changes every trial: raise RECORD_VERSION and name it in the commit."""
    e = engine()
    losses = [e.step(*batch(), learning_rate=0.01).item() for _ in range(3)]
    assert losses == pytest.approx(GOLDEN_LOSSES, abs=5e-5)


GOLDEN_LOSSES = [5.551809, 5.329618, 5.149235]
