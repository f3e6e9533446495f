"""The named losses of residuals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from analysis.objective.estimators import LAD_DELTA, Estimator
from spaces.errors import RequestError


@given(st.floats(-0.5, 0.5), st.floats(1e-6, 0.3))
def test_huber_is_scipys(residual: float, delta: float) -> None:
    estimator = Estimator(delta=delta)
    ours = estimator.objective(np.array([residual]))
    assert ours == pytest.approx(special.huber(delta, residual), rel=1e-12, abs=1e-18)


@pytest.mark.parametrize("name", ["huber", "lad", "log-mse", "mse"])
def test_slopes_are_derivatives(name: str) -> None:
    estimator = Estimator(name=name, delta=0.05)  # type: ignore[arg-type]
    residuals = np.array([-0.3, -0.04, 0.02, 0.2])
    delta = estimator.turning_point
    value, slope, bend = estimator.rounded(residuals, delta)
    step = 1e-6
    up, down = (estimator.rounded(residuals + s, delta) for s in (step, -step))
    np.testing.assert_allclose((up[0] - down[0]) / (2 * step), slope, rtol=1e-5)
    np.testing.assert_allclose((up[1] - down[1]) / (2 * step), bend, atol=1e-6)
    assert (value >= 0).all()


def test_reductions_differ_by_the_number_of_rows() -> None:
    residuals = np.array([0.1, -0.2, 0.003])
    for name in ("huber", "lad", "log-mse", "mse"):
        total = Estimator(name=name).objective(residuals)  # type: ignore[arg-type]
        mean = Estimator(name=name, reduction="mean").objective(residuals)  # type: ignore[arg-type]
        assert total == pytest.approx(3 * mean, rel=1e-15)


def test_rounded_lad_is_lad() -> None:
    residuals = np.array([0.3, -0.001])
    value, slope, _ = Estimator(name="lad").rounded(residuals, LAD_DELTA)
    np.testing.assert_allclose(value / LAD_DELTA, np.abs(residuals), atol=LAD_DELTA)
    np.testing.assert_array_equal(slope / LAD_DELTA, np.sign(residuals))


def test_wrong_requests() -> None:
    with pytest.raises(RequestError, match="an estimator is one of huber, lad, log-mse, mse"):
        Estimator(name="l2")  # type: ignore[arg-type]
    for delta in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(RequestError, match="delta must be positive and finite"):
            Estimator(delta=delta)
