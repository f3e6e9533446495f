"""How is it drawn? Every figure as PNG and SVG, by matplotlib, which only this room knows.

A fitted line is solid over the fitted range and dashed beyond; intervals are always shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.fit.profile import Profile
from analysis.fit.rehearsal import Rehearsal
from analysis.isoflop.isoflop_curves import IsoflopCurve
from analysis.show.figure_data import (
    CurvePanel,
    FrontierLine,
    GapPanel,
    LossFrontier,
    ResidualCloud,
    SurfaceFrontier,
    size_range,
)
from analysis.show.palette import COLOURS, MANY_MARKS, NEUTRAL, ArmStyle, arm_styles, budget_colours
from analysis.show.pareto_panel import ParetoPanel

STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "svg.hashsalt": "isoflop",
    "svg.fonttype": "none",
}

PANEL_INCHES = (3.6, 3.0)
PNG_DOTS_PER_INCH = 200


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg`` into ``folder`` (made where absent)."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png", folder / f"{name}.svg"]
    with rc_context(STYLE):
        figure.savefig(paths[0], dpi=PNG_DOTS_PER_INCH)
        figure.savefig(paths[1], metadata={"Date": None})
    return paths


def _plain(name: str) -> str:
    """A name that is no mathematics, whatever it holds."""
    return name.replace("$", r"\$")


def _panels(num: int) -> tuple[Figure, list[Any]]:
    columns = 2 if num == 4 else min(num, 3)
    rows = -(-num // columns)
    figure = Figure(
        figsize=(PANEL_INCHES[0] * columns, PANEL_INCHES[1] * rows), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(num)]
    return figure, axes


def _draw_curve(axis: Any, curve: IsoflopCurve, colour: str) -> None:
    size = 3.5 if len(curve.sizes) < MANY_MARKS else 2.0
    axis.plot(curve.sizes, curve.losses, "o", color=colour, markersize=size, alpha=0.8)
    if curve.n_star is None or curve.regret_set is None:
        axis.plot(curve.grid, curve.grid_losses, ":", color=colour, linewidth=1.0)
        return
    axis.plot(curve.grid, curve.grid_losses, "-", color=colour, linewidth=1.0)
    inside = (curve.grid >= curve.regret_set[0]) & (curve.grid <= curve.regret_set[1])
    regret = (curve.grid[inside], curve.grid_losses[inside])
    axis.plot(*regret, color=colour, linewidth=5.0, alpha=0.25, solid_capstyle="butt")
    star = {"markersize": 13, "markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 5}
    axis.plot(curve.n_star, curve.loss_star, "*", color=colour, **star)


def _shown(curve: IsoflopCurve) -> str:
    """A curve's budget in two digits: what runs of several arms delivered differs in the fourth."""
    return f"{curve.budget:.2g}"


def _log_scale(axis: Any, *, counts: bool = False) -> None:
    """A logarithmic x axis with readable ticks: 20k, 1M, 3B for counts, powers of ten else."""
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    narrow = high / low < (300.0 if counts else 20.0)
    axis.xaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0) if narrow else (1.0,)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    if counts:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    elif narrow:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0e}"))


def short_count(value: float) -> str:
    """A count in three characters or so: 20k, 1.5M, 3B, 1T."""
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def draw_isoflop(panels: Sequence[CurvePanel]) -> Figure:
    """Loss against size: runs, curve, minimum (star) and regret set (thick) of every budget.

    Panels share the loss axis and the budgets' colours, so that arms can be compared by eye.
    """
    budgets = sorted({_shown(curve) for panel in panels for curve in panel.curves}, key=float)
    colours = budget_colours(budgets)
    with rc_context(STYLE):
        figure, axes = _panels(max(1, len(panels)))
        for axis, panel in zip(axes, panels, strict=False):
            if axis is not axes[0]:
                axis.sharey(axes[0])
            for curve in panel.curves:
                _draw_curve(axis, curve, colours[_shown(curve)])
            _log_scale(axis, counts=True)
            axis.set_xlabel("parameters")
            axis.set_ylabel("loss (nats per token)")
            found = sum(curve.n_star is not None for curve in panel.curves)
            axis.set_title(f"{_plain(panel.title)}: {found} of {len(panel.curves)} with a minimum")
        handles = [
            Line2D([], [], marker="o", linestyle="-", color=colour, label=f"{budget} FLOPs")
            for budget, colour in colours.items()
        ]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=max(1, min(4, len(handles))),
            title="star: minimum; thick: within 0.5 % of it; dotted: no minimum",
            title_fontsize=7.5,
        )
        return figure


def _sparse_count(value: float, _: object) -> str:
    """Labels of minor ticks: only twice and five times a power of ten."""
    leading = round(value / 10.0 ** np.floor(np.log10(value)))
    return short_count(value) if leading in (2, 5) else ""


