"""What is drawn is exact, and drawing writes PNG and SVG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.fit.fitting import fit
from analysis.isoflop.isoflop_fit import IsoflopFit, fit_isoflop
from analysis.report.further_findings import extras_of
from analysis.show.figure_data import (
    CurvePanel,
    frontier_line,
    loss_frontier,
    residual_cloud,
    surface_frontier,
)
from analysis.show.figures import draw_frontier, draw_isoflop, save, short_count
from tests.analysis.planted import budget_table, chinchilla_table


@pytest.fixture(scope="module")
def curves() -> IsoflopFit:
    return fit_isoflop(budget_table(noise=0.002))


def test_the_frontier_is_the_line_and_its_band(curves: IsoflopFit) -> None:
    drawn = frontier_line("dual", curves)
    line = curves.size_line
    assert line is not None
    for place in (0, 50, 119):
        value, (low, high) = line.at(float(drawn.flops[place]))
        assert (drawn.line[place], drawn.low[place], drawn.high[place]) == (value, low, high)
    assert drawn.flops[-1] == pytest.approx(10 * drawn.budgets.max())
    np.testing.assert_array_equal(drawn.fitted > 0, drawn.flops <= drawn.budgets.max())
    assert drawn.exponent == curves.parameters["a"]
    np.testing.assert_allclose(drawn.sizes, [curve.n_star for curve in curves.curves])


def test_an_arm_without_optima_has_no_line() -> None:
    flat = fit_isoflop(budget_table(noise=0.0, num_sizes=3), with_surface=False)
    drawn = frontier_line("loop", flat)
    assert len(drawn.flops) == len(drawn.budgets) == 0
    assert drawn.exponent is None
    lowest = loss_frontier("loop", flat.curves)
    np.testing.assert_array_equal(lowest.from_curve, 0)
    np.testing.assert_allclose(lowest.losses, [curve.losses.min() for curve in flat.curves])


def test_residuals_are_relative() -> None:
    found = fit("chinchilla", chinchilla_table(), num_resamples=50)
    cloud = residual_cloud(found)
    predicted = found(**{role: found.points.columns[role] for role in found.law.roles})
    np.testing.assert_allclose(cloud.residuals_percent, 100 * (predicted / found.points.losses - 1))
    assert [label for label, _ in cloud.columns] == ["parameters", "training tokens"]
    assert found.noise is not None
    assert cloud.noise_percent == 100 * found.noise.residual_std


def test_figures_are_written_twice_and_alike(tmp_path: Path, curves: IsoflopFit) -> None:
    panels = [CurvePanel(title="dual", curves=curves.curves)]
    figure = draw_isoflop(panels)
    (axis,) = figure.axes
    assert axis.get_xlabel() == "parameters"
    assert axis.get_ylabel() == "loss (nats per token)"
    paths = save(figure, tmp_path / "a", "isoflop_curves")
    assert [path.suffix for path in paths] == [".png", ".svg"]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    again = save(draw_isoflop(panels), tmp_path / "b", "isoflop_curves")
    assert again[1].read_bytes() == paths[1].read_bytes()


def test_a_frontier_is_dashed_beyond_the_data(curves: IsoflopFit) -> None:
    lines = [frontier_line("dual", curves)]
    figure = draw_frontier(lines, [loss_frontier("dual", curves.curves)])
    styles = {line.get_linestyle(): line for line in figure.axes[0].get_lines()}
    largest = lines[0].budgets.max()
    assert max(styles["-"].get_xdata()) <= largest
    assert max(styles["--"].get_xdata()) == pytest.approx(10 * largest)
    assert figure.axes[0].get_xlabel() == "training FLOPs"


def test_the_frontier_of_a_surface_is_the_algebra() -> None:
    found = fit("chinchilla", budget_table(), at_flops=(1e18, 3e21))
    drawn = surface_frontier(found)
    assert drawn is not None
    for row, flops in ((0, 1e18), (-1, 3e21)):
        assert drawn.flops[row] == pytest.approx(flops, rel=1e-6)
        for name, band in (("n_star", drawn.params), ("loss", drawn.loss)):
            entry = found.derived_value(name, at_flops=flops)
            assert entry is not None
            assert entry.interval is not None
            assert band[row] == pytest.approx((entry.value, *entry.interval), rel=1e-6)
    assert drawn.fitted[0] == 1
    assert drawn.fitted[-1] == 0
    assert surface_frontier(fit("chinchilla", chinchilla_table()[:3])) is None


def test_extras_draw_what_there_is(tmp_path: Path) -> None:
    found = fit("chinchilla", budget_table())
    extras = extras_of(found, profiles=["beta"], hold_out="largest-budget")
    names = {path.name for path in extras.draw(tmp_path)}
    assert names == {
        f"{name}.{kind}"
        for name in ("residuals", "frontier", "profile_beta", "rehearsal")
        for kind in ("png", "svg")
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [(950, "950"), (1e3, "1k"), (2e4, "20k"), (1.5e6, "1.5M"), (3e9, "3B"), (1e12, "1T")],
)
def test_short_counts(value: float, text: str) -> None:
    assert short_count(value) == text
