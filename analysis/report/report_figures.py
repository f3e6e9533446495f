"""Which figures does a report have? The same numbers for the page and for paper."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.isoflop.isoflop_curves import IsoflopCurve
from analysis.report.page_parts import LegendEntry, ReportFigure, flops
from analysis.show.figure_data import (
    CurvePanel,
    FrontierLine,
    GapPanel,
    LossFrontier,
    frontier_line,
    gap_panel,
    loss_frontier,
)
from analysis.show.palette import ArmStyle, budget_colours
from analysis.show.pareto_panel import MOST_MARKS, Cloud, ParetoPanel, drawn_curve, thinned
from analysis.sweep.pareto import COSTS, Candidate, ParetoFront
from analysis.sweep.sweep_fit import SweepFit
from spaces.arms.contract import shape_in_words


@dataclass(frozen=True, kw_only=True)
class FigureData:
    """What is drawn, with no more marks than can be told apart."""

    curves: tuple[CurvePanel, ...]
    lines: tuple[FrontierLine, ...]
    losses: tuple[LossFrontier, ...]
    gaps: tuple[GapPanel, ...]
    fronts: tuple[ParetoPanel, ...]
    left_unmarked: Mapping[str, tuple[int, int]]
    """Name of a figure to how many of its marks are drawn, and how many there are."""


def figure_data(fitted: SweepFit | None, fronts: Sequence[ParetoFront]) -> FigureData:
    """The data of every figure; empty where there is nothing to draw."""
    arms = () if fitted is None else fitted.arms
    trends = () if fitted is None else fitted.trends
    curves = [_curve_panel(arm.arm, arm.isoflop.curves) for arm in arms]
    panels = [_pareto_panel(front) for front in fronts if front.front]
    marked = {
        "isoflop_curves": (
            sum(len(curve.sizes) for panel in curves for curve in panel.curves),
            sum(len(curve.sizes) for arm in arms for curve in arm.isoflop.curves),
        ),
        "pareto": (
            sum(len(cloud.costs) for panel in panels for cloud in panel.clouds.values()),
            sum(len(front.candidates) for front in fronts),
        ),
    }
    return FigureData(
        curves=tuple(curves),
        lines=tuple(frontier_line(arm.arm, arm.isoflop) for arm in arms),
        losses=tuple(loss_frontier(arm.arm, arm.isoflop.curves) for arm in arms),
        gaps=tuple(gap_panel(trend) for trend in trends if trend.line is not None),
        fronts=tuple(panels),
        left_unmarked={name: pair for name, pair in marked.items() if pair[0] < pair[1]},
    )


def _curve_panel(arm: str, curves: Sequence[IsoflopCurve]) -> CurvePanel:
    most = MOST_MARKS // max(1, len(curves))
    return CurvePanel(title=arm, curves=tuple(drawn_curve(each, most) for each in curves))


def _pareto_panel(front: ParetoFront) -> ParetoPanel:
    arms: dict[str, list[Candidate]] = {}
    for each in front.candidates:
        arms.setdefault(each.record.proposal.arm, []).append(each)
    most = MOST_MARKS // max(1, len(arms))
    return ParetoPanel(
        label=COSTS[front.cost].label,
        clouds={arm: _cloud(arms[arm], front.cost, most) for arm in sorted(arms)},
        front_costs=np.array([_shown_cost(each, front.cost) for each in front.front]),
        front_losses=np.array([each.loss_nats for each in front.front]),
        front_arms=tuple(each.record.proposal.arm for each in front.front),
    )


def _cloud(candidates: Sequence[Candidate], cost: str, most: int) -> Cloud:
    costs = np.array([_shown_cost(each, cost) for each in candidates])
    losses = np.array([each.loss_nats for each in candidates])
    chosen = thinned(costs, losses, most)
    return Cloud(
        costs=costs[chosen],
        losses=losses[chosen],
        names=tuple(_name(candidates[place]) for place in chosen),
    )


def _shown_cost(candidate: Candidate, cost: str) -> float:
    return candidate.costs[cost] / COSTS[cost].unit_size


def _name(candidate: Candidate) -> str:
    proposal = candidate.record.proposal
    shape = shape_in_words(proposal.config.architecture)
    return f"{proposal.arm} {shape}, {flops(proposal.budget.train_flops or 0.0)} FLOPs"


def interactive_figures(
    data: FigureData, styles: Mapping[str, ArmStyle]
) -> dict[str, ReportFigure]:
    """The figures of a page by name; those without anything to draw are absent."""
    found = []
    if data.curves:
        found += [_curves(data), _frontier(data, styles)]
    if data.gaps:
        found.append(_gaps(data, styles))
    if data.fronts:
        found.append(_pareto(data, styles))
    return {figure.name: figure for figure in found}


def _curves(data: FigureData) -> ReportFigure:
    from analysis.show.interactive import budget_key, curve_panels

    budgets = _distinct([curve.budget for panel in data.curves for curve in panel.curves])
    colours = dict(
        zip(budgets, budget_colours([flops(each) for each in budgets]).values(), strict=True)
    )
    return ReportFigure(
        name="isoflop_curves",
        title="Iso-FLOP curves",
        caption="Loss of every run against its parameters; a colour for each budget. Line: "
        "parabola in the log size; star: its minimum; thick: sizes within 0.5 % of the minimum; "
        "dotted: no minimum." + _unmarked(data, "isoflop_curves"),
        panels=tuple(curve_panels(data.curves, colours)),
        legend=tuple(
            LegendEntry(name=budget_key(budget), label=budget_key(budget), colour=colour)
            for budget, colour in colours.items()
        ),
    )


def _frontier(data: FigureData, styles: Mapping[str, ArmStyle]) -> ReportFigure:
    from analysis.show.interactive import frontier_panels

    panels = tuple(frontier_panels(data.lines, data.losses, styles))
    sizes = (
        "Best size, N* ~ C^a: minima with 95 % intervals (cut at the panel's edge), the line "
        "through them with its 95 % band, dashed beyond the data. "
        if len(panels) > 1
        else "No curve has a minimum, hence there is no best size. "
    )
    return ReportFigure(
        name="frontier",
        title="Frontier",
        caption=f"{sizes}Lowest loss: that of the minimum at each budget; open marks: the lowest "
        "run, where the curve has no minimum.",
        panels=panels,
        legend=tuple(_entry(line.label, styles[line.label], line.told) for line in data.lines),
    )


def _gaps(data: FigureData, styles: Mapping[str, ArmStyle]) -> ReportFigure:
    from analysis.show.interactive import gap_panels

    arms = dict.fromkeys(arm for panel in data.gaps for arm in (panel.one, panel.other))
    return ReportFigure(
        name="arm_gaps",
        title="Gaps between arms over compute",
        caption="Loss of the second arm less that of the first, at the minima of their iso-FLOP "
        "curves, with 95 % intervals: above zero the first is better. A mark is that of the arm "
        "that is better there; line and 95 % band, dashed beyond the budgets; star and bar: where "
        "they are equal, and its interval.",
        panels=tuple(gap_panels(data.gaps, styles)),
        legend=tuple(_entry(arm, styles[arm]) for arm in arms),
    )


def _pareto(data: FigureData, styles: Mapping[str, ArmStyle]) -> ReportFigure:
    from analysis.show.interactive import pareto_panels

    arms = dict.fromkeys(arm for panel in data.fronts for arm in panel.clouds)
    return ReportFigure(
        name="pareto",
        title="What a loss costs",
        caption="Every configuration, mean over its seeds, all budgets together; the stair joins "
        "those that none as cheap beats." + _unmarked(data, "pareto"),
        panels=tuple(pareto_panels(data.fronts, styles)),
        legend=tuple(_entry(arm, styles[arm]) for arm in arms),
    )


def _entry(arm: str, style: ArmStyle, label: str | None = None) -> LegendEntry:
    return LegendEntry(name=arm, label=label or arm, colour=style.colour, glyph=style.glyph)


def _distinct(budgets: Sequence[float]) -> list[float]:
    """One of the budgets of each name in three digits: arms deliver them to a thousandth."""
    return list({f"{budget:.2g}": budget for budget in sorted(budgets)}.values())


def _unmarked(data: FigureData, name: str) -> str:
    """That marks were left out, where they were."""
    if name not in data.left_unmarked:
        return ""
    drawn, there = data.left_unmarked[name]
    return (
        f" Of {there:,} marks {drawn:,} are drawn: the lowest of every range, and every so many of "
        "the others; curves and fronts use all."
    )


def draw_on_paper(data: FigureData, folder: Path) -> list[Path]:
    """Every figure as PNG and SVG in a folder."""
    from analysis.show.figures import draw_frontier, draw_gaps, draw_isoflop, draw_pareto, save

    written: list[Path] = []
    if data.curves:
        written += save(draw_isoflop(data.curves), folder, "isoflop_curves")
        written += save(draw_frontier(data.lines, data.losses), folder, "frontier")
    if data.gaps:
        written += save(draw_gaps(data.gaps), folder, "arm_gaps")
    if data.fronts:
        written += save(draw_pareto(data.fronts), folder, "pareto")
    return written


def as_data_address(path: Path) -> str:
    """A picture as an address that needs no file."""
    return "data:image/svg+xml;base64," + base64.b64encode(path.read_bytes()).decode()
