"""How much memory does a training step take on a GPU? Known before it is spent.

What is kept for the backward pass is proportional to the tokens at once and counted by part of the
model; what is kept besides, to parameters and vocabulary. The factors are bytes in ``bfloat16``,
fitted to the engine's measured peaks on 48 random shapes of all arms (H100, PyTorch 2.11; widths
128 to 768, 0.3 to 24 GB): the worst is 9 % off. Of 48 others (0.14 to 11 GB) the worst is 8 % off
(experiments/LOG.md, `python -m experiments.benchmarks.engine.engine_memory`).
"""

from __future__ import annotations

from spaces.architecture import Architecture
from spaces.parameters import count_parameters

BYTES_PER_PARAMETER = 14.0
"""Weights and moments in float32, and the rounded copy; at the peak no gradient is made yet."""
BYTES_PER_HEAD_WEIGHT = 8.8
"""Besides, of the embedding and the head: the loss makes the head's gradient at once."""
BYTES_PER_BLOCK_CHANNEL = 21.5
"""Per token, channel and block applied: states, norms, queries, keys, values, attention."""
BYTES_PER_HIDDEN = 6.25
"""Per token and hidden channel of each feed-forward applied: both halves and their product."""
BYTES_PER_MIXED_CHANNEL = 4.6
"""Per token, channel and loop that a router mixes."""
BYTES_PER_GATED_CHANNEL = 3.7
"""Per token, channel and layer that gates combine."""
BYTES_PER_WIDEST_HIDDEN = 2.45
"""Per token and hidden channel of the widest feed-forward: the gradients passing through it."""
LOGITS_AT_ONCE = 1 << 24
"""Logits that the loss holds at most, however large batch and vocabulary are; two bytes each."""
WORKSPACE_BYTES = 66.5e6
"""Of the libraries that multiply matrices."""


def training_memory_bytes(architecture: Architecture, *, sequences: int) -> float:
    """Peak bytes of a bfloat16 step of the GPU engine on so many sequences at once."""
    a = architecture
    tokens = sequences * a.context_length
    deep = a.effective_depth if a.has_deep_path else 0
    wide = a.num_layers if a.has_wide_path else 0
    deep_ffn, wide_ffn = a.deep_ffn or 0, a.wide_ffn or 0
    kept_per_token = (
        BYTES_PER_BLOCK_CHANNEL * a.d_model * (deep + wide)
        + BYTES_PER_HIDDEN * (deep * deep_ffn + wide * wide_ffn)
        + BYTES_PER_MIXED_CHANNEL * a.d_model * (deep if a.has_router else 0)
        + BYTES_PER_GATED_CHANNEL * a.d_model * (a.num_layers if a.arm == "dual" else 0)
        + BYTES_PER_WIDEST_HIDDEN * max(deep_ffn, wide_ffn)
    )
    return (
        BYTES_PER_PARAMETER * count_parameters(a).total
        + BYTES_PER_HEAD_WEIGHT * a.vocab_size * a.d_model
        + 2 * min(LOGITS_AT_ONCE, tokens * a.vocab_size)
        + WORKSPACE_BYTES
        + tokens * kept_per_token
    )


def fitting_micro_batch(architecture: Architecture, *, sequences: int, memory_bytes: float) -> int:
    """The batch, halved until its step is predicted to fit; at least one sequence."""
    while sequences > 1:
        if training_memory_bytes(architecture, sequences=sequences) <= memory_bytes:
            break
        sequences //= 2
    return sequences
