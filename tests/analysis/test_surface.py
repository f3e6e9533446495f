"""The objective's gradient and Hessian, and the coordinates in which they are taken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.gauntlet.published_cases import chinchilla_points
from analysis.judge.identifiability import identifiability
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.objective.surface import Surface, jacobian, local_quadratic
from analysis.solve.solving import solve
from tests.analysis.test_laws import NAMES, columns_for


def surface_at(name: str, num: int = 9) -> tuple[Surface, np.ndarray]:
    law = law_named(name)
    columns = columns_for(law, num)
    surface = Surface(law, columns, 2.0)
    middle = [law.bounds_of(p).grid(5)[1] for p in law.nonlinear]
    return surface, np.array([[1.5, *([0.4] * len(law.terms)), *middle]])


@pytest.mark.parametrize("estimator", [Estimator(delta=0.3), Estimator(name="mse")])
@pytest.mark.parametrize("name", NAMES)
def test_gradient_and_hessian(name: str, estimator: Estimator) -> None:
    surface, inner = surface_at(name)
    generator = np.random.default_rng(1)
    losses = surface.predict(inner)[0] * np.exp(0.1 * generator.normal(size=9))
    weights, scale = generator.uniform(0.5, 2, 9), generator.uniform(0.8, 1.2, 9)
    delta = estimator.turning_point

    def at(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        q = local_quadratic(surface, point[None], losses, weights, scale, estimator, delta)
        return q.value[0], q.gradient[0], q.hessian[0]

    value, gradient, hessian = at(inner[0])
    step = 1e-6
    for place in range(surface.num_parameters):
        shift = np.zeros(surface.num_parameters)
        shift[place] = step
        up, down = at(inner[0] + shift), at(inner[0] - shift)
        assert (up[0] - down[0]) / (2 * step) == pytest.approx(gradient[place], rel=1e-5, abs=1e-7)
        np.testing.assert_allclose(
            (up[1] - down[1]) / (2 * step), hessian[place], rtol=1e-4, atol=1e-5
        )
    assert value > 0
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-12)


def test_jacobian_of_log_predictions() -> None:
    surface, inner = surface_at("compute-capacity")
    slopes = jacobian(surface, inner, on_logs=True)[0]
    for place in range(surface.num_parameters):
        shift = np.zeros(surface.num_parameters)
        shift[place] = 1e-6
        up, down = (np.log(surface.predict(inner + side * shift)[0]) for side in (1, -1))
        np.testing.assert_allclose((up - down) / 2e-6, slopes[place], rtol=1e-5, atol=1e-8)


@settings(max_examples=40, deadline=None)
@given(
    floor=st.floats(0.1, 5),
    first=st.floats(1, 1e4),
    second=st.floats(1, 1e5),
    alpha=st.floats(0.05, 1),
    beta=st.floats(0.05, 1),
)
def test_coordinates_are_inverse(
    floor: float, first: float, second: float, alpha: float, beta: float
) -> None:
    surface, _ = surface_at("chinchilla")
    outer = np.array([[floor, first, second, alpha, beta]])
    inner = surface.inner(outer)
    np.testing.assert_allclose(surface.outer(inner), outer, rtol=1e-10)
    direct = law_named("chinchilla").loss(
        surface.columns, dict(zip(surface.law.parameters, outer[0], strict=True))
    )
    np.testing.assert_allclose(surface.predict(inner)[0], direct, rtol=1e-10)


def test_centred_logs_are_well_conditioned(reference: Path) -> None:
    """Columns of unit length: condition 33 with centred logs, 220 without."""
    points = chinchilla_points(reference)
    found = solve(points, law_named("chinchilla"), Estimator())
    raw = Surface(found.law, points.columns, 2.0)
    raw.__dict__["centres"] = np.zeros(2)
    outer = raw.inner(found.surface.outer(found.inner))
    centred = identifiability(found.surface, found.inner, on_logs=True).condition
    assert centred == pytest.approx(33.0, rel=0.02)
    assert identifiability(raw, outer, on_logs=True).condition == pytest.approx(220, rel=0.02)
