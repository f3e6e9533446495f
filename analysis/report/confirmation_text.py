"""What was forecast, and did it come true? A line or two for each forecast."""

from __future__ import annotations

import time

from analysis.sweep.confirmation import Confirmation
from search.record.forecasts import Forecast
from spaces.arms.contract import shape_in_words


def forecast_text(forecast: Forecast) -> str:
    """Shape, tokens and loss as they were written down."""
    config, (low, high) = forecast.proposal.config, forecast.run_interval_nats
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(forecast.written_at))
    return (
        f"{forecast.family} at {forecast.train_flops:.4g} FLOPs, forecast {written} from "
        f"{forecast.num_rows} results up to {forecast.largest_train_flops:.3g} FLOPs: "
        f"{forecast.proposal.arm}, {shape_in_words(config.architecture)}, {forecast.parameters:,} "
        f"parameters, {config.tokens:,} tokens: loss {forecast.loss_nats:.4f} nats, one run "
        f"[{low:.4f}, {high:.4f}] (95 %: parameters of the law, and residual with seed noise)"
    )


def confirmation_text(confirmation: Confirmation) -> str:
    """The forecast, then what was measured, the miss, and the luck of seeds beside it."""
    head, mean, miss = (
        forecast_text(confirmation.forecast),
        confirmation.mean_loss_nats,
        confirmation.miss_nats,
    )
    if mean is None or miss is None:
        return f"{head}\n  not measured yet: no run of it has ended with a loss"
    count, spread = len(confirmation.losses_nats), confirmation.seed_spread_nats
    over = f"{count} seeds, {spread:.4f} apart" if spread is not None else "one seed"
    noise = confirmation.forecast.seed_noise_nats
    known = "unknown, without replicates" if noise is None else f"{noise:.4f} nats"
    verdict = "inside" if confirmation.is_inside else "OUTSIDE"
    return (
        f"{head}\n  measured {mean:.4f} nats ({over}): a miss of {miss:+.4f} nats, {verdict} the "
        f"interval; seed noise of the sweep {known}"
    )
