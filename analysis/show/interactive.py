"""How are the same figures drawn for a page? The only module that knows plotly.

One value per panel; colours of text and grid are the page's, which is light or dark. A fitted line
is solid over the fitted range and dashed beyond, as on paper (`analysis.show.figures`).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from analysis.isoflop.isoflop_curves import IsoflopCurve
from analysis.laws.law import FloatArray
from analysis.show.figure_data import (
    CurvePanel,
    FrontierLine,
    GapPanel,
    LossFrontier,
    size_range,
)
from analysis.show.palette import MANY_MARKS, NEUTRAL, ArmStyle
from analysis.show.pareto_panel import ParetoPanel

HEIGHT = 340
"""Pixels of a panel."""

FEWEST_DECADES, MOST_DECADES = 0.7, 3.0
"""Between these an axis has 1, 2 and 5 of every power of ten as labels."""

OUTLINE = {"color": "white", "width": 1}
"""Of a mark that stands on others."""


@dataclass(frozen=True, kw_only=True)
class InteractivePanel:
    """A panel that a page draws; the ``meta`` of a trace is the legend's entry that shows it."""

    title: str
    figure_json: str
    """Data and layout, for plotly.js."""


def plotly_script() -> str:
    """plotly.js as one script."""
    script: str = get_plotlyjs()
    return script


def curve_panels(
    panels: Sequence[CurvePanel], colours: Mapping[float, str]
) -> list[InteractivePanel]:
    """Loss against size for every arm, on one loss axis; a colour for each budget."""
    low, high = _extent([curve.losses for panel in panels for curve in panel.curves])
    found = []
    for panel in panels:
        figure = _figure("parameters", "loss (nats per token)", counts=True)
        for curve in panel.curves:
            budget = _nearest(curve.budget, list(colours))
            _add_curve(figure, curve, colours[budget], group=budget_key(budget))
        figure.update_yaxes(range=[low, high])
        number = sum(curve.n_star is not None for curve in panel.curves)
        title = f"{panel.title}: {number} of {len(panel.curves)} budgets with a minimum"
        found.append(_panel(title, figure))
    return found


def budget_key(budget: float) -> str:
    """What a budget is called: in two digits, since arms deliver it to a thousandth."""
    return f"{budget:.2g} FLOPs"


def _nearest(budget: float, named: Sequence[float]) -> float:
    return min(named, key=lambda each: abs(np.log(each / budget)))


def _add_curve(figure: go.Figure, curve: IsoflopCurve, colour: str, *, group: str) -> None:
    budget = f"{curve.budget:.3g} FLOPs"
    told = f"{budget}<br>%{{x:.4s}} parameters<br>%{{y:.4f}} nats<extra></extra>"
    size = 6 if len(curve.sizes) < MANY_MARKS else 4
    runs = {"color": colour, "size": size, "opacity": 0.8}
    figure.add_scatter(
        x=curve.sizes,
        y=curve.losses,
        mode="markers",
        marker=runs,
        hovertemplate=told,
        meta=group,
    )
    if len(curve.grid):
        line = {"color": colour, "width": 1.5, "dash": "solid" if curve.n_star else "dot"}
        figure.add_scatter(
            x=curve.grid,
            y=curve.grid_losses,
            mode="lines",
            line=line,
            hoverinfo="skip",
            meta=group,
        )
    if curve.n_star is not None and curve.regret_set is not None:
        inside = (curve.grid >= curve.regret_set[0]) & (curve.grid <= curve.regret_set[1])
        figure.add_scatter(
            x=curve.grid[inside],
            y=curve.grid_losses[inside],
            mode="lines",
            line={"color": _faint(colour, 0.3), "width": 9},
            hoverinfo="skip",
            meta=group,
        )
        figure.add_scatter(
            x=[curve.n_star],
            y=[curve.loss_star],
            mode="markers",
            marker={"color": colour, "size": 14, "symbol": "star", "line": OUTLINE},
            hovertemplate=f"minimum at {told}",
            meta=group,
        )


