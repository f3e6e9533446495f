"""Laws: analytic derivatives, registry, and a user's own law in ten lines."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from analysis.fit.fitting import fit
from analysis.laws.law import Columns, Law, Shape, Term
from analysis.laws.law_registry import law_named, law_names, register
from spaces.errors import RequestError

NAMES = [name for name in law_names() if name != "isoflop"]


def columns_for(law: Law, num: int = 9) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(5)
    columns = {role: 10.0 ** generator.uniform(6, 9, num) for role in law.roles}
    for role in ("num_loops", "num_loops_test"):
        if role in columns:
            columns[role] = generator.integers(1, 9, num).astype(float)
    return columns


@pytest.mark.parametrize("name", NAMES)
def test_size_derivatives_are_analytic(name: str) -> None:
    law = law_named(name)
    columns = columns_for(law)
    shape = {p: law.bounds_of(p).grid(5)[2] for p in law.shape}
    for term in law.terms:
        _, slopes = term.log_size(columns, shape)
        assert len(slopes) == len(term.shape)
        for parameter, slope in zip(term.shape, slopes, strict=True):
            moved = {**shape, parameter: shape[parameter] + 1e-30j}
            complex_step = term.log_size(columns, moved)[0].imag / 1e-30
            np.testing.assert_allclose(slope, complex_step, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_contract_names(name: str) -> None:
    law = law_named(name)
    assert law.parameters == (*law.linear, *law.nonlinear)
    assert law.offset == "E"
    for parameter in law.nonlinear:
        bounds = law.bounds_of(parameter)
        assert bounds.low <= bounds.grid_low < bounds.grid_high <= bounds.high


def test_loop_forms_at_four_loops() -> None:
    """Extra effective parameters per looped parameter at K = 4: 0.32, 0.89 and 3."""
    columns = {
        "params_once": np.array([0.0]),
        "params_deep": np.array([1.0]),
        "num_loops": np.array([4.0]),
    }
    shapes = {
        "loop-bounded": ({"k1": 0.368, "k2": 1.40}, 0.32),
        "loop-power": ({"phi": 0.459}, 0.89),
        "loop-linear": ({}, 3.0),
    }
    for name, (shape, extra) in shapes.items():
        size, _ = law_named(name).terms[0].log_size(columns, shape)
        assert float(np.exp(size[0])) - 1.0 == pytest.approx(extra, abs=0.01)


def test_unknown_law_lists_the_known() -> None:
    with pytest.raises(RequestError, match="no law is called 'cosmic'; use one of power, chinch"):
        law_named("cosmic")


def test_a_law_of_your_own() -> None:
    def log_of_tokens(columns: Columns, shape: Shape) -> tuple[Any, tuple[Any, ...]]:
        return np.log(columns["tokens"]), ()

    register(
        Law(
            name="tokens-only",
            formula="L = E + B tokens^-beta",
            roles=("tokens",),
            terms=(Term(coefficient="B", exponent="beta", log_size=log_of_tokens),),
        )
    )
    tokens = np.geomspace(1e6, 1e9, 20)
    found = fit("tokens-only", pl.DataFrame({"tokens": tokens, "loss": 2.0 + 90 * tokens**-0.3}))
    assert found.status == "ok"
    assert found.optimum == pytest.approx({"E": 2.0, "B": 90.0, "beta": 0.3}, rel=1e-9)
