"""What was predicted before it was trained? Forecasts, which are written once and never changed.

The runs that put a forecast to the test are a sweep of their own, so that no law of the sweep that
made it ever sees them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from search.record.trial import Proposal
from spaces.errors import RequestError

LONGEST_NAME = 64
"""Characters of a sweep's name."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """An arm's best shape at a budget beyond those that it was fitted to, and its loss there."""

    family: str
    """The family of arms whose law predicts."""
    train_flops: float
    """The budget."""
    proposal: Proposal
    """Shape, tokens and recipe, with the first seeds."""
    parameters: int
    """All parameters of the shape."""
    loss_nats: float
    """Predicted, nats per token."""
    law_interval_nats: tuple[float, float]
    """95 % interval of the law: of the mean over many runs, nats."""
    run_interval_nats: tuple[float, float]
    """95 % interval of one run: the law's parameters, and the residual noise, which holds what the
    law lacks and the luck of a seed; nats."""
    seed_noise_nats: float | None
    """Standard deviation over seeds by the sweep's replicates; None without."""
    outside_data_factor: float
    """Furthest that its size or tokens lie beyond those fitted."""
    law: str
    """The law's formula."""
    num_rows: int
    """Results that it was fitted to."""
    largest_train_flops: float
    """The largest budget among them."""
    code_version: str
    """Of the code that made it."""
    written_at: float
    """Unix seconds."""

    def with_seeds(self, count: int) -> tuple[Proposal, ...]:
        """What is trained: the forecast's trial on so many seeds of weights and data order."""
        config = self.proposal.config
        return tuple(
            replace(
                self.proposal,
                purpose="replicate" if step else self.proposal.purpose,
                config=replace(
                    config,
                    init_seed=config.init_seed + step,
                    data_seed=config.data_seed + step,
                ),
            )
            for step in range(count)
        )


def flops_in_name(flops: float) -> str:
    """FLOPs as a name may hold them: 1e15, 2_5e15."""
    return f"{flops:.6g}".replace("+", "").replace(".", "_")


def confirming_sweep(sweep: str, flops: float) -> str:
    """The name of the sweep that trains a sweep's forecasts at a budget. Raises `RequestError`."""
    name = f"{sweep}-confirm-{flops_in_name(flops)}"
    if len(name) > LONGEST_NAME:
        raise RequestError(
            f"forecasts are trained as the sweep {name!r}, but a name has at most {LONGEST_NAME} "
            f"characters; give the experiment a shorter name"
        )
    return name
