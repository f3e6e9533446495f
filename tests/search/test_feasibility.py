"""Known limits: graded, stated, and checked before anything runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from search.asked.settings import LimitSettings
from search.limits.feasibility import broken_limits, graded_limits, predicted_memory_bytes
from spaces.parameters import count_parameters
from tests.search.records import bowl, play
from tests.sweeps import toy_experiment, toy_proposals


@pytest.fixture
def config(tmp_path):
    return toy_proposals(tmp_path, 1)[0].config


def test_memory_is_parameters_and_activations(config):
    a = config.architecture
    batch_tokens = config.training.batch_sequences * a.context_length
    expected = 16 * count_parameters(a).total + 40 * a.d_model * a.effective_depth * batch_tokens
    assert predicted_memory_bytes(LimitSettings(), config) == expected


def test_a_grade_is_the_logarithm_of_the_excess(config):
    needed = predicted_memory_bytes(LimitSettings(), config)
    limits = LimitSettings(memory_bytes=needed / 2, learning_rate=(1e-9, 1e-8))
    grades = graded_limits(limits, config, min_steps=2 * config.num_steps)
    assert grades["memory_bytes"] == pytest.approx(math.log(2))
    assert grades["min_steps"] == pytest.approx(math.log(2))
    assert grades["learning_rate"] == pytest.approx(math.log(config.training.learning_rate / 1e-8))


def test_grades_are_negative_within_the_limits(config):
    ratio = config.tokens / count_parameters(config.architecture).total
    limits = LimitSettings(memory_bytes=1e12, tokens_per_parameter=(ratio / 3, ratio * 2))
    grades = graded_limits(limits, config, min_steps=1)
    assert all(grade < 0 for grade in grades.values())
    assert grades["tokens_per_parameter"] == pytest.approx(-math.log(2))
    assert broken_limits(limits, config, min_steps=1) is None


def test_every_broken_limit_states_law_values_and_remedy(config):
    limits = LimitSettings(
        memory_bytes=10, tokens_per_parameter=(1e6, 1e7), learning_rate=(1e-9, 1e-8)
    )
    text = broken_limits(limits, config, min_steps=10**6)
    assert text is not None
    for words in ("at least 1000000 steps", "at most 10 bytes", "tokens per parameter", "1e-08"):
        assert words in text


def test_a_larger_batch_needs_more_memory(config):
    larger = replace(
        config, training=replace(config.training, batch_sequences=10 * config.num_sequences)
    )
    limits = LimitSettings()
    assert predicted_memory_bytes(limits, larger) > predicted_memory_bytes(limits, config)


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi-random", "grid"])
def test_no_sampler_proposes_beyond_a_limit(sampler):
    limits = LimitSettings(memory_bytes=500_000, tokens_per_parameter=(0.1, 30))
    experiment = toy_experiment(
        trials=30, search={"sampler": sampler}, limits=limits.model_dump(), arms=["dual"]
    )
    free = toy_experiment(trials=30, search={"sampler": sampler}, arms=["dual"])
    within = [broken_limits(limits, r.proposal.config, min_steps=20) for r in play(free, bowl)]
    assert any(within), "the limits must bind for this test to say something"
    records = play(experiment, bowl)
    assert records
    for record in records:
        assert broken_limits(limits, record.proposal.config, min_steps=20) is None