def frontier_panels(
    lines: Sequence[FrontierLine], losses: Sequence[LossFrontier], styles: Mapping[str, ArmStyle]
) -> list[InteractivePanel]:
    """Best size against compute with its band, and the lowest loss against compute."""
    right = _figure("training FLOPs", "lowest loss (nats per token)")
    for frontier in losses:
        _add_losses(right, frontier, styles[frontier.label])
    return [*_best_sizes(lines, styles), _panel("Lowest loss over compute", right)]


def _best_sizes(
    lines: Sequence[FrontierLine], styles: Mapping[str, ArmStyle]
) -> list[InteractivePanel]:
    """A panel, or none where no curve has a minimum."""
    if not any(len(line.sizes) for line in lines):
        return []
    figure = _figure("training FLOPs", "optimal parameters N*")
    ends = np.array(size_range(lines))
    figure.update_yaxes(type="log", exponentformat="B", range=np.log10(ends), dtick=_ticks([ends]))
    for line in lines:
        _add_line(figure, line, styles[line.label])
    return [_panel("Best size over compute", figure)]


def _add_losses(figure: go.Figure, frontier: LossFrontier, style: ArmStyle) -> None:
    symbol, is_curve = style.symbol, frontier.from_curve > 0
    figure.add_scatter(
        x=frontier.budgets,
        y=frontier.losses,
        mode="lines+markers",
        name=_shown(frontier.label),
        line={"color": style.colour, "width": 1.5},
        marker={"symbol": [symbol if each else f"{symbol}-open" for each in is_curve], "size": 8},
        hovertemplate="%{x:.3g} FLOPs<br>%{y:.4f} nats",
        meta=frontier.label,
    )


def _add_line(figure: go.Figure, line: FrontierLine, style: ArmStyle) -> None:
    colour = style.colour
    _add_band(figure, line.flops, line.low, line.high, colour=colour, group=line.label)
    _add_line_of(figure, line.flops, line.line, line.fitted > 0, colour=colour, group=line.label)
    figure.add_scatter(
        x=line.budgets,
        y=line.sizes,
        mode="markers",
        name=_shown(line.label),
        marker={"color": colour, "size": 8, "symbol": style.symbol},
        error_y=_errors(line.sizes, line.intervals, colour),
        hovertemplate="%{x:.3g} FLOPs<br>N* %{y:.4s}",
        meta=line.label,
    )


def gap_panels(
    panels: Sequence[GapPanel], styles: Mapping[str, ArmStyle]
) -> list[InteractivePanel]:
    """The gap of every two arms over compute; a dot has the colour of the better arm."""
    return [_gap_panel(panel, styles) for panel in panels]


def _gap_panel(panel: GapPanel, styles: Mapping[str, ArmStyle]) -> InteractivePanel:
    figure = _figure("training FLOPs", _shown(panel.label))
    _add_band(figure, panel.flops, panel.line[:, 1], panel.line[:, 2], colour=NEUTRAL)
    _add_line_of(figure, panel.flops, panel.line[:, 0], panel.fitted > 0, colour=NEUTRAL)
    figure.add_hline(y=0.0, line_width=1, line_color=NEUTRAL)
    for budget, gap, ends, arm in zip(
        panel.budgets, panel.gaps, panel.intervals, panel.better, strict=True
    ):
        told = f"{_shown(arm)} is better<br>%{{x:.3g}} FLOPs<br>%{{y:+.4f}} nats<extra></extra>"
        figure.add_scatter(
            x=[budget],
            y=[gap],
            mode="markers",
            marker={"color": styles[arm].colour, "size": 9, "symbol": styles[arm].symbol},
            error_y=_errors(np.array([gap]), ends[None], styles[arm].colour),
            hovertemplate=told,
            meta=arm,
        )
    if panel.crossing is not None:
        zero, *ends = panel.crossing
        figure.add_scatter(
            x=ends, y=[0, 0], mode="lines", line={"color": NEUTRAL, "width": 6}, hoverinfo="skip"
        )
        figure.add_scatter(
            x=[zero],
            y=[0],
            mode="markers",
            marker={"color": NEUTRAL, "size": 14, "symbol": "star"},
            hovertemplate="equal at %{x:.3g} FLOPs<extra></extra>",
        )
    return _panel(panel.title, figure)


