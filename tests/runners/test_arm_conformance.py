"""Does every arm train, resume to the same bits, travel to workers, and replay on a GPU?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from runners.engine.step import EagerEngine
from runners.text.corpus import Corpus
from runners.trial.training import TrainingOptions, run_trial
from search.record.trial import Outcome, TrainingRecipe
from spaces.model import LanguageModel
from tests.runners.small import small_trial
from tests.spaces.conformance import ARMS, architecture_of

every_arm = pytest.mark.parametrize("name", ARMS)


def trial_of(name: str, corpus: Corpus) -> Any:
    """Eleven steps of an arm."""
    architecture = replace(architecture_of(name), vocab_size=256)
    return small_trial(corpus, "dual", architecture=architecture)


@every_arm
def test_a_step_moves_every_parameter(name: str) -> None:
    architecture = architecture_of(name)
    engine = EagerEngine(
        LanguageModel(architecture, seed=1),
        TrainingRecipe(learning_rate=0.01, batch_sequences=2),
    )
    before = {key: value.clone() for key, value in engine.model.named_parameters()}
    tokens = torch.randint(64, (2, 17), generator=torch.Generator().manual_seed(0))
    for _ in range(3):  # gates start at zero: some weights only move once others have
        loss = engine.step(tokens[:, :-1], tokens[:, 1:], learning_rate=0.01)
    assert torch.isfinite(loss)
    still = [
        key
        for key, value in engine.model.named_parameters()
        if torch.equal(before[key], value) and "router.bias" not in key
    ]
    assert still == []


@every_arm
def test_a_resumed_trial_equals_an_uninterrupted_one(
    name: str, sotu_corpus: Corpus, tmp_path: Path
) -> None:
    config = trial_of(name, sotu_corpus)
    (*_, whole) = run_trial(config, sotu_corpus, TrainingOptions())
    options = TrainingOptions(checkpoint_dir=tmp_path, checkpoint_steps=3, progress_seconds=0.0)
    calls = iter(range(100))
    stopped = list(
        run_trial(
            config,
            sotu_corpus,
            options,
            should_stop=lambda: "preempted" if next(calls) >= 5 else None,
        )
    )[-1]
    (*_, resumed) = run_trial(config, sotu_corpus, options)
    assert isinstance(stopped, Outcome)
    assert isinstance(whole, Outcome)
    assert isinstance(resumed, Outcome)
    assert (stopped.status, resumed.status) == ("preempted", "complete")
    assert resumed.resumed_tokens > 0
    assert resumed.loss_nats == whole.loss_nats
    assert resumed.readouts == whole.readouts
    assert [p.val_loss_nats for p in resumed.curve] == [p.val_loss_nats for p in whole.curve]


@pytest.mark.gpu
@every_arm
def test_a_captured_step_is_the_eager_one(name: str) -> None:
    from runners.engine.graph import GraphEngine, StepTask

    architecture = replace(architecture_of(name), head_dim=16)
    recipe = TrainingRecipe(learning_rate=1e-3, batch_sequences=4, precision="bfloat16")
    device = torch.device("cuda")
    task = StepTask(architecture=architecture, recipe=recipe, device=device)
    captured = GraphEngine(task, init_seed=3)
    eager = EagerEngine(LanguageModel(architecture, seed=3).to(device), recipe)
    tokens = torch.randint(64, (8, 4, 17), generator=torch.Generator().manual_seed(0)).to(device)
    for batch in tokens:
        inputs, targets = batch[:, :-1].contiguous(), batch[:, 1:].contiguous()
        one = captured.step(inputs, targets, learning_rate=1e-3)
        other = eager.step(inputs, targets, learning_rate=1e-3)
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)
    captured.release()
