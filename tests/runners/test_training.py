"""Does a trial train, measure, stop, resume and sum up as promised?"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

import runners.engine.step
import runners.engine.validation
from runners.text.corpus import Corpus
from runners.trial.checkpoint import load_checkpoint
from runners.trial.training import StopReason, TrainingOptions, evaluation_steps, run_trial
from search.record.trial import CurvePoint, Outcome, Progress, TrialConfig
from spaces.arms.contract import find_arm
from spaces.errors import RequestError
from spaces.flops import train_flops_per_token
from spaces.identity import canonical_json
from spaces.model import LanguageModel
from spaces.parametrization import Parametrization
from tests.runners.small import SIZES, small_architecture, small_trial

CPU = TrainingOptions()


def train(
    config: TrialConfig, corpus: Corpus, options: TrainingOptions = CPU, **others: Any
) -> Outcome:
    *progress, outcome = run_trial(config, corpus, options, **others)
    assert all(isinstance(value, Progress) for value in progress)
    assert isinstance(outcome, Outcome)
    return outcome


def stop_after(num_steps: int, reason: StopReason) -> Callable[[], StopReason | None]:
    asked = iter(range(10_000))
    return lambda: reason if next(asked) >= num_steps else None


def without_seconds(curve: tuple[CurvePoint, ...]) -> list[CurvePoint]:
    return [replace(point, wall_seconds=0.0) for point in curve]


@pytest.mark.parametrize("arm", list(SIZES))
def test_a_trial_learns_and_says_what_it_cost(arm: str, sotu_corpus: Corpus) -> None:
    config = small_trial(sotu_corpus, arm)
    outcome = train(config, sotu_corpus)
    assert (outcome.status, outcome.reason) == ("complete", None)
    assert (outcome.steps, outcome.tokens) == (11, 672)
    assert outcome.loss_nats is not None
    assert outcome.loss_nats < math.log(256) - 0.1
    per_token = train_flops_per_token(config.architecture)
    assert outcome.train_flops == per_token.times(672).as_dict()
    assert outcome.train_flops["full"] == 3 * 672 * outcome.forward_flops_per_token["full"]
    assert sum(outcome.parameters.values()) == 2 * outcome.parameters["total"]
    assert outcome.epochs == 672 / sotu_corpus.num_train_tokens
    assert outcome.tokens_per_second == pytest.approx(672 / (outcome.wall_seconds or 0))
    assert outcome.generalization_gap_nats == outcome.loss_nats - (outcome.train_loss_nats or 0)
    assert outcome.model_flops_utilization is None
    assert outcome.device
    assert set(outcome.versions) >= {"python", "torch", "isoflop"}
    assert all(len(layers) == 2 for layers in outcome.readouts.values())
    assert list(outcome.readouts) == [
        each.name for each in find_arm(arm).readouts_of(config.architecture)
    ]
    assert all(point.readouts for point in outcome.curve) == bool(find_arm(arm).readouts)
    assert outcome.curve[-1].readouts == outcome.readouts
    assert outcome.weights_path is None


def test_the_curve_ends_with_the_result(sotu_corpus: Corpus) -> None:
    config = small_trial(sotu_corpus)
    assert sorted(evaluation_steps(config)) == [4, 7, 11]
    outcome = train(config, sotu_corpus)
    assert [point.step for point in outcome.curve] == [4, 7, 11]
    assert [point.tokens for point in outcome.curve] == [256, 448, 672]
    assert outcome.curve[-1].val_loss_nats == outcome.loss_nats
    assert outcome.curve[-1].train_flops == outcome.train_flops["full"]
    assert outcome.curve[-1].learning_rate == pytest.approx(0.1 * 0.01)
    assert outcome.train_loss_nats is not None
    seconds = [point.wall_seconds for point in outcome.curve]
    assert seconds == sorted(seconds)
    assert seconds[-1] == outcome.wall_seconds


def test_bits_per_byte_of_bytes_are_the_loss_in_bits(sotu_corpus: Corpus) -> None:
    outcome = train(small_trial(sotu_corpus), sotu_corpus)
    assert outcome.loss_nats is not None
    # few of the measured tokens are separators, which stand for no byte
    assert outcome.bits_per_byte == pytest.approx(outcome.loss_nats / math.log(2), rel=0.02)


def test_gates_of_a_fresh_layer_are_even(sotu_corpus: Corpus) -> None:
    outcome = train(small_trial(sotu_corpus, learning_rate=1e-9), sotu_corpus)
    assert outcome.readouts["deep_share"] == pytest.approx((0.5, 0.5), abs=1e-6)
    assert outcome.readouts["gate_entropy_nats"] == pytest.approx((math.log(2),) * 2, abs=1e-6)


def test_same_seeds_same_numbers_other_seeds_others(sotu_corpus: Corpus) -> None:
    config = small_trial(sotu_corpus)
    first, again = train(config, sotu_corpus), train(config, sotu_corpus)
    assert without_seconds(first.curve) == without_seconds(again.curve)
    for change in ({"init_seed": 1}, {"data_seed": 1}):
        assert train(replace(config, **change), sotu_corpus).loss_nats != first.loss_nats


def test_all_arms_see_the_same_data_in_the_same_order(
    sotu_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[Tensor]] = {}
    honest = runners.engine.step.training_loss

    def watched(model: Any, inputs: Tensor, *others: Any, **named: Any) -> Any:
        seen.setdefault(model.architecture.arm, []).append(inputs.clone())
        return honest(model, inputs, *others, **named)

    monkeypatch.setattr(runners.engine.step, "training_loss", watched)
    for arm in SIZES:
        train(small_trial(sotu_corpus, arm), sotu_corpus)
    assert [len(inputs) for inputs in seen["dual"]] == [4] * 10 + [2]
    for arm in SIZES:
        for one, other in zip(seen[arm], seen["dual"], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("arm", list(SIZES))
def test_a_continued_trial_equals_an_uninterrupted_one_bit_for_bit(
    arm: str, sotu_corpus: Corpus, tmp_path: Path
) -> None:
    config = small_trial(sotu_corpus, arm)
    whole = TrainingOptions(checkpoint_dir=tmp_path / "a", checkpoint_steps=10)
    uninterrupted = train(config, sotu_corpus, replace(whole, weights_path=tmp_path / "a.st"))
    folder = TrainingOptions(checkpoint_dir=tmp_path / "b", weights_path=tmp_path / "b.st")
    for steps in (5, 3):
        stopped = train(config, sotu_corpus, folder, should_stop=stop_after(steps, "preempted"))
        assert stopped.status == "preempted"
        assert stopped.loss_nats is None
    continued = train(config, sotu_corpus, replace(folder, checkpoint_steps=10))
    assert continued.status == "complete"
    assert continued.resumed_tokens == 8 * 64
    assert continued.loss_nats == uninterrupted.loss_nats
    assert continued.train_loss_nats == uninterrupted.train_loss_nats
    assert continued.readouts == uninterrupted.readouts
    assert without_seconds(continued.curve) == without_seconds(uninterrupted.curve)
    assert (tmp_path / "a.st").read_bytes() == (tmp_path / "b.st").read_bytes()
    one, other = (optimizer_at_the_end(tmp_path / name, config) for name in "ab")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_trial_starts_as_its_parametrization_says(sotu_corpus: Corpus, tmp_path: Path) -> None:
    a = small_architecture("dual", d_model=64)
    scaled = Parametrization(name="complete-p", base_width=16, base_layers=1).at(a)
    config = small_trial(
        sotu_corpus, architecture=a, parametrization=scaled, learning_rate=1e-12, init_seed=4
    )
    train(config, sotu_corpus, TrainingOptions(weights_path=tmp_path / "a.st"))
    start = LanguageModel(a, seed=4, parametrization=scaled).state_dict()
    for name, tensor in safetensors.torch.load_file(tmp_path / "a.st").items():
        torch.testing.assert_close(tensor, start[name], rtol=0, atol=1e-9)


def optimizer_at_the_end(folder: Path, config: TrialConfig) -> dict[str, Tensor]:
    checkpoint = load_checkpoint(folder, config_hash=config.config_hash).checkpoint
    assert checkpoint is not None
    assert checkpoint.step == 10
    return checkpoint.optimizer


def test_a_corrupt_newest_checkpoint_costs_time_not_the_result(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    config = small_trial(sotu_corpus)
    expected = train(config, sotu_corpus)
    options = TrainingOptions(checkpoint_dir=tmp_path, checkpoint_steps=2)
    train(config, sotu_corpus, options, should_stop=stop_after(8, "preempted"))
    (tmp_path / "step-000000000008" / "weights.safetensors").write_bytes(b"")
    continued = train(config, sotu_corpus, options)
    assert continued.resumed_tokens == 6 * 64
    assert continued.loss_nats == expected.loss_nats


def test_progress_comes_before_the_outcome_and_grows(sotu_corpus: Corpus) -> None:
    options = TrainingOptions(progress_seconds=0.0)
    *progress, outcome = run_trial(small_trial(sotu_corpus), sotu_corpus, options)
    assert isinstance(outcome, Outcome)
    steps = [value.step for value in progress if isinstance(value, Progress)]
    assert steps == list(range(11))
    assert isinstance(progress[-1], Progress)
    assert [point.step for point in progress[-1].curve] == [4, 7]
    assert (progress[-1].steps, progress[-1].tokens) == (11, 640)


def test_checkpoints_by_time(sotu_corpus: Corpus, tmp_path: Path) -> None:
    options = TrainingOptions(checkpoint_dir=tmp_path, checkpoint_seconds=0.0)
    train(small_trial(sotu_corpus), sotu_corpus, options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000000009", "step-000000000010"]


def test_pruned_ends_without_result_or_checkpoint(sotu_corpus: Corpus, tmp_path: Path) -> None:
    outcome = train(
        small_trial(sotu_corpus),
        sotu_corpus,
        TrainingOptions(checkpoint_dir=tmp_path / "c"),
        should_stop=stop_after(5, "pruned"),
    )
    assert (outcome.status, outcome.steps, outcome.loss_nats) == ("pruned", 5, None)
    assert [point.step for point in outcome.curve] == [4]
    assert (
        outcome.train_flops["full"] == outcome.tokens * 3 * outcome.forward_flops_per_token["full"]
    )
    assert not (tmp_path / "c").exists()


def test_nan_at_a_step_is_divergence_with_what_was_spent(
    sotu_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, calls = runners.engine.step.training_loss, iter(range(100))

    def failing(*arguments: Any, **named: Any) -> Any:
        loss, cross_entropy = honest(*arguments, **named)
        factor = math.nan if next(calls) == 5 else 1.0
        return loss * factor, cross_entropy * factor

    monkeypatch.setattr(runners.engine.step, "training_loss", failing)
    outcome = train(small_trial(sotu_corpus), sotu_corpus)
    assert outcome.status == "diverged"
    assert outcome.reason == "the training loss of step 6 must be finite, got nan"
    assert outcome.loss_nats is None
    assert (outcome.steps, outcome.tokens) == (6, 6 * 64)
    assert outcome.train_flops["full"] > 0


def test_a_rate_that_blows_up_is_divergence(sotu_corpus: Corpus) -> None:
    config = small_trial(sotu_corpus, learning_rate=30.0, tokens=16 * 4 * 60, grad_clip=1e9)
    outcome = train(config, sotu_corpus)
    assert outcome.status == "diverged"
    assert outcome.reason is not None
    assert "ln(vocab_size) + 0.5 = 6.05 nats" in outcome.reason
    assert outcome.steps < 60


def test_a_bad_final_loss_is_never_a_result(
    sotu_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = runners.engine.validation.summed_cross_entropy
    monkeypatch.setattr(
        runners.engine.validation, "summed_cross_entropy", lambda *a: honest(*a) * math.inf
    )
    outcome = train(small_trial(sotu_corpus, eval_points=0), sotu_corpus)
    assert (outcome.status, outcome.steps, outcome.loss_nats) == ("diverged", 11, None)


def test_no_memory_for_one_sequence_is_an_outcome(
    sotu_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never_enough(*_: Any, **named: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")

    monkeypatch.setattr(runners.engine.step, "training_loss", never_enough)
    outcome = train(small_trial(sotu_corpus), sotu_corpus)
    assert (outcome.status, outcome.steps) == ("out_of_memory", 0)
    assert outcome.reason == "one sequence does not fit into cpu's memory: CUDA out of memory."


def test_many_epochs_and_a_wide_gap_are_said(tmp_path: Path) -> None:
    from runners.text.corpus import prepare_corpus

    words = ["alpha beta gamma delta " * 6, "omega psi chi phi upsilon tau " * 9]
    for name, text in zip(("train", "val"), words, strict=True):
        (tmp_path / f"{name}.txt").write_text(text)
    corpus = prepare_corpus(tmp_path, cache_dir=tmp_path / "cache")
    outcome = train(small_trial(corpus, tokens=16 * 4 * 100), corpus)
    assert outcome.status == "complete"
    assert outcome.loss_nats is not None
    assert outcome.loss_nats > math.log(256) + 0.5
    assert outcome.epochs == pytest.approx(6_400 / 139)
    assert len(outcome.warnings) == 2
    assert outcome.warnings[0].startswith("the text was seen 46.04 times")
    assert "nats above training loss" in outcome.warnings[1]


def test_weights_are_left_as_safetensors_with_their_origin(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    config = small_trial(sotu_corpus)
    path = tmp_path / "deep" / "w.safetensors"
    outcome = train(config, sotu_corpus, TrainingOptions(weights_path=path))
    assert outcome.weights_path == str(path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"config": canonical_json(config)}
    weights = safetensors.torch.load_file(path)
    assert sum(tensor.numel() for tensor in weights.values()) == outcome.parameters["total"]


def test_garbage_collection_is_off_in_steps_and_on_between(
    sotu_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    honest = runners.engine.step.training_loss

    def watched(*arguments: Any, **named: Any) -> Any:
        seen.append(gc.isenabled())
        return honest(*arguments, **named)

    monkeypatch.setattr(runners.engine.step, "training_loss", watched)
    values: Iterator[Any] = run_trial(small_trial(sotu_corpus), sotu_corpus, CPU)
    assert all(gc.isenabled() for _ in values)
    assert seen == [False] * 11


def test_threads_are_set_for_the_trial(sotu_corpus: Corpus) -> None:
    before = torch.get_num_threads()
    try:
        train(small_trial(sotu_corpus), sotu_corpus, TrainingOptions(num_threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_fingerprint": "f" * 64}, "names ffffffffffffffff and the corpus is edd9fcf2"),
        ({"tokens": 100}, "whole number of sequences of 16, got 100"),
        ({"tokens": 0}, "whole number of sequences of 16, got 0"),
        ({"eval_sequences": 10**6}, "validation text's 43416 sequences of 16 tokens, got 1000000"),
        (
            {"architecture": small_architecture("dual", vocab_size=200)},
            "vocab_size must hold the text's 256 symbols, got 200",
        ),
    ],
)
def test_requests_that_cannot_be_met(
    sotu_corpus: Corpus, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        train(small_trial(sotu_corpus, **change), sotu_corpus)


@pytest.mark.gpu
def test_on_a_gpu_in_bfloat16_a_trial_learns_and_resumes(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    config = small_trial(sotu_corpus, precision="bfloat16", tokens=16 * 4 * 100, eval_sequences=256)
    options = TrainingOptions(device="cuda", checkpoint_dir=tmp_path)
    stopped = train(config, sotu_corpus, options, should_stop=stop_after(50, "preempted"))
    assert stopped.status == "preempted"
    outcome = train(config, sotu_corpus, options)
    assert outcome.status == "complete"
    assert outcome.peak_memory_bytes
    on_cpu = train(
        replace(config, training=replace(config.training, precision="float32")), sotu_corpus
    )
    assert outcome.loss_nats == pytest.approx(on_cpu.loss_nats, rel=0.05)
