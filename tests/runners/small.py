"""Which trials are small enough to train in a test? Toy shapes of every arm on the default text."""

from __future__ import annotations

from typing import Any

from runners.text.corpus import Corpus
from search.record.trial import TrainingRecipe, TrialConfig
from spaces.architecture import Architecture

SIZES: dict[str, dict[str, Any]] = {
    "dual": {"num_loops": 2, "deep_ffn": 24, "wide_ffn": 40},
    "loop": {"num_loops": 3, "deep_ffn": 24},
    "wide": {"wide_ffn": 40},
    "standard": {"deep_ffn": 24},
    "moe": {"own": {"num_experts": 4, "top_k": 2, "expert_ffn": 24}},
}


def small_architecture(arm: str, **changes: Any) -> Architecture:
    """Width 16, two layers, context 16, bytes."""
    fields: dict[str, Any] = {
        "num_layers": 2,
        "d_model": 16,
        "head_dim": 8,
        "context_length": 16,
        "vocab_size": 256,
    }
    return Architecture(arm=arm, **(fields | SIZES[arm] | changes))


def small_trial(corpus: Corpus, arm: str = "dual", **changes: Any) -> TrialConfig:
    """Eleven steps of four sequences, the last of two; recipe fields go into the recipe."""
    recipe: dict[str, Any] = {"learning_rate": 0.01, "batch_sequences": 4}
    fields: dict[str, Any] = {
        "architecture": small_architecture(arm),
        "tokens": 16 * 42,
        "text_fingerprint": corpus.fingerprint,
        "eval_sequences": 8,
        "eval_points": 2,
    }
    for name, value in changes.items():
        (recipe if name in TrainingRecipe.__dataclass_fields__ else fields)[name] = value
    return TrialConfig(training=TrainingRecipe(**recipe), **fields)
