"""Do the schedules follow their formulas at every step that matters?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.engine.schedule import learning_rate_at, warmup_steps
from search.record.trial import Schedule, TrainingRecipe

RECIPE = TrainingRecipe(learning_rate=1.0, batch_sequences=1, warmup_fraction=0.1)


def rates(recipe: TrainingRecipe, num_steps: int) -> list[float]:
    return [learning_rate_at(step, recipe, num_steps=num_steps) for step in range(num_steps)]


def test_cosine_warms_up_peaks_halves_and_ends_at_the_floor() -> None:
    found = rates(RECIPE, 101)
    assert found[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)], abs=1e-15)
    assert found[10] == 1.0
    assert found[55] == pytest.approx(0.55, abs=1e-12)
    assert found[100] == pytest.approx(0.1, abs=1e-12)
    assert found[10:] == sorted(found[10:], reverse=True)


def test_wsd_is_flat_then_falls_linearly() -> None:
    recipe = TrainingRecipe(
        learning_rate=2.0, batch_sequences=1, schedule="wsd", decay_fraction=0.2, warmup_fraction=0
    )
    found = rates(recipe, 100)
    assert found[:80] == [2.0] * 80
    assert found[80:] == pytest.approx([2.0 - 1.8 * (i + 1) / 20 for i in range(20)], abs=1e-12)


@given(
    schedule=st.sampled_from(["cosine", "wsd"]),
    warmup=st.floats(0, 1),
    decay=st.floats(0, 1),
    num_steps=st.integers(1, 50),
)
def test_rates_stay_between_nothing_and_the_peak(
    schedule: Schedule, warmup: float, decay: float, num_steps: int
) -> None:
    recipe = TrainingRecipe(
        learning_rate=3.0,
        batch_sequences=1,
        schedule=schedule,
        warmup_fraction=warmup,
        decay_fraction=decay,
    )
    found = rates(recipe, num_steps)
    assert all(0 < rate <= 3.0 for rate in found)
    assert warmup_steps(recipe, num_steps=num_steps) <= num_steps
