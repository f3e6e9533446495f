"""Which laws ship? Power, Chinchilla, three forms of recurrence, and compute-capacity."""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.laws.law import Bounds, Columns, Law, LogSize, Shape, Term

PHI_BOUNDS = Bounds(low=-3.0, high=4.0, grid_low=-0.25, grid_high=1.5, geometric=False)
OMEGA_BOUNDS = Bounds(low=0.0, high=50.0, grid_low=0.05, grid_high=4.0)


POWER_VARIABLES = ("flops", "params", "tokens")
"""Roles that the power law may run over."""


def log_of(role: str) -> LogSize:
    """The plain logarithm of one column."""

    def log_size(columns: Columns, shape: Shape) -> tuple[Any, tuple[Any, ...]]:
        return np.log(columns[role]), ()

    return log_size


def power_law(role: str = "flops") -> Law:
    """``L = E + A role^-alpha`` over one column."""
    return Law(
        name="power",
        formula=f"L = E + A {role}^-alpha",
        roles=(role,),
        terms=(Term(coefficient="A", exponent="alpha", log_size=log_of(role)),),
        source="Hestness et al., arXiv 1712.00409",
    )


def _log_looped_size(columns: Columns, shape: Shape) -> tuple[Any, tuple[Any, ...]]:
    worth = columns["num_loops"] ** shape["phi"] * columns["params_deep"]
    size = columns["params_once"] + worth
    return np.log(size), (worth * np.log(columns["num_loops"]) / size,)


def _log_bounded_size(columns: Columns, shape: Shape) -> tuple[Any, tuple[Any, ...]]:
    extra, gain, reach = columns["num_loops"] - 1.0, shape["k1"], shape["k2"]
    decay = np.exp(-extra / reach)
    deep = columns["params_deep"]
    size = columns["params_once"] + deep * (1.0 + gain * (1.0 - decay))
    by_reach = -deep * gain * decay * extra / reach**2
    return np.log(size), (deep * (1.0 - decay) / size, by_reach / size)


def _log_linear_size(columns: Columns, shape: Shape) -> tuple[Any, tuple[Any, ...]]:
    return np.log(columns["params_once"] + columns["num_loops"] * columns["params_deep"]), ()


def _test_time_ratio(columns: Columns, shape: Shape) -> tuple[Any, tuple[Any, ...]]:
    return columns["num_loops_test"] / columns["num_loops"], ()


def _log_capacity_size(columns: Columns, shape: Shape) -> tuple[Any, tuple[Any, ...]]:
    deep = columns["num_loops"] ** shape["phi"] * columns["params_deep"]
    size = columns["params_once"] + deep + shape["omega"] * columns["params_wide"]
    return np.log(size), (deep * np.log(columns["num_loops"]) / size, columns["params_wide"] / size)


DATA_TERM = Term(coefficient="B", exponent="beta", log_size=log_of("tokens"))
LOOP_ROLES = ("params_once", "params_deep", "num_loops", "tokens")
PHI_PROTOCOL = (
    "phi depends on the protocol: iso-depth (layers x K constant) and iso-width designs differ; "
    "state which one the table holds"
)

STANDARD_LAWS = (
    power_law(),
    Law(
        name="chinchilla",
        formula="L = E + A params^-alpha + B tokens^-beta",
        roles=("params", "tokens"),
        terms=(Term(coefficient="A", exponent="alpha", log_size=log_of("params")), DATA_TERM),
        source="Hoffmann et al., arXiv 2203.15556, section 3.3",
    ),
    Law(
        name="loop-power",
        formula="L = E + A (params_once + K^phi params_deep)^-alpha + B tokens^-beta",
        roles=LOOP_ROLES,
        terms=(
            Term(coefficient="A", exponent="alpha", log_size=_log_looped_size, shape=("phi",)),
            DATA_TERM,
        ),
        bounds={"phi": PHI_BOUNDS},
        source="arXiv 2604.21106",
        protocol=PHI_PROTOCOL,
    ),
    Law(
        name="loop-bounded",
        formula=(
            "L = E + A (params_once + params_deep (1 + k1 (1 - exp(-(K - 1) / k2))))^-alpha"
            " + B tokens^-beta"
        ),
        roles=LOOP_ROLES,
        terms=(
            Term(coefficient="A", exponent="alpha", log_size=_log_bounded_size, shape=("k1", "k2")),
            DATA_TERM,
        ),
        bounds={
            "k1": Bounds(low=0.0, high=50.0, grid_low=0.05, grid_high=6.0),
            "k2": Bounds(low=0.02, high=100.0, grid_low=0.2, grid_high=12.0),
        },
        source="looped mixture-of-experts study, September 2026",
        protocol=PHI_PROTOCOL.replace("phi depends", "k1 and k2 depend"),
    ),
    Law(
        name="loop-linear",
        formula="L = E + A (params_once + K params_deep)^-alpha + B tokens^-beta",
        roles=LOOP_ROLES,
        terms=(Term(coefficient="A", exponent="alpha", log_size=_log_linear_size), DATA_TERM),
        source="Parcae, arXiv 2604.12946",
    ),
    Law(
        name="loop-linear-test-time",
        formula=(
            "L = E + A (params_once + K params_deep)^-alpha + B tokens^-beta + Z exp(-z K_test / K)"
        ),
        roles=(*LOOP_ROLES, "num_loops_test"),
        terms=(
            Term(coefficient="A", exponent="alpha", log_size=_log_linear_size),
            DATA_TERM,
            Term(coefficient="Z", exponent="z", log_size=_test_time_ratio),
        ),
        bounds={"z": Bounds(low=1e-3, high=50.0, grid_low=0.3, grid_high=10.0)},
        source="Parcae, arXiv 2604.12946",
    ),
    Law(
        name="compute-capacity",
        formula=(
            "L = E + A (params_once + K^phi params_deep + omega params_wide)^-alpha"
            " + B tokens^-beta"
        ),
        roles=("params_once", "params_deep", "params_wide", "num_loops", "tokens"),
        terms=(
            Term(
                coefficient="A",
                exponent="alpha",
                log_size=_log_capacity_size,
                shape=("phi", "omega"),
            ),
            DATA_TERM,
        ),
        bounds={"phi": PHI_BOUNDS, "omega": OMEGA_BOUNDS},
        source="this project; phi as in arXiv 2604.21106, omega relative to deep parameters at K=1",
        protocol=PHI_PROTOCOL,
    ),
)
