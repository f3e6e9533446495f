"""Where tokens go, on paper: means with intervals, and curves of layers over training."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis.show.figures import STYLE
from analysis.show.palette import COLOURS, NEUTRAL, budget_colours

Interval = tuple[float, float]


def draw_means(
    names: Sequence[str],
    means: Sequence[float],
    intervals: Sequence[Interval | None],
    *,
    measure: str,
    title: str,
) -> Figure:
    """A row for each name, the first on top: its mean, and its 95 % interval where there is one."""
    with rc_context(STYLE):
        figure = Figure(figsize=(4.2, 0.9 + 0.22 * len(names)), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.add_subplot()
        rows = range(len(names))[::-1]
        for row, mean, interval in zip(rows, means, intervals, strict=True):
            if interval is not None:
                axis.plot(interval, (row, row), "-", color=COLOURS[0], linewidth=1.2)
            colour = NEUTRAL if interval is None else COLOURS[0]
            axis.plot(mean, row, "o", color=colour, markersize=3.5)
        axis.set_yticks(list(rows), list(names))
        axis.set_xlabel(measure)
        axis.set_title(title, fontsize=8.5, loc="left")
        return figure


def draw_training(
    tokens: Sequence[int], values: Sequence[Sequence[float]], *, measure: str, title: str
) -> Figure:
    """A line for each layer over training tokens; ``values`` is (points, layers)."""
    with rc_context(STYLE):
        figure = Figure(figsize=(3.8, 3.0), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.add_subplot()
        layers = [str(layer + 1) for layer in range(len(values[0]))]
        for layer, colour in enumerate(budget_colours(layers).values()):
            line = [point[layer] for point in values]
            axis.plot(tokens, line, "o-", color=colour, markersize=2.5, label=layers[layer])
        axis.set_xlabel("training tokens")
        axis.set_ylabel(measure)
        axis.legend(title="layer", title_fontsize=7.5, ncols=max(1, len(layers) // 8))
        axis.set_title(title, fontsize=8.5, loc="left")
        return figure
