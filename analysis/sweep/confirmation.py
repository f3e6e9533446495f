"""Did what was predicted come true? Every forecast of a sweep beside the runs that test it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from search.belief.seed_noise import configuration_key
from search.record.forecasts import Forecast, confirming_sweep
from search.record.ledger import Ledger
from search.record.trial_records import TrialRecord, loss_of


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """A forecast and the losses of its runs."""

    forecast: Forecast
    losses_nats: tuple[float, ...]
    """By seed, nats per token; empty before the first run has ended."""

    @property
    def mean_loss_nats(self) -> float | None:
        """Over the seeds, nats."""
        return fmean(self.losses_nats) if self.losses_nats else None

    @property
    def miss_nats(self) -> float | None:
        """Mean measured loss less the predicted one, nats."""
        mean = self.mean_loss_nats
        return None if mean is None else mean - self.forecast.loss_nats

    @property
    def seed_spread_nats(self) -> float | None:
        """Standard deviation over these seeds, nats; None with fewer than two."""
        return stdev(self.losses_nats) if len(self.losses_nats) > 1 else None

    @property
    def is_inside(self) -> bool | None:
        """Whether the mean lies in the interval of one run; None before there is one."""
        mean, (low, high) = self.mean_loss_nats, self.forecast.run_interval_nats
        return None if mean is None else low <= mean <= high

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        forecast, shape = self.forecast, self.forecast.proposal
        architecture = shape.config.architecture
        return {
            "family": forecast.family,
            "arm": shape.arm,
            "train_flops": forecast.train_flops,
            "config_hash": shape.config_hash,
            "num_layers": architecture.num_layers,
            "d_model": architecture.d_model,
            "parameters": forecast.parameters,
            "tokens": shape.config.tokens,
            "peak_learning_rate": shape.config.training.learning_rate,
            "predicted_loss_nats": forecast.loss_nats,
            "law_interval_nats": [*forecast.law_interval_nats],
            "run_interval_nats": [*forecast.run_interval_nats],
            "seed_noise_nats": forecast.seed_noise_nats,
            "outside_data_factor": forecast.outside_data_factor,
            "law": forecast.law,
            "num_rows": forecast.num_rows,
            "largest_train_flops": forecast.largest_train_flops,
            "code_version": forecast.code_version,
            "written_at": forecast.written_at,
            "measured_losses_nats": [*self.losses_nats],
            "mean_loss_nats": self.mean_loss_nats,
            "seed_spread_nats": self.seed_spread_nats,
            "miss_nats": self.miss_nats,
            "is_inside": self.is_inside,
        }


def confirmations(ledger: Ledger, sweep: str) -> list[Confirmation]:
    """Every forecast of a sweep with what its runs measured, by budget and family."""
    found = []
    for forecast in ledger.forecasts(sweep):
        name = confirming_sweep(sweep, forecast.train_flops)
        records = ledger.trials(name) if ledger.find_sweep(name) is not None else []
        found.append(Confirmation(forecast=forecast, losses_nats=_losses(forecast, records)))
    return found


def _losses(forecast: Forecast, records: Sequence[TrialRecord]) -> tuple[float, ...]:
    key = configuration_key(forecast.proposal)
    mine = [r for r in records if r.is_result and configuration_key(r.proposal) == key]
    return tuple(loss_of(r) for r in sorted(mine, key=lambda r: r.proposal.config.init_seed))