def pareto_panels(
    panels: Sequence[ParetoPanel], styles: Mapping[str, ArmStyle]
) -> list[InteractivePanel]:
    """Loss against each cost, and the front as a stair."""
    found = []
    for panel in panels:
        figure = _figure(panel.label, "loss (nats per token)", counts=True)
        for arm, cloud in panel.clouds.items():
            figure.add_scatter(
                x=cloud.costs,
                y=cloud.losses,
                mode="markers",
                name=_shown(arm),
                text=[_shown(name) for name in cloud.names],
                marker={
                    "color": styles[arm].colour,
                    "size": 6,
                    "opacity": 0.5,
                    "symbol": styles[arm].symbol,
                },
                hovertemplate="%{text}<br>%{x:.4s}<br>%{y:.4f} nats",
                meta=arm,
            )
        marks = [styles[arm].symbol for arm in panel.front_arms]
        figure.add_scatter(
            x=panel.front_costs,
            y=panel.front_losses,
            mode="lines+markers",
            name="front",
            line={"color": NEUTRAL, "width": 1.5, "shape": "hv"},
            marker={
                "color": [styles[arm].colour for arm in panel.front_arms],
                "size": 10,
                "symbol": marks,
                "line": {"color": NEUTRAL, "width": 1.5},
            },
            hovertemplate="on the front<br>%{x:.4s}<br>%{y:.4f} nats<extra></extra>",
        )
        found.append(_panel(f"Loss against {panel.label}", figure))
    return found


def _figure(x: str, y: str, *, counts: bool = False) -> go.Figure:
    """An empty panel; its first axis is logarithmic."""
    figure = go.Figure()
    margin = {"l": 64, "r": 12, "t": 24, "b": 48}
    figure.update_layout(template="none", margin=margin, height=HEIGHT, showlegend=False)
    power = {"exponentformat": "B" if counts else "power"}
    figure.update_xaxes(title_text=x, type="log", **power)
    figure.update_yaxes(title_text=y)
    return figure


def _panel(title: str, figure: go.Figure) -> InteractivePanel:
    reach = [np.asarray(trace.x, dtype=np.float64) for trace in figure.data]
    figure.update_xaxes(dtick=_ticks(reach))
    return InteractivePanel(title=title, figure_json=figure.to_json())


def _ticks(values: Sequence[FloatArray]) -> str | int | None:
    """Labels of a logarithmic axis: 1, 2 and 5 of every power of ten; only the powers where that
    is too many; None, plotly's own, where it is too few."""
    ends = [each for each in values if len(each)]
    if not ends:
        return None
    decades = np.log10(max(e.max() for e in ends) / min(e.min() for e in ends))
    if decades < FEWEST_DECADES:
        return None
    return "D2" if decades < MOST_DECADES else 1


def _add_band(
    figure: go.Figure,
    x: FloatArray,
    low: FloatArray,
    high: FloatArray,
    *,
    colour: str,
    group: str | None = None,
) -> None:
    figure.add_scatter(
        x=np.concatenate([x, x[::-1]]),
        y=np.concatenate([high, low[::-1]]),
        fill="toself",
        fillcolor=_faint(colour, 0.15),
        line={"width": 0},
        hoverinfo="skip",
        meta=group,
    )


def _add_line_of(
    figure: go.Figure,
    x: FloatArray,
    y: FloatArray,
    inside: Any,
    *,
    colour: str,
    group: str | None = None,
) -> None:
    """The whole line dashed, and its fitted range drawn over in one piece."""
    for rows, dash in ((slice(None), "dash"), (inside, "solid")):
        line = {"color": colour, "width": 2, "dash": dash}
        figure.add_scatter(
            x=x[rows], y=y[rows], mode="lines", line=line, hoverinfo="skip", meta=group
        )


def _errors(values: FloatArray, intervals: FloatArray, colour: str) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": intervals[:, 1] - values,
        "arrayminus": values - intervals[:, 0],
        "color": colour,
        "thickness": 1.2,
        "width": 3,
    }


def _extent(values: Sequence[FloatArray]) -> tuple[float, float]:
    """Least and most of all, with a little room."""
    low, high = min(v.min() for v in values), max(v.max() for v in values)
    room = 0.04 * (high - low) or 0.1
    return float(low - room), float(high + room)


def _faint(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _shown(name: str) -> str:
    """A name as plotly shows it, which reads some HTML."""
    return html.escape(name, quote=False)
