"""What runs share of the noise."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.fit.fitting import fit
from analysis.points.table_reading import points_from
from analysis.solve.noise_components import noise_components
from analysis.solve.resampling import kind_for
from experiments.benchmarks.laws.noise_coverage import NoiseCoverageOptions, measure
from spaces.errors import RequestError
from tests.analysis.planted import budget_table, chinchilla_table

GROUPS, SIZE = 40, 8
LABELS = np.repeat(np.arange(GROUPS), SIZE)
CROSSED = np.tile(np.arange(SIZE), GROUPS) + SIZE * (LABELS // 10)
"""Trunks: a row of each of ten budgets."""


def planted_noise(shares: tuple[float, float], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    own = np.sqrt(1 - sum(shares)) * random.normal(size=len(LABELS))
    for share, labels in zip(shares, (LABELS, CROSSED), strict=True):
        own += np.sqrt(share) * random.normal(size=labels.max() + 1)[labels]
    return np.asarray(0.003 * own)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_a_planted_share_is_found(share: float) -> None:
    slopes = np.stack([np.ones(len(LABELS)), np.linspace(-1, 1, len(LABELS))], axis=1)
    found = noise_components(planted_noise((share, 0.0)), slopes, [LABELS])
    assert found.mean_shares[0] == pytest.approx(share, abs=0.1)
    assert found.degrees_of_freedom == len(LABELS) - 2
    drawn = found.draw(400, np.random.default_rng(1))
    assert drawn.std() == pytest.approx(0.003, rel=0.1)
    means = drawn.reshape(400, GROUPS, SIZE).mean(2)
    assert (means.std() / drawn.std()) ** 2 == pytest.approx(
        share + (1 - share) / SIZE, rel=0.25, abs=0.02
    )


def test_budgets_and_trunks_cross() -> None:
    slopes = np.ones((len(LABELS), 1))
    found = noise_components(planted_noise((0.2, 0.6), seed=3), slopes, [LABELS, CROSSED])
    np.testing.assert_allclose(found.mean_shares, [0.2, 0.6], atol=0.15)


def test_the_likelihood_ignores_what_a_law_absorbs() -> None:
    slopes = np.stack([np.ones(len(LABELS)), np.linspace(-1, 1, len(LABELS))], axis=1)
    noise = planted_noise((0.5, 0.0))
    one = noise_components(noise, slopes, [LABELS])
    other = noise_components(noise + slopes @ [3.0, -2.0], slopes, [LABELS])
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-6)


def test_components_need_groups() -> None:
    points = points_from(chinchilla_table(), ("params", "tokens"))
    with pytest.raises(RequestError, match="--resample components"):
        kind_for(points, "components")


def test_a_fit_holds_them_and_its_certificate_says_so() -> None:
    found = fit("chinchilla", budget_table(), num_resamples=200)
    assert "runs of one budget share" in found.certificate.assumes
    assert found.status == "ok"
    jackknife = fit("chinchilla", budget_table(), resample_kind="jackknife")
    assert dict(found.jackknife) == dict(jackknife.intervals)
    assert jackknife.jackknife == {}
    for name, value in (("alpha", 0.348), ("beta", 0.366)):
        low, high = found.interval(name) or (np.nan, np.nan)
        assert low < value < high
        ends = jackknife.interval(name)
        assert ends is not None
        assert high - low < 1.3 * (ends[1] - ends[0])


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_intervals_cover_near_the_ideal_width(shared: float) -> None:
    options = NoiseCoverageOptions(sweeps=100, resamples=199)
    components = measure("chinchilla", 6, shared, options)[0]
    for name in ("alpha", "beta", "a"):
        assert components["coverage_percent"][name] >= 89
        assert components["width_over_ideal"][name] <= 1.35


def test_the_jackknife_is_told_of_trunks_and_few_budgets_are_named() -> None:
    table = budget_table().with_columns(trunk=pl.Series([f"run {i % 7}" for i in range(42)]))
    plain = fit("chinchilla", table, resample_kind="jackknife")
    assert plain.certificate.has("ignores-trunks")
    found = fit("chinchilla", table, num_resamples=100)
    assert not found.certificate.has("ignores-trunks")
    assert "runs of one trunk share" in found.certificate.assumes
    assert not found.certificate.has("few-budgets")
    four = fit("chinchilla", budget_table().head(28), num_resamples=100)
    assert four.certificate.has("few-budgets")
