"""Resamples and intervals."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.fit.fitting import fit
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.points.table_reading import points_from
from analysis.solve.resampling import Replicates, kind_for, resample, weights_of
from analysis.solve.solving import solve
from experiments.benchmarks.laws.fit_coverage import CoverageOptions, measure_cell
from spaces.errors import RequestError
from tests.analysis.planted import budget_table, chinchilla_table

LAW = law_named("chinchilla")


def test_counts_of_draws() -> None:
    draws = np.array([[0, 0, 2], [1, 1, 1]])
    np.testing.assert_array_equal(weights_of(draws, 4), [[2, 0, 1, 0], [0, 3, 0, 0]])


@pytest.mark.parametrize(
    "kind", ["components", "pairs", "clusters", "residual", "wild", "jackknife", "hessian"]
)
def test_kinds_are_reproducible_and_centred(kind: str) -> None:
    points = points_from(budget_table(), LAW.roles)
    found = solve(points, LAW, Estimator(name="log-mse"))

    def replicates(seed: int) -> Replicates:
        return resample(
            points,
            found.surface,
            found.inner,
            found.estimator,
            kind=kind,  # type: ignore[arg-type]
            num=200,
            seed=seed,
        )

    one, again, other = replicates(1), replicates(1), replicates(2)
    np.testing.assert_array_equal(one.outer, again.outer)
    assert one.share_converged == 1.0
    assert len(one.outer) == (6 if kind == "jackknife" else 200)
    if kind != "jackknife":
        assert not np.array_equal(one.outer, other.outer)
    beta = LAW.parameters.index("beta")
    assert np.median(one.outer[:, beta]) == pytest.approx(found.optimum["beta"], abs=0.02)


def test_jackknife_leaves_each_budget_out() -> None:
    table = budget_table()
    points = points_from(table, LAW.roles)
    found = solve(points, LAW, Estimator())
    replicates = resample(
        points, found.surface, found.inner, found.estimator, kind="jackknife", num=1, seed=0
    )
    assert points.budgets is not None
    for group in (0, 3, 5):
        rest = points.select(points.budgets != group, "left out")
        alone = solve(rest, LAW, Estimator())
        np.testing.assert_allclose(replicates.outer[group], list(alone.optimum.values()), rtol=1e-6)


def test_jackknife_of_a_mean_is_students_interval() -> None:
    """Of a mean, the delete-one jackknife with t is the textbook interval."""
    from scipy import stats

    values = np.array([2.0, 3.5, 1.0, 4.0, 2.2, 3.1])
    left_out = (values.sum() - values) / 5
    replicates = Replicates(
        kind="jackknife", outer=left_out[:, None], share_converged=1.0, num_groups=6
    )
    ends = replicates.interval(float(values.mean()), left_out, positive=False)
    assert ends == pytest.approx(
        stats.t.interval(0.95, 5, values.mean(), values.std(ddof=1) / np.sqrt(6)), rel=1e-8
    )


def test_percentiles_and_logs() -> None:
    draws = np.exp(np.linspace(-1, 1, 1001))
    replicates = Replicates(kind="pairs", outer=draws[:, None], share_converged=1.0, num_groups=0)
    ends = replicates.interval(1.0, draws, positive=True)
    assert ends == pytest.approx((np.exp(-0.95), np.exp(0.95)), rel=1e-8)
    wider = replicates.interval(1.0, draws, positive=True, noise=0.5)
    assert wider is not None
    assert wider[1] == pytest.approx(np.exp(np.hypot(0.95, 1.959964 * 0.5)), rel=1e-6)
    assert replicates.interval(float("nan"), draws, positive=False) is None
    assert replicates.interval(1.0, np.array([1.0]), positive=False) is None


def test_the_default_kind_follows_the_table() -> None:
    with_budgets, without = (points_from(t(), LAW.roles) for t in (budget_table, chinchilla_table))
    assert kind_for(with_budgets, "auto") == "components"
    assert kind_for(without, "auto") == "pairs"
    with pytest.raises(RequestError, match="needs at least 4 budgets, the table has 0"):
        kind_for(without, "clusters")
    with pytest.raises(RequestError, match="--resample takes auto, components, jackknife"):
        kind_for(without, "bayes")  # type: ignore[arg-type]


def test_clustered_noise_widens_the_default_and_not_pairs() -> None:
    generator = np.random.default_rng(11)
    table = budget_table(noise=0.001)
    shared = np.repeat(np.exp(0.01 * generator.normal(size=6)), 7)
    noisy = table.with_columns(loss=table["loss"] * shared)
    pairs = fit("chinchilla", noisy, resample_kind="pairs").intervals["E"]
    jackknife = fit("chinchilla", noisy, resample_kind="jackknife").intervals["E"]
    assert pairs is not None
    assert jackknife is not None
    assert jackknife[1] - jackknife[0] > 1.5 * (pairs[1] - pairs[0])


@pytest.mark.slow
@pytest.mark.parametrize("dependence", ["independent", "clustered"])
def test_the_default_covers(dependence: str) -> None:
    """The benchmark's first 300 sweeps; two standard errors about its 92 to 98 % are 3 points."""
    options = CoverageOptions(sweeps=300, resamples=99)
    rows = measure_cell("grid", dependence, options)  # type: ignore[arg-type]
    (row,) = [row for row in rows if row["kind"] == "jackknife"]
    covers = list(row["coverage_percent"].values())
    assert min(covers) >= 89.0
    assert max(covers) <= 99.5
    assert 93.0 <= sum(covers) / len(covers) <= 98.0
