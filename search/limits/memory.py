"""How much memory does a training step take on a GPU? Known before it is spent.

What is kept for the backward pass is proportional to the tokens at once and part of a model's price
(`spaces.price`: the parts say what they keep); what is kept besides, to parameters and vocabulary.
The factors are bytes in ``bfloat16``, fitted to the engine's measured peaks on 48 random shapes of
the dual-path family (H100, PyTorch 2.11; widths 128 to 768, 0.3 to 24 GB): the worst is 9 % off. Of
48 others (0.14 to 11 GB) the worst is 8 % off (experiments/LOG.md,
`python -m experiments.benchmarks.engine.engine_memory`).
"""

from __future__ import annotations

from spaces.architecture import Architecture
from spaces.flops import price_of, prices_of

BYTES_PER_PARAMETER = 14.0
"""Weights and moments in float32, and the rounded copy; at the peak no gradient is made yet."""
BYTES_PER_HEAD_WEIGHT = 8.8
"""Besides, of the embedding and the head: the loss makes the head's gradient at once."""
LOGITS_AT_ONCE = 1 << 24
"""Logits that the loss holds at most, however large batch and vocabulary are; two bytes each."""
WORKSPACE_BYTES = 66.5e6
"""Of the libraries that multiply matrices."""


def training_memory_bytes(architecture: Architecture, *, sequences: int) -> float:
    """Peak bytes of a bfloat16 step of the GPU engine on so many sequences at once."""
    price, head = price_of(architecture), prices_of(architecture)["head"]
    logits = sequences * architecture.context_length * architecture.vocab_size
    return float(
        BYTES_PER_PARAMETER * price.parameters
        + BYTES_PER_HEAD_WEIGHT * head.parameters
        + 2 * min(LOGITS_AT_ONCE, logits)
        + WORKSPACE_BYTES
        + sequences * (price.kept_bytes + price.passing_bytes)
    )


def fitting_micro_batch(architecture: Architecture, *, sequences: int, memory_bytes: float) -> int:
    """The batch, halved until its step is predicted to fit; at least one sequence."""
    while sequences > 1:
        if training_memory_bytes(architecture, sequences=sequences) <= memory_bytes:
            break
        sequences //= 2
    return sequences
