"""What does a trial leave? Its log, device and text summed up as one `Outcome`."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from runners.engine.validation import Measurement
from runners.machine.device import device_name, peak_flops_per_second, peak_memory_bytes
from runners.text.corpus import Corpus
from runners.trial.trial_log import TrialLog
from search.record.code_version import commit, package_version
from search.record.trial import Outcome, OutcomeStatus, TrialConfig
from spaces.arms.contract import find_arm
from spaces.flops import forward_flops_per_token, train_flops_per_token
from spaces.parameters import count_parameters

WIDE_GAP = 0.05
"""Share of the loss past which the gap between training and validation is worth a warning."""


def sum_up(
    status: OutcomeStatus,
    log: TrialLog,
    *,
    corpus: Corpus,
    device: torch.device,
    resumed_tokens: int,
    reason: str | None = None,
) -> Outcome:
    """What every ending has: work done, cost, speed, place. Losses come with `with_result`."""
    architecture = log.config.architecture
    per_token = train_flops_per_token(architecture)
    seconds = log.wall_seconds or None
    name = device_name(device)
    peak = peak_flops_per_second(name) if log.config.training.precision == "bfloat16" else None
    return Outcome(
        status=status,
        reason=reason,
        steps=log.step,
        tokens=log.tokens,
        resumed_tokens=resumed_tokens,
        trunk_parent=log.trunk_parent,
        trunk_tokens=log.tokens_at(log.trunk_step or 0),
        epochs=log.tokens / corpus.num_train_tokens,
        train_flops=per_token.times(log.tokens).as_dict(),
        forward_flops_per_token=forward_flops_per_token(architecture).as_dict(),
        parameters=count_parameters(architecture).as_dict(),
        wall_seconds=seconds,
        tokens_per_second=log.tokens / seconds if seconds else None,
        peak_memory_bytes=peak_memory_bytes(device),
        model_flops_utilization=(
            per_token.full * log.tokens / seconds / peak if seconds and peak else None
        ),
        device=name,
        curve=tuple(log.curve),
        versions=versions(),
    )


def with_result(
    outcome: Outcome, log: TrialLog, measurement: Measurement, *, weights_path: Path | None
) -> Outcome:
    """The outcome of a trial that went to its end, with its losses and what to know of them."""
    train_loss = log.tail.value
    gap = None if train_loss is None else measurement.loss_nats - train_loss
    return replace(
        outcome,
        loss_nats=measurement.loss_nats,
        bits_per_byte=measurement.bits_per_byte,
        train_loss_nats=train_loss,
        generalization_gap_nats=gap,
        readouts={name: each for name, each in measurement.readouts.items() if is_finite(each)},
        warnings=(
            *outcome.warnings,
            *_warnings_of_readouts(measurement.readouts),
            *_warnings(outcome.epochs, gap, measurement.loss_nats),
            *_warnings_of_arm(log.config),
        ),
        weights_path=None if weights_path is None else str(weights_path),
    )


def _warnings(epochs: float | None, gap: float | None, loss_nats: float) -> list[str]:
    warnings = []
    if epochs is not None and epochs > 1:
        warnings.append(
            f"the text was seen {epochs:.2f} times: repeated tokens are worth less than fresh ones "
            f"(arXiv 2305.16264)"
        )
    if gap is not None and gap > WIDE_GAP * loss_nats:
        warnings.append(
            f"validation loss is {gap:.3f} nats above training loss, more than {WIDE_GAP:.0%} of it"
        )
    return warnings


def is_finite(layers: Sequence[float]) -> bool:
    """Whether a readout is a number in every layer; where it divides 0 by 0 it is none."""
    return all(map(math.isfinite, layers))


def _warnings_of_readouts(readouts: Mapping[str, Sequence[float]]) -> list[str]:
    lost = [name for name, layers in readouts.items() if not is_finite(layers)]
    return [f"{name} is no number in some layer, and is left out" for name in lost]


def _warnings_of_arm(config: TrialConfig) -> list[str]:
    if find_arm(config.architecture.arm).is_causal:
        return []
    return [
        f"the {config.architecture.arm} arm is not causal: its predictions see later tokens, so "
        f"that its loss compares with no other arm's"
    ]


def versions() -> dict[str, str]:
    """Versions of Python, torch and this package, and its commit, as far as they are known."""
    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "isoflop": package_version(),
        "commit": commit(),
    }
    return {name: version for name, version in found.items() if version is not None}
