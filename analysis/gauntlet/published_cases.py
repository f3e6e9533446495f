"""What did others publish from data that we hold too? Each case, refitted.

Every case yields its figures as published and as we get them, with the tolerance of
``expected.json``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.fit.fitting import fit
from analysis.isoflop.isoflop_fit import fit_isoflop
from analysis.isoflop.power_line import power_line
from analysis.laws.law import FloatArray
from analysis.laws.law_registry import law_named
from analysis.objective.estimators import Estimator
from analysis.objective.newton import Batch
from analysis.points.checked_points import Points
from analysis.points.table_reading import points_from
from analysis.solve.resampling import refit, weights_of
from analysis.solve.solving import Solution, solve

CHINCHILLA_ROLES = {"params": "Model Size", "flops": "Training FLOP", "loss": "loss"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One published figure beside ours."""

    case: str
    """Name in ``expected.json``."""
    figure: str
    """Which figure of the case."""
    published: float
    ours: float
    tolerance: float
    """Absolute."""

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return abs(self.ours - self.published) <= self.tolerance

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "case": self.case,
            "figure": self.figure,
            "published": self.published,
            "ours": self.ours,
            "tolerance": self.tolerance,
            "passed": self.passed,
        }


def chinchilla_points(reference: Path, *, below_flops: float | None = None) -> Points:
    """The 240 rows with a loss strictly under the fifth largest; below some FLOPs where asked."""
    frame = pl.read_csv(reference / "chinchilla" / "svg_extracted_data.csv")
    fifth = frame["loss"].sort(descending=True)[4]
    frame = frame.filter(pl.col("loss") < fifth)
    points = points_from(
        frame, ("params", "tokens"), roles=CHINCHILLA_ROLES, tokens_from_flops="6nd"
    )
    if below_flops is None:
        return points
    assert points.flops is not None
    return points.select(points.flops < below_flops, f"FLOPs of {below_flops:g} and more")


def _solved(points: Points, estimator: Estimator, law: str = "chinchilla") -> Solution:
    return solve(points, law_named(law), estimator)


def _compare(
    case: str,
    expected: Mapping[str, Any],
    ours: Mapping[str, float],
    tolerances: Mapping[str, float],
) -> Iterator[Comparison]:
    for figure, tolerance in tolerances.items():
        yield Comparison(
            case=case,
            figure=figure,
            published=float(expected[figure]),
            ours=float(ours[figure]),
            tolerance=tolerance,
        )


def _huber(case: str, expected: dict[str, Any], reference: Path) -> Iterator[Comparison]:
    points, tol = chinchilla_points(reference), expected["tol"]
    tolerances = {
        "E": tol["E_abs"],
        "A": tol["A_rel"] * expected["A"],
        "B": tol["B_rel"] * expected["B"],
        "alpha": tol["alpha_beta_abs"],
        "beta": tol["alpha_beta_abs"],
        "objective_sum": tol["objective_rel"] * expected["objective_sum"],
    }
    for reduction in ("sum", "mean"):
        solution = _solved(points, Estimator(delta=1e-3, reduction=reduction))
        total = solution.objective * (1 if reduction == "sum" else points.num_rows)
        ours = {**solution.optimum, "objective_sum": total}
        yield from _compare(f"{case} ({reduction})", expected, ours, tolerances)


def _lad(case: str, expected: dict[str, Any], reference: Path) -> Iterator[Comparison]:
    tol = expected["tol"]
    solution = _solved(chinchilla_points(reference), Estimator(name="lad"))
    yield from _compare(
        case,
        expected,
        {**solution.optimum, "L1_sum": solution.objective},
        {
            "E": tol["E_abs"],
            "A": tol["A_rel"] * expected["A"],
            "B": tol["B_rel"] * expected["B"],
            "alpha": tol["alpha_beta_abs"],
            "beta": tol["alpha_beta_abs"],
            "L1_sum": tol["L1_rel"] * expected["L1_sum"],
        },
    )


def published_resamples(points: Points, num: int = 4000) -> FloatArray:
    """Weights (num, n) of the published bootstrap: seed 42, rows drawn with replacement."""
    state = np.random.RandomState(42)
    rows = np.arange(points.num_rows)
    draws = np.stack([state.choice(rows, points.num_rows, replace=True) for _ in range(num)])
    return weights_of(draws, points.num_rows)


def _bootstrap(case: str, expected: dict[str, Any], reference: Path) -> Iterator[Comparison]:
    points = chinchilla_points(reference)
    solution = _solved(points, Estimator(delta=1e-3))
    base = points.batch(on_logs=True)
    batch = Batch(base.losses, published_resamples(points), base.scale)
    found = refit(solution.surface, solution.inner, batch, solution.estimator, kind="pairs")
    names, tol = solution.law.parameters, expected["tol"]
    for name, published in zip(("A", "B", "E", "alpha", "beta"), expected["row0"], strict=True):
        ours = float(found.outer[0, names.index(name)])
        yield Comparison(
            case=case,
            figure=f"first resample {name}",
            published=published,
            ours=ours,
            tolerance=tol["row0_rel"] * published,
        )
    for name, published in expected["se"].items():
        draws = found.outer[:, names.index(name)]
        low, high = np.quantile(draws, [0.025, 0.975])
        ends = expected["ci95"][name]
        for figure, theirs, ours, part in (
            (f"standard error {name}", published, float(draws.std()), tol["se_rel"]),
            (f"2.5 % {name}", ends[0], float(low), tol["ci_rel"]),
            (f"97.5 % {name}", ends[1], float(high), tol["ci_rel"]),
        ):
            yield Comparison(
                case=case, figure=figure, published=theirs, ours=ours, tolerance=part * theirs
            )


