"""Does the replayed step continue exactly where the eager one would? Most of it needs a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from runners.engine.graph import GraphEngine, StepTask, WarmEngine, even_share
from runners.engine.step import EagerEngine, OutOfMemoryAtOneSequence
from search.limits.memory import fitting_micro_batch, training_memory_bytes
from search.record.trial import Precision, TrainingRecipe
from spaces.architecture import Architecture
from spaces.model import LanguageModel
from spaces.parametrization import Parametrization

DUAL = Architecture(
    arm="dual",
    num_layers=2,
    num_loops=2,
    d_model=128,
    deep_ffn=352,
    wide_ffn=512,
    head_dim=64,
    context_length=256,
    vocab_size=512,
)


def recipe(precision: Precision = "float32", **changes: Any) -> TrainingRecipe:
    return TrainingRecipe(learning_rate=1e-3, batch_sequences=8, precision=precision, **changes)


def task(of: TrainingRecipe, *, architecture: Architecture = DUAL, **options: Any) -> StepTask:
    device = torch.device("cuda")
    return StepTask(architecture=architecture, recipe=of, device=device, **options)


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    found = []
    for _ in range(count):
        tokens = torch.randint(512, (8, 257), generator=generator).cuda()
        found.append((tokens[:, :-1], tokens[:, 1:]))
    return found


def graph_engine(engine_recipe: TrainingRecipe, **options: Any) -> GraphEngine:
    return GraphEngine(task(engine_recipe, **options), init_seed=1)


def eager_engine(engine_recipe: TrainingRecipe, **options: Any) -> EagerEngine:
    return EagerEngine(LanguageModel(DUAL, seed=1).cuda(), engine_recipe, **options)


def train(engine: Any, count: int = 50) -> list[float]:
    return [
        engine.step(inputs, targets, learning_rate=1e-3).item()
        for inputs, targets in batches(count)
    ]


def distance(one: Tensor, other: Tensor) -> float:
    """Of two tensors, as a share of the second one's norm."""
    return ((one - other).norm() / other.norm()).item()


def test_rate_schedule_and_decay_are_not_captured() -> None:
    other = replace(recipe(), learning_rate=0.5, weight_decay=0.0, schedule="wsd")
    assert task(other).captured() == task(recipe()).captured()
    assert task(recipe(grad_clip=2.0)).captured() != task(recipe()).captured()


def test_factors_of_groups_are_captured() -> None:
    rule = Parametrization(name="mup", base_width=8)
    scaled = replace(recipe(), parametrization=rule.at(task(recipe()).architecture))
    assert task(scaled).captured() != task(recipe()).captured()
    assert task(replace(scaled, weight_decay=0.5)).captured() == task(scaled).captured()


@pytest.mark.parametrize(
    ("total", "most", "share"), [(512, 19, 16), (512, 32, 32), (97, 32, 32), (10, 64, 10)]
)
def test_validation_is_cut_evenly_where_it_can_be(total: int, most: int, share: int) -> None:
    assert even_share(total, most=most) == share


def test_the_micro_batch_is_halved_until_it_is_predicted_to_fit() -> None:
    needed = training_memory_bytes(DUAL, sequences=8)
    assert fitting_micro_batch(DUAL, sequences=32, memory_bytes=needed) == 8
    assert fitting_micro_batch(DUAL, sequences=32, memory_bytes=1.0) == 1


@pytest.mark.gpu
def test_in_float32_losses_weights_and_moments_are_those_of_the_eager_loop() -> None:
    engine, eager = graph_engine(recipe()), eager_engine(recipe())
    assert train(engine, 3) == pytest.approx(train(eager, 3), rel=1e-5)
    moments = eager.optimizer_tensors()
    for name, tensor in engine.optimizer_tensors().items():
        assert distance(tensor, moments[name]) < 1e-3, name
    for one, other in zip(engine.model.parameters(), eager.model.parameters(), strict=True):
        assert distance(one, other) < 1e-3
    assert train(engine) == pytest.approx(train(eager), rel=1e-4)
    inputs, targets = batches(1)[0]
    for each in (engine, eager):  # a partial batch: eager
        each.step(inputs[:3], targets[:3], learning_rate=1e-3)
    sums = [each.validation_sums(inputs, targets) for each in (engine, eager)]
    assert sums[0].nats.item() == pytest.approx(sums[1].nats.item(), rel=1e-4)