def draw_frontier(lines: Sequence[FrontierLine], losses: Sequence[LossFrontier]) -> Figure:
    """N* against C with its band, and the lowest loss against C, one colour per arm."""
    with rc_context(STYLE):
        figure, (left, right) = _panels(2)
        styles = arm_styles([*(each.label for each in lines), *(each.label for each in losses)])
        for line in lines:
            _draw_line(left, line, styles[line.label])
        for frontier in losses:
            _draw_losses(right, frontier, styles[frontier.label])
        left.set_ylabel("optimal parameters N*")
        if any(len(line.sizes) for line in lines):
            left.set_yscale("log")
            left.set_ylim(*size_range(lines))
            left.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
            left.yaxis.set_minor_formatter(FuncFormatter(_sparse_count))
        else:
            left.set_yticks([])
            left.text(0.5, 0.5, "no curve has a minimum", ha="center", transform=left.transAxes)
        right.set_ylabel("lowest loss (nats per token)")
        right.set_title("filled: curve's minimum; open: best run", fontsize=8)
        for axis in (left, right):
            _log_scale(axis)
            axis.set_xlabel("training FLOPs")
            if axis.get_legend_handles_labels()[0]:
                axis.legend()
        return figure


def _draw_losses(axis: Any, frontier: LossFrontier, style: ArmStyle) -> None:
    curve, budgets, lowest = frontier.from_curve > 0, frontier.budgets, frontier.losses
    axis.plot(budgets, lowest, "-", color=style.colour, linewidth=0.8)
    mark = {"marker": style.marker, "color": style.colour, "markersize": 4, "linestyle": ""}
    axis.plot(budgets[curve], lowest[curve], label=_plain(frontier.label), **mark)
    axis.plot(budgets[~curve], lowest[~curve], fillstyle="none", **mark)


def _draw_line(axis: Any, line: FrontierLine, style: ArmStyle) -> None:
    colour, inside = style.colour, line.fitted > 0
    if len(line.flops):
        beyond = slice(max(0, int(inside.sum()) - 1), None)
        axis.plot(line.flops[inside], line.line[inside], "-", color=colour, linewidth=1.2)
        axis.plot(line.flops[beyond], line.line[beyond], "--", color=colour, linewidth=1.2)
        axis.fill_between(line.flops, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
        rows = np.isfinite(line.intervals).all(-1)
        axis.vlines(line.budgets[rows], *line.intervals[rows].T, color=colour, linewidth=0.8)
    mark = {"marker": style.marker, "color": colour, "markersize": 4, "linestyle": ""}
    axis.plot(line.budgets, line.sizes, label=_plain(line.told), **mark)


def draw_gaps(panels: Sequence[GapPanel]) -> Figure:
    """The gap of every two arms over compute with its line and band, and where it is zero; a dot
    has the colour of the arm that is better there."""
    styles = arm_styles([arm for panel in panels for arm in (panel.one, panel.other)])
    with rc_context(STYLE):
        figure, axes = _panels(max(1, len(panels)))
        for axis, panel in zip(axes, panels, strict=False):
            _draw_gap(axis, panel, styles)
        return figure


def _draw_gap(axis: Any, panel: GapPanel, styles: Mapping[str, ArmStyle]) -> None:
    inside = panel.fitted > 0
    axis.axhline(0.0, color="black", linewidth=0.6)
    axis.plot(panel.flops, panel.line[:, 0], "--", color=NEUTRAL, linewidth=1.2)
    axis.plot(panel.flops[inside], panel.line[inside, 0], "-", color=NEUTRAL, linewidth=1.2)
    band = (panel.line[:, 1], panel.line[:, 2])
    axis.fill_between(panel.flops, *band, color=NEUTRAL, alpha=0.15, linewidth=0)
    for budget, gap, ends, arm in zip(
        panel.budgets, panel.gaps, panel.intervals, panel.better, strict=True
    ):
        style = styles[arm]
        axis.vlines(budget, *ends, color=style.colour, linewidth=0.8)
        axis.plot(budget, gap, style.marker, color=style.colour, markersize=4)
    if panel.crossing is not None:
        zero, *ends = panel.crossing
        axis.plot(ends, [0.0, 0.0], "-", color="black", linewidth=3.0, alpha=0.35)
        axis.plot(zero, 0.0, "*", color="black", markersize=9)
    _log_scale(axis)
    axis.set_title(_plain(panel.title))
    axis.set_xlabel("training FLOPs")
    axis.set_ylabel(_plain(panel.label))


def draw_pareto(panels: Sequence[ParetoPanel]) -> Figure:
    """Loss against each cost by arm, and the front as a stair."""
    styles = arm_styles(dict.fromkeys(arm for panel in panels for arm in panel.clouds))
    with rc_context(STYLE):
        figure, axes = _panels(max(1, len(panels)))
        for axis, panel in zip(axes, panels, strict=False):
            _draw_front(axis, panel, styles)
            _log_scale(axis, counts=True)
            axis.set_xlabel(panel.label)
            axis.set_ylabel("loss (nats per token)")
        handles = [
            Line2D([], [], marker=style.marker, linestyle="", color=style.colour, label=_plain(arm))
            for arm, style in styles.items()
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)))
        return figure


