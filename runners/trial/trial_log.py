"""What is known of a running trial? Losses so far, the curve, and whether it still learns.

A trial has diverged when a loss is not finite, or when after the warm-up the mean training loss of
16 steps (at the trial's end, of what steps there are) exceeds ln(vocab_size) + 0.5 nats: worse than
knowing nothing, by a margin that noise does not cross. A high validation loss alone is no
divergence: a model that has learnt a short text by heart is a result, with a warning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from runners.engine.schedule import learning_rate_at, warmup_steps
from search.record.trial import CurvePoint, TrialConfig
from spaces.flops import train_flops_per_token

DIVERGENCE_MARGIN_NATS = 0.5
DIVERGENCE_WINDOW_STEPS = 16
TAIL_FRACTION = 0.1
"""The training loss of an outcome is the mean over this last share of the steps."""


def tail_steps(config: TrialConfig) -> int:
    """Last steps of a trial, whose mean is its training loss."""
    return max(1, round(TAIL_FRACTION * config.num_steps))


@dataclass(kw_only=True)
class RunningMean:
    """A weighted mean that grows."""

    total: float = 0.0
    """Sum of weight x value."""
    weight: float = 0.0
    """Sum of weights."""

    def add(self, value: float, weight: float) -> None:
        """Take one value in."""
        self.total += value * weight
        self.weight += weight

    @property
    def value(self) -> float | None:
        """The mean; None of nothing."""
        return self.total / self.weight if self.weight else None


@dataclass(kw_only=True)
class TrialLog:
    """The numbers of one trial, which a checkpoint carries as JSON."""

    config: TrialConfig
    """The trial."""
    step: int = 0
    """Optimizer steps whose losses are in here."""
    wall_seconds: float = 0.0
    """Training seconds of all attempts, measuring and saving excluded."""
    curve: list[CurvePoint] = field(default_factory=list)
    """The measured curve."""
    since_point: RunningMean = field(default_factory=RunningMean)
    """Training loss since the last point of the curve."""
    tail: RunningMean = field(default_factory=RunningMean)
    """Training loss of the last tenth of the steps."""
    recent: list[float] = field(default_factory=list)
    """Training losses of the last steps, for the divergence rule."""
    trunk_parent: str | None = None
    """The trial whose trunk this one goes on from."""
    trunk_step: int | None = None
    """The last step of that trunk, which the other trial paid for."""
    problem: str | None = None
    """The first law that the losses broke, with the values; None while all is well."""

    @property
    def tokens(self) -> int:
        """Training tokens of the steps so far."""
        return self.tokens_at(self.step)

    def tokens_at(self, step: int) -> int:
        """Training tokens of the trial's first steps."""
        return self.config.architecture.context_length * min(
            step * self.config.training.batch_sequences, self.config.num_sequences
        )

    def add_losses(self, losses_nats: Iterable[float]) -> None:
        """Take in the next steps' mean training losses."""
        for loss_nats in losses_nats:
            self.add_loss(loss_nats)

    def add_loss(self, loss_nats: float) -> None:
        """Take in the next step's mean training loss."""
        batch = self.config.training.batch_sequences
        sequences = min(batch, self.config.num_sequences - self.step * batch)
        self.since_point.add(loss_nats, sequences)
        if self.step >= self.config.num_steps - tail_steps(self.config):
            self.tail.add(loss_nats, sequences)
        self.recent = [*self.recent[1 - DIVERGENCE_WINDOW_STEPS :], loss_nats]
        self.step += 1
        self.problem = self.problem or self._training_problem()

    def add_point(
        self, val_loss_nats: float, readouts: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        """Close a stretch of the curve with a validation loss, and what was read with it."""
        per_token = train_flops_per_token(self.config.architecture).full
        self.curve.append(
            CurvePoint(
                step=self.step,
                tokens=self.tokens,
                train_flops=self.tokens * per_token,
                train_loss_nats=self.since_point.value,
                val_loss_nats=val_loss_nats,
                learning_rate=learning_rate_at(
                    self.step - 1, self.config.training, num_steps=self.config.num_steps
                ),
                wall_seconds=self.wall_seconds,
                readouts={
                    name: tuple(layers)
                    for name, layers in (readouts or {}).items()
                    if all(map(math.isfinite, layers))
                },
            )
        )
        self.since_point = RunningMean()
        if not math.isfinite(val_loss_nats):
            self.problem = (
                f"the validation loss at step {self.step} must be finite, got {val_loss_nats}"
            )

    def _training_problem(self) -> str | None:
        if not math.isfinite(self.recent[-1]):
            return f"the training loss of step {self.step} must be finite, got {self.recent[-1]}"
        warmup = warmup_steps(self.config.training, num_steps=self.config.num_steps)
        window = self.recent[-max(1, self.step - warmup) :]
        is_last = self.step == self.config.num_steps
        limit = math.log(self.config.architecture.vocab_size) + DIVERGENCE_MARGIN_NATS
        mean = sum(window) / len(window)
        if mean <= limit or not (is_last or len(window) == DIVERGENCE_WINDOW_STEPS):
            return None
        return (
            f"the mean training loss of {len(window)} steps must stay under ln(vocab_size) + "
            f"{DIVERGENCE_MARGIN_NATS} = {limit:.2f} nats, got {mean:.2f} at step {self.step}; "
            f"lower the learning rate"
        )

    def to_json(self) -> dict[str, Any]:
        """Everything but configuration and problem; floats survive JSON exactly."""
        values = asdict(self)
        del values["config"], values["problem"]
        return values

    @classmethod
    def from_json(cls, config: TrialConfig, values: dict[str, Any]) -> TrialLog:
        """What `to_json` gave."""
        return cls(
            config=config,
            step=values["step"],
            wall_seconds=values["wall_seconds"],
            curve=[_point(point) for point in values["curve"]],
            since_point=RunningMean(**values["since_point"]),
            tail=RunningMean(**values["tail"]),
            recent=list(values["recent"]),
            trunk_parent=values.get("trunk_parent"),
            trunk_step=values.get("trunk_step"),
        )


def _point(values: dict[str, Any]) -> CurvePoint:
    readouts = {name: tuple(layers) for name, layers in values.get("readouts", {}).items()}
    return CurvePoint(**values | {"readouts": readouts})
