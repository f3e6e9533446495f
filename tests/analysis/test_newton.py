"""The batched minimiser, its starts, and its idea of convergence."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from analysis.laws.law_registry import law_named
from analysis.objective.estimators import LAD_DELTA, Estimator
from analysis.objective.newton import Batch, delta_schedule, minimise
from analysis.points.table_reading import points_from
from analysis.solve.solving import solve
from analysis.solve.variable_projection import (
    grid_of,
    nonnegative_least_squares,
    starts_by_projection,
)
from tests.analysis.planted import CHINCHILLA, chinchilla_table

LAW = law_named("chinchilla")


def test_nonnegative_least_squares_agrees_with_scipy() -> None:
    generator = np.random.default_rng(0)
    for num in (2, 3, 4):
        designs = generator.normal(size=(200, 12, num))
        targets = generator.normal(size=(200, 12))
        across = np.swapaxes(designs, 1, 2)
        ours = nonnegative_least_squares(across @ designs, (across @ targets[..., None])[..., 0])
        for design, target, solved in zip(designs, targets, ours, strict=True):
            np.testing.assert_allclose(solved, optimize.nnls(design, target)[0], atol=1e-8)


@pytest.mark.parametrize("name", ["huber", "lad", "log-mse", "mse"])
def test_optimum_is_one(name: str) -> None:
    """No neighbour is better, and scipy's simplex search from the optimum finds nothing better."""
    points = points_from(chinchilla_table(), LAW.roles)
    estimator = Estimator(name=name)  # type: ignore[arg-type]
    found = solve(points, LAW, estimator)

    def objective(inner: np.ndarray) -> float:
        residuals = found.surface.residuals(inner[None], points.losses, estimator)[0]
        return float(estimator.objective(residuals))

    assert found.optima.converged.all()
    search = optimize.minimize(
        objective,
        found.inner,
        method="Nelder-Mead",
        options={"maxiter": 4000, "xatol": 1e-10, "fatol": 1e-14},
    )
    assert search.fun >= found.objective - 5 * LAD_DELTA * (name == "lad") - 1e-12


def test_batch_equals_one_by_one() -> None:
    points = points_from(chinchilla_table(), LAW.roles)
    found = solve(points, LAW, Estimator())
    generator = np.random.default_rng(2)
    weights = generator.integers(0, 4, (30, points.num_rows)).astype(float)
    starts = np.repeat(found.inner[None], 30, axis=0)
    scale = np.ones(points.num_rows)
    together = minimise(found.surface, starts, Batch(points.losses, weights, scale), Estimator())
    for row in (0, 13, 29):
        alone = minimise(
            found.surface, starts[:1], Batch(points.losses, weights[row], scale), Estimator()
        )
        np.testing.assert_allclose(together.inner[row], alone.inner[0], rtol=1e-7)


def test_no_iterations_is_no_convergence() -> None:
    points = points_from(chinchilla_table(), LAW.roles)
    found = solve(points, LAW, Estimator(), max_iterations=0)
    assert not found.optima.converged.any()
    assert found.optima.moved.max() == 0.0


def test_starts_are_not_neighbours_and_agree() -> None:
    points = points_from(chinchilla_table(), LAW.roles)
    surface = points.surface(LAW)
    batch = points.batch(on_logs=True)
    starts = starts_by_projection(surface, batch, Estimator(), num_starts=12)
    axis = np.unique(grid_of(surface)[0][:, 0])
    places = np.searchsorted(axis, starts[:, 3:] - 1e-9)
    for one in range(12):
        for two in range(one):
            assert np.abs(places[one] - places[two]).max() > 1
    optima = minimise(surface, starts, batch, Estimator())
    assert np.ptp(optima.objective) < 1e-12 * optima.objective.min()


def test_exact_data_is_found_exactly() -> None:
    found = solve(points_from(chinchilla_table(noise=0.0), LAW.roles), LAW, Estimator())
    assert found.optimum == pytest.approx(CHINCHILLA, rel=1e-9)
    assert found.optima.converged.all()


def test_deltas_fall_to_the_estimators() -> None:
    residuals = np.full((3, 10), 0.2)
    deltas = delta_schedule(Estimator(delta=1e-3), residuals)
    assert deltas[0] == pytest.approx(0.2)
    assert deltas[-1] == pytest.approx(1e-3)
    assert delta_schedule(Estimator(name="mse"), residuals) == [None]
    assert delta_schedule(Estimator(delta=1.0), residuals) == [1.0]