def _draw_front(axis: Any, panel: ParetoPanel, styles: Mapping[str, ArmStyle]) -> None:
    for arm, cloud in panel.clouds.items():
        mark = {"marker": styles[arm].marker, "color": styles[arm].colour, "linestyle": ""}
        axis.plot(cloud.costs, cloud.losses, markersize=2.5, alpha=0.5, **mark)
    stair = (panel.front_costs, panel.front_losses)
    axis.step(*stair, where="post", color=NEUTRAL, linewidth=1.0)
    for cost, loss, arm in zip(*stair, panel.front_arms, strict=True):
        mark = {"marker": styles[arm].marker, "color": styles[arm].colour}
        axis.plot(cost, loss, markersize=5, markeredgecolor="black", markeredgewidth=0.5, **mark)


def draw_surface_frontier(frontier: SurfaceFrontier) -> Figure:
    """Frontier loss over the runs, and N*, each with its band; dashed beyond the runs."""
    with rc_context(STYLE):
        figure, (left, right) = _panels(2)
        left.plot(frontier.run_flops, frontier.run_losses, ".", color="0.6", label="runs")
        last = int(frontier.fitted.sum())
        for axis, band, colour in (
            (left, frontier.loss, COLOURS[0]),
            (right, frontier.params, COLOURS[1]),
        ):
            axis.plot(frontier.flops[:last], band[:last, 0], "-", color=colour)
            axis.plot(frontier.flops[last - 1 :], band[last - 1 :, 0], "--", color=colour)
            axis.fill_between(
                frontier.flops, band[:, 1], band[:, 2], color=colour, alpha=0.2, linewidth=0
            )
            _log_scale(axis)
            axis.set_xlabel("training FLOPs (C = 6 N D)")
        left.set_ylabel("loss (nats per token)")
        left.legend()
        right.set_yscale("log")
        right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
        right.set_ylabel("optimal parameters N*")
        return figure


def draw_residuals(cloud: ResidualCloud) -> Figure:
    """Relative residuals against every column, with the residual and the seed noise."""
    with rc_context(STYLE):
        figure, axes = _panels(max(1, len(cloud.columns)))
        for axis, (label, values) in zip(axes, cloud.columns, strict=False):
            axis.axhspan(
                -cloud.noise_percent,
                cloud.noise_percent,
                color="0.85",
                linewidth=0,
                label=f"residual noise {cloud.noise_percent:.2g} %",
            )
            if cloud.seed_percent is not None:
                for side in (-1, 1):
                    axis.axhline(side * cloud.seed_percent, color="0.4", linestyle=":")
            axis.plot(values, cloud.residuals_percent, "o", color=COLOURS[0], markersize=3)
            axis.axhline(0.0, color="black", linewidth=0.6)
            _log_scale(axis, counts=True)
            axis.set_xlabel(label)
            axis.set_ylabel("predicted / measured − 1 (%)")
            axis.legend()
        return figure


def draw_profile(profile: Profile) -> Figure:
    """The rise of the objective along one parameter, with the 95 % threshold."""
    with rc_context(STYLE):
        figure, (axis,) = _panels(1)
        axis.plot(profile.values, profile.rise, "-o", color=COLOURS[0], markersize=3)
        axis.axhline(profile.threshold, color="0.4", linestyle="--", label="95 %")
        axis.set_ylim(0.0, 5.0 * profile.threshold)
        axis.set_xlabel(profile.parameter)
        axis.set_ylabel("rise of the objective (likelihood-ratio units)")
        axis.legend()
        return figure


def draw_rehearsal(rehearsal: Rehearsal) -> Figure:
    """Predicted against measured loss of held-out runs, with the interval of one run."""
    with rc_context(STYLE):
        figure, (axis,) = _panels(1)
        measured, prediction = rehearsal.measured, rehearsal.prediction
        if prediction is not None:
            errors = np.stack(
                [
                    np.maximum(prediction.losses - prediction.run_low, 0.0),
                    np.maximum(prediction.run_high - prediction.losses, 0.0),
                ]
            )
            axis.errorbar(
                measured,
                prediction.losses,
                errors,
                fmt="o",
                color=COLOURS[0],
                markersize=3,
                linewidth=0.7,
                label=f"coverage {100 * (rehearsal.coverage or 0):.0f} %",
            )
            axis.legend()
        ends = [float(measured.min()), float(measured.max())]
        axis.plot(ends, ends, color="black", linewidth=0.6)
        axis.set_xlabel("measured loss (nats per token)")
        axis.set_ylabel("predicted loss (nats per token)")
        axis.set_title(f"held out: {rehearsal.hold_out}")
        return figure
