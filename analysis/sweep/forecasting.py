"""What will an arm's best shape lose at a larger budget? A forecast, or why there is none.

Of every depth the law chooses the width; of the depths, the one whose width over depth is nearest
to the arm's leader, since a law knows sizes and not aspects. The law must have its minimum among
the widths: at an end, the best shape is not among those that may be trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.fit.fit_result import WIDEST_PREDICTION, Fit, Prediction
from search.propose.confirming import Candidates
from search.record.forecasts import Forecast
from search.record.trial import Proposal
from spaces.errors import RequestError
from spaces.parameters import count_parameters


@dataclass(frozen=True, kw_only=True)
class NoForecast:
    """Why an arm is not trained at a larger budget."""

    family: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A shape, and what the law says of it."""

    shape: Proposal
    loss_nats: float
    law_interval_nats: tuple[float, float]
    run_interval_nats: tuple[float, float]
    outside_data_factor: float


def choose_shape(
    surface: Fit, found: Sequence[Candidates], leader: Proposal, flops: float
) -> Choice | str:
    """The shape of the lowest predicted loss, or why the law is not to be asked."""
    if not found:
        return (
            f"no shape of {leader.arm}'s axes fits {flops:.4g} FLOPs, the limits and what laws "
            f"describe (a token a parameter, four epochs); widen axes.d_model, or add text"
        )
    try:
        lowest = [(each, _lowest(surface, each)) for each in found]
    except RequestError as error:
        return str(error)
    inside = [(each, place) for each, place in lowest if 0 < place < len(each.shapes) - 1]
    if not inside:
        return _why_at_an_end(lowest, flops)
    depth, place = min(inside, key=lambda each: _unlike(each[0].shapes[each[1]], leader))
    shape = depth.shapes[place]
    prediction = _predicted(surface, [shape])
    if not prediction.told[0]:
        width = float(prediction.run_high[0] - prediction.run_low[0])
        return (
            f"the 95 % interval of a run there, {float(prediction.losses[0]):.4f} ± "
            f"{width / 2:.4f} nats, is wider than ±{WIDEST_PREDICTION:.0%} of the loss; add "
            f"budgets or seeds, or confirm at fewer FLOPs"
        )
    return Choice(
        shape=shape,
        loss_nats=float(prediction.losses[0]),
        law_interval_nats=(float(prediction.low[0]), float(prediction.high[0])),
        run_interval_nats=(float(prediction.run_low[0]), float(prediction.run_high[0])),
        outside_data_factor=float(prediction.outside_data_factor[0]),
    )


def forecast_of(
    choice: Choice,
    shape: Proposal,
    surface: Fit,
    *,
    seed_noise_nats: float | None,
    code_version: str,
    written_at: float,
) -> Forecast:
    """What is written down of a choice, ``shape`` being it at its rate."""
    runs = surface.points.flops
    assert runs is not None
    assert shape.budget.train_flops is not None
    return Forecast(
        family=shape.family,
        train_flops=shape.budget.train_flops,
        proposal=shape,
        parameters=count_parameters(shape.config.architecture).total,
        loss_nats=choice.loss_nats,
        law_interval_nats=choice.law_interval_nats,
        run_interval_nats=choice.run_interval_nats,
        seed_noise_nats=seed_noise_nats,
        outside_data_factor=choice.outside_data_factor,
        law=surface.law.formula,
        num_rows=surface.points.num_rows,
        largest_train_flops=float(runs.max()),
        code_version=code_version,
        written_at=written_at,
    )


def _predicted(surface: Fit, shapes: Sequence[Proposal]) -> Prediction:
    """Losses of shapes at their tokens. Raises `RequestError` where the law is refused."""
    totals = [count_parameters(shape.config.architecture).total for shape in shapes]
    return surface.predict(
        {
            "params": np.array(totals, dtype=np.float64),
            "tokens": np.array([shape.config.tokens for shape in shapes], dtype=np.float64),
        }
    )


def _lowest(surface: Fit, found: Candidates) -> int:
    """Which of a depth's widths has the lowest predicted loss."""
    return int(np.argmin(_predicted(surface, found.shapes).losses))


def _unlike(shape: Proposal, leader: Proposal) -> float:
    """How far the width over the depth is from the leader's, in log units."""
    mine, other = shape.config.architecture, leader.config.architecture
    aspect = mine.d_model / mine.num_layers
    return abs(math.log(aspect * other.num_layers / other.d_model))


def _why_at_an_end(lowest: Sequence[tuple[Candidates, int]], flops: float) -> str:
    widths = sorted({s.config.architecture.d_model for each, _ in lowest for s in each.shapes})
    best = sorted({each.shapes[place].config.architecture.d_model for each, place in lowest})
    return (
        f"the law's best width at {flops:.4g} FLOPs must lie among those that may be trained, "
        f"{', '.join(map(str, widths))}, but lies at their end ({', '.join(map(str, best))}); add "
        f"values to axes.d_model or axes.num_layers"
    )
