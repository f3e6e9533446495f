"""The speed that the benchmark promises, on the whole grid of starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.benchmarks.laws.fit_speed import SpeedOptions, measure


@pytest.mark.slow
def test_fifty_times_faster_than_the_grid(reference: Path) -> None:
    found = measure(SpeedOptions(reference=reference))
    point, bootstrap = found["point_fit"], found["bootstrap"]
    assert point["ours_seconds"] < 0.5
    assert point["ratio"] >= 50.0
    assert point["ours_objective"] <= point["grid_objective"] * (1 + 1e-9)
    assert bootstrap["ours_seconds"] < 5.0
    assert bootstrap["share_converged"] == 1.0
