"""Is a step's memory near what a GPU took? And a micro-batch the most that fits?"""

from __future__ import annotations

from typing import Any

import pytest

from search.limits.memory import fitting_micro_batch, training_memory_bytes
from spaces.architecture import Architecture

MEASURED_MB: list[tuple[str, int, int, int, int | None, int | None, int, int, float]] = [
    # arm, width, layers, K, deep, wide, vocabulary, sequences; experiments/LOG.md, 2026-11-25
    ("dual", 640, 8, 2, 640, 2560, 8192, 32, 11216.7),
    ("dual", 128, 2, 1, 128, 128, 256, 8, 151.0),
    ("wide", 640, 8, 1, None, 640, 32768, 32, 3847.3),
    ("loop", 192, 2, 4, 768, None, 256, 32, 1409.1),
    ("standard", 512, 2, 1, 2048, None, 32768, 32, 1581.7),
]


def architecture(row: tuple[str, int, int, int, int | None, int | None, int]) -> Architecture:
    arm, d_model, num_layers, num_loops, deep, wide, vocabulary = row
    return Architecture(
        arm=arm,
        d_model=d_model,
        num_layers=num_layers,
        num_loops=num_loops,
        deep_ffn=deep,
        wide_ffn=wide,
        head_dim=64,
        context_length=512,
        vocab_size=vocabulary,
    )


@pytest.mark.parametrize("row", MEASURED_MB, ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_peak_is_within_8_percent_of_the_measured_one(row: Any) -> None:
    *shape, sequences, measured_mb = row
    predicted = training_memory_bytes(architecture(tuple(shape)), sequences=sequences)
    assert predicted == pytest.approx(measured_mb * 1e6, rel=0.08)


def test_a_micro_batch_is_the_batch_halved_until_it_fits() -> None:
    model = architecture(MEASURED_MB[0][:7])
    room = training_memory_bytes(model, sequences=8)
    assert fitting_micro_batch(model, sequences=64, memory_bytes=room) == 8
    assert fitting_micro_batch(model, sequences=4, memory_bytes=room) == 4
    assert fitting_micro_batch(model, sequences=64, memory_bytes=1) == 1
