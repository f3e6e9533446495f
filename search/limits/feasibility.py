"""What can be known to be too much before a trial runs? Graded: how far beyond, in log units.

On a GPU, memory is the engine's own count (`search.limits.memory`). Elsewhere, or where a rate is
set, it is parameters x 16 bytes (float32 weights, gradients and AdamW's two moments) plus 40 bytes
per channel, block of effective depth and token of the batch for what the backward pass needs. A
grade is positive where a limit is broken, so that a sampler learns which way out is shorter.
"""

from __future__ import annotations

import math

from search.asked.settings import LimitSettings
from search.limits.memory import training_memory_bytes
from search.record.trial import TrialConfig
from spaces.parameters import count_parameters

BYTES_PER_PARAMETER, BYTES_PER_ACTIVATION = 16.0, 40.0
"""Without settings, in float32."""


def predicted_memory_bytes(limits: LimitSettings, config: TrialConfig) -> float:
    """Bytes that training a configuration is predicted to need."""
    a = config.architecture
    rates = (limits.bytes_per_parameter, limits.bytes_per_activation)
    if config.training.precision == "bfloat16" and rates == (None, None):
        return training_memory_bytes(a, sequences=config.training.batch_sequences)
    batch_tokens = config.training.batch_sequences * a.context_length
    activations = a.d_model * a.effective_depth * batch_tokens
    return (limits.bytes_per_parameter or BYTES_PER_PARAMETER) * count_parameters(a).total + (
        limits.bytes_per_activation or BYTES_PER_ACTIVATION
    ) * activations


def graded_limits(
    limits: LimitSettings, config: TrialConfig, *, min_steps: int
) -> dict[str, float]:
    """Each known limit's grade: ln(value / limit), positive where it is broken."""
    grades = {"min_steps": math.log(min_steps / config.num_steps)}
    if limits.memory_bytes is not None:
        needed = predicted_memory_bytes(limits, config)
        grades["memory_bytes"] = math.log(needed / limits.memory_bytes)
    if limits.tokens_per_parameter is not None:
        ratio = config.tokens / count_parameters(config.architecture).total
        grades["tokens_per_parameter"] = _outside(ratio, limits.tokens_per_parameter)
    if limits.learning_rate is not None:
        rate = config.training.learning_rate
        grades["learning_rate"] = _outside(rate, limits.learning_rate)
    return grades


def broken_limits(limits: LimitSettings, config: TrialConfig, *, min_steps: int) -> str | None:
    """The law, the values and the remedy of every broken limit; None where all hold."""
    grades = graded_limits(limits, config, min_steps=min_steps)
    texts = [_explain(name, limits, config, min_steps) for name in grades if grades[name] > 0]
    return "; ".join(texts) or None


def _outside(value: float, bounds: tuple[float, float]) -> float:
    return max(math.log(bounds[0] / value), math.log(value / bounds[1]))


def _explain(name: str, limits: LimitSettings, config: TrialConfig, min_steps: int) -> str:
    if name == "min_steps":
        return (
            f"a trial needs at least {min_steps} steps, but {config.tokens} tokens give "
            f"{config.num_steps}; use a larger budget or a smaller shape"
        )
    if name == "memory_bytes":
        needed = predicted_memory_bytes(limits, config)
        return (
            f"a trial may need at most {limits.memory_bytes:.3g} bytes, but {needed:.3g} are "
            f"predicted; use a smaller shape, fewer loops or a smaller batch"
        )
    if name == "tokens_per_parameter":
        ratio = config.tokens / count_parameters(config.architecture).total
        return (
            f"tokens per parameter must lie within {limits.tokens_per_parameter}, but are "
            f"{ratio:.3g}; use another size or budget"
        )
    return (
        f"the learning rate must lie within {limits.learning_rate}, but is "
        f"{config.training.learning_rate:.3g}; use another multiplier"
    )