@pytest.mark.gpu
def test_bfloat16_stays_within_the_noise_of_the_data_order() -> None:
    found, plain = train(graph_engine(recipe("bfloat16"))), train(eager_engine(recipe("bfloat16")))
    assert found == pytest.approx(plain, rel=0.01)


@pytest.mark.gpu
def test_micro_batches_in_the_graph_leave_the_losses_as_they_are() -> None:
    whole, split = graph_engine(recipe()), graph_engine(recipe(), micro_batch_sequences=2)
    assert train(split, 10) == pytest.approx(train(whole, 10), rel=1e-5)


@pytest.mark.gpu
def test_a_warm_engine_starts_another_trial_as_a_fresh_one_would() -> None:
    warm = WarmEngine()
    train(warm.start(task(recipe(weight_decay=0.5)), init_seed=9), 5)
    from runners.engine.kernels.count import num_compiled

    before = num_compiled()
    again = warm.start(task(recipe()), init_seed=1)
    assert train(again, 20) == pytest.approx(train(eager_engine(recipe()), 20), rel=1e-4)
    deeper = replace(DUAL, num_layers=3, num_loops=3, wide_ffn=640)
    warm.start(task(recipe(), architecture=deeper), init_seed=1)
    assert num_compiled() == before


@pytest.mark.gpu
def test_a_parametrization_trains_in_the_graph_as_in_the_eager_loop_fresh_and_restarted() -> None:
    rule = Parametrization(name="complete-p", base_width=32, base_layers=1, loop_factor="inverse")
    scaled = recipe(parametrization=rule.at(DUAL))
    model = LanguageModel(DUAL, seed=1, parametrization=scaled.parametrization).cuda()
    expected = train(EagerEngine(model, scaled), 20)
    assert expected != pytest.approx(train(eager_engine(recipe()), 20), rel=1e-3)
    warm = WarmEngine()
    assert train(warm.start(task(scaled), init_seed=1), 20) == pytest.approx(expected, rel=1e-4)
    other = replace(scaled, weight_decay=0.3)
    train(warm.start(task(other), init_seed=2), 5)
    assert train(warm.start(task(scaled), init_seed=1), 20) == pytest.approx(expected, rel=1e-4)


@pytest.mark.gpu
def test_lack_of_memory_halves_the_micro_batch_and_is_infeasible_at_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest, limit = EagerEngine.run, 3

    def limited(self: EagerEngine, inputs: Tensor, targets: Tensor, **named: int) -> Tensor:
        if self.micro_batch_sequences > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return honest(self, inputs, targets, **named)

    monkeypatch.setattr(EagerEngine, "run", limited)
    engine = graph_engine(recipe())
    assert engine.micro_batch_sequences == 2
    limit = 0
    with pytest.raises(OutOfMemoryAtOneSequence):
        graph_engine(recipe())


@pytest.mark.gpu
def test_where_the_device_really_has_no_more_a_smaller_micro_batch_trains_the_same() -> None:
    long = replace(recipe(), batch_sequences=128)
    whole = graph_engine(long)
    tokens = torch.randint(512, (128, 257), generator=torch.Generator().manual_seed(4)).cuda()
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    expected = [whole.step(inputs, targets, learning_rate=1e-3).item() for _ in range(5)]
    assert whole.micro_batch_sequences == 128
    needed = whole.peak_memory_bytes
    whole.release()
    del whole
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 0.6 * needed
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    try:
        split = graph_engine(long)
        assert split.micro_batch_sequences in (32, 64)
        found = [split.step(inputs, targets, learning_rate=1e-3).item() for _ in range(5)]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.gpu
def test_a_single_validation_sequence_is_a_size_like_any_other() -> None:
    engine, eager = graph_engine(recipe(), eval_sequences=1), eager_engine(recipe())
    inputs, targets = batches(1)[0]
    sums = [each.validation_sums(inputs[:1], targets[:1]) for each in (engine, eager)]
    assert sums[0].nats.item() == pytest.approx(sums[1].nats.item(), rel=1e-4)
