"""Which trials may train side by side on one device? As many as it has room and use for.

A step of a small model leaves most of a GPU idle: its kernels are short, and each waits for the one
before. Steps of other models, each on a stream of its own, fill the gaps, until together they keep
the device busy; from there on one more makes all of them slower.
"""

from __future__ import annotations

from collections.abc import Sequence

from search.limits.memory import training_memory_bytes
from search.record.trial import TrialConfig
from spaces.flops import train_flops_per_token

LARGEST_PACK = 8
"""Most trials side by side where nothing else is said: more bring little."""
BUSY_STEP_FLOPS = 4.5e11
"""`full` training FLOPs of the steps of a pack, from which on one more brings little: measured on
an H100, widths 64 to 384, 2,048 to 8,192 tokens a step (experiments/LOG.md)."""
FULL_PACK_SPEED = 3.0
"""Of a full pack over one trial after another: 2.0 to 3.6 on an H100 (the same measurement)."""

FEWEST_STEPS = 400
"""A shorter trial is over before capturing its step once more, in a lane of its own, pays."""


def step_flops(config: TrialConfig) -> float:
    """Training FLOPs of one optimizer step, in the ``full`` convention."""
    tokens = config.training.batch_sequences * config.architecture.context_length
    return float(train_flops_per_token(config.architecture).full * tokens)


def may_join(config: TrialConfig, beside: Sequence[TrialConfig], *, most: int) -> bool:
    """Whether a trial is worth training beside those that a device trains already.

    ``most``: trials of a pack. The first always is.
    """
    if not beside:
        return True
    if len(beside) >= most:
        return False
    return step_flops(config) + sum(map(step_flops, beside)) <= BUSY_STEP_FLOPS


def fits_beside(config: TrialConfig, *, free_bytes: float) -> bool:
    """Whether what is free of a device's memory is predicted to hold a trial's whole batch."""
    sequences = config.training.batch_sequences
    return training_memory_bytes(config.architecture, sequences=sequences) <= free_bytes


def share_in_pack(config: TrialConfig, *, most: int) -> float:
    """A trial's time in a pack of its like, over its time alone: 1/3 where ``most`` fit, 1 where
    it fills a device by itself."""
    beside = min(most, max(1.0, BUSY_STEP_FLOPS / step_flops(config)))
    if config.num_steps < FEWEST_STEPS or most == 1:
        return 1.0
    return 1 / (1 + (FULL_PACK_SPEED - 1) * (beside - 1) / (most - 1))