def _squares(case: str, expected: dict[str, Any], reference: Path) -> Iterator[Comparison]:
    points = chinchilla_points(reference, below_flops=1e21)
    solution = _solved(points, Estimator(name="mse"))
    ours = dict(solution.optimum)
    ours["A"] *= 1e6 ** -ours["alpha"]
    ours["B"] *= 1e9 ** -ours["beta"]
    ours["rss"] = solution.objective
    figures = ("E", "A", "B", "alpha", "beta", "rss")
    tolerances = {name: expected["tol"]["rel"] * expected[name] for name in figures}
    yield from _compare(case, expected, ours, tolerances)


def approach2_table(
    values: Mapping[str, float], factor: float, budgets: FloatArray | None = None
) -> pl.DataFrame:
    """Noise-free iso-FLOP grids of a Chinchilla law: 15 sizes from N*/factor to factor N*."""
    from analysis.laws.derived_quantities import optimal_params

    frames = []
    for flops in np.geomspace(1e17, 1e21, 5) if budgets is None else budgets:
        best = float(optimal_params(values, flops))
        params = np.geomspace(best / factor, best * factor, 15)
        tokens = flops / (6.0 * params)
        loss = values["E"] + values["A"] * params ** -values["alpha"]
        loss = loss + values["B"] * tokens ** -values["beta"]
        frames.append(
            pl.DataFrame(
                {"flops": np.full(15, flops), "params": params, "tokens": tokens, "loss": loss}
            )
        )
    return pl.concat(frames)


APPROACH2_LAWS = {
    "chinchilla": {"E": 1.69, "alpha": 0.34, "beta": 0.28, "A": 406.4, "B": 410.7},
    "asymmetric": {"E": 1.69, "alpha": 0.465, "beta": 0.155, "A": 406.4, "B": 410.7},
    "symmetric": {"E": 1.69, "alpha": 0.31, "beta": 0.31, "A": 400.0, "B": 400.0},
}


def _approach2(case: str, expected: dict[str, Any], reference: Path) -> Iterator[Comparison]:
    from analysis.laws.derived_quantities import optimal_params

    tolerance = expected["tol"]["abs_percent_points"]
    for name, law in APPROACH2_LAWS.items():
        truth = 1e24 / (6.0 * float(optimal_params(law, 1e24)))
        for factor in (2, 4, 8, 16):
            found = fit_isoflop(approach2_table(law, float(factor)), at_flops=(1e24,))
            assert found.token_line is not None
            assert found.surface is not None
            published = expected[name]
            yield Comparison(
                case=case,
                figure=f"{name}, sizes x{factor}: bias of D* at 1e24 (%)",
                published=published[str(factor)] if isinstance(published, dict) else published,
                ours=100.0 * (found.token_line.at(1e24)[0] / truth - 1.0),
                tolerance=tolerance,
            )
            worst = max(abs(found.surface.optimum[p] / v - 1.0) for p, v in law.items())
            yield Comparison(
                case=case,
                figure=f"{name}, sizes x{factor}: worst relative error of the surface fit",
                published=0.0,
                ours=worst,
                tolerance=1e-9,
            )


def _porian(case: str, expected: dict[str, Any], reference: Path) -> Iterator[Comparison]:
    optima = pl.read_csv(reference / "porian" / "optimal_pairs.csv")
    points = pl.read_csv(reference / "porian" / "isoflop_points.csv")
    for key, published in expected.items():
        if "/" not in key:
            continue
        rows = optima.filter((pl.col("key") == key) & pl.col("n_star").is_not_null())
        columns = [rows[name].to_numpy() for name in ("flops", "n_star", "n_star_std")]
        yield Comparison(
            case=case,
            figure=f"{key}: a from optima",
            published=published,
            ours=power_line(*columns).exponent,
            tolerance=expected["tol"]["abs"],
        )
        found = fit_isoflop(
            points.filter(pl.col("key") == key),
            roles={"params": "n", "tokens": "t"},
            method="akima",
            with_surface=False,
        )
        assert found.size_line is not None
        yield Comparison(
            case=case,
            figure=f"{key}: a from points",
            published=published,
            ours=found.size_line.exponent,
            tolerance=expected["tol"]["from_points_abs"],
        )


def _looped(case: str, expected: dict[str, Any], reference: Path) -> Iterator[Comparison]:
    found = fit(
        "loop-power",
        reference / "looped" / "synthetic_exact.csv",
        roles={
            "num_loops": "r",
            "params_once": "N_once",
            "params_deep": "N_rec",
            "tokens": "D",
        },
        num_resamples=100,
    )
    figures = ("phi", "alpha", "beta", "E", "A", "B")
    tolerances = {name: expected["tol"]["rel"] * expected[name] for name in figures}
    yield from _compare(case, expected, found.optimum, tolerances)


Case = Callable[[str, dict[str, Any], Path], Iterator[Comparison]]

_CHINCHILLA = ("chinchilla/svg_extracted_data.csv",)

CASES: dict[str, tuple[tuple[str, ...], Case]] = {
    "chinchilla_n240_huber_lse_1e-3": (_CHINCHILLA, _huber),
    "chinchilla_n240_lad_equals_published": (_CHINCHILLA, _lad),
    "chinchilla_n240_bootstrap_epoch_seed42": (_CHINCHILLA, _bootstrap),
    "chinchilla_217_vpnls": (_CHINCHILLA, _squares),
    "a2_bias_pct_Dstar_1e24": ((), _approach2),
    "porian_weighted_a": (
        ("porian/optimal_pairs.csv", "porian/isoflop_points.csv"),
        _porian,
    ),
    "looped_exact": (("looped/synthetic_exact.csv",), _looped),
}
"""Case in ``expected.json`` -> files that it needs, and how it is refitted."""
