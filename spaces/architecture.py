"""What is a model? A frozen value that names every choice which changes the function or its cost.

The block is that of the dual-path paper (arXiv 2605.30202); the field defaults depart from its
preset in one place, ``step_scale_init``, because the paper's start decides short runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from spaces.errors import RequestError

Arm = Literal["dual", "loop", "wide", "standard"]
GateMode = Literal["independent", "convex", "softmax", "fixed"]
LoopOutput = Literal["mixture", "final", "average"]
QKNorm = Literal["none", "before", "after"]

PAPER_STEP_SCALE_INIT = -7.0
"""The published start: softplus(-7) = 0.0009, so that a fresh layer is the identity."""

UNIT_STEP_SCALE_INIT = math.log(math.e - 1.0)
"""softplus of this is 1: every block starts as an ordinary residual block.

Measured at 1e12 training FLOPs on bytes of public addresses (width 64, 2 layers, context 128, one
seed, better of two learning rates), validation nats per token from -7, -2 and this start: dual with
K = 2 2.451, 2.339, 2.324; loop with K = 3 2.518, 2.408, 2.429; wide 2.370, 2.229, 2.170.
"""


@dataclass(frozen=True, kw_only=True)
class CommonFields:
    """What the architectures of a study have in common: everything but arm and sizes."""

    head_dim: int = 64
    """Channels per attention head; even, for rotary embeddings."""
    context_length: int
    """Tokens per sequence."""
    vocab_size: int
    """Rows of the (untied) embedding and of the head."""
    gate_mode: GateMode = "independent"
    """How the two paths mix: independent sigmoids, (g, 1 - g), a softmax, or fixed halves."""
    loop_output: LoopOutput = "mixture"
    """The routers' mixture over loops, the final state, or the plain average."""
    wide_attention: bool = True
    """Whether the wide path holds its own attention besides its feed-forward."""
    qk_norm: QKNorm = "after"
    """RMSNorm (no weights) of query and key over the head: before or after RoPE, or none."""
    rope_base: float = 500_000.0
    """Base of the rotary position embedding."""
    norm_epsilon: float = 1e-5
    """Epsilon of every RMSNorm."""
    step_scale_init: float = UNIT_STEP_SCALE_INIT
    """Start of the residual step scales before softplus; -7 is the paper's preset."""
    gate_bias_init: float = 0.0
    """Start of the gates' biases (their weights start at zero); 0 opens each gate half."""


@dataclass(frozen=True, kw_only=True)
class Architecture(CommonFields):
    """One transformer of one arm. Raises `RequestError` for values that no model can have."""

    arm: Arm
    """dual (both paths), loop (deep path only), wide (wide path only), standard (K = 1, plain)."""
    num_layers: int
    """Layers, each holding the arm's paths; at least 1."""
    num_loops: int = 1
    """K: times the deep block is applied with shared weights; 1 where there is no loop."""
    d_model: int
    """Width of the residual state, in channels; a multiple of ``head_dim``."""
    deep_ffn: int | None = None
    """SwiGLU hidden size of the deep path; absent in the wide arm."""
    wide_ffn: int | None = None
    """SwiGLU hidden size of the wide path; only in the dual and the wide arm."""

    def __post_init__(self) -> None:
        for problem in architecture_problems(self):
            raise RequestError(problem)

    @property
    def has_deep_path(self) -> bool:
        """Whether a deep path exists (every arm but wide)."""
        return self.arm != "wide"

    @property
    def has_wide_path(self) -> bool:
        """Whether a wide path exists (dual and wide)."""
        return self.arm in ("dual", "wide")

    @property
    def has_router(self) -> bool:
        """Whether per-token routers mix the loops."""
        return self.arm in ("dual", "loop") and self.loop_output == "mixture"

    @property
    def num_gate_outputs(self) -> int:
        """Outputs of the gate's linear map: 0 where nothing is mixed or the halves are fixed."""
        if self.arm != "dual" or self.gate_mode == "fixed":
            return 0
        return 1 if self.gate_mode == "convex" else 2

    @property
    def effective_depth(self) -> int:
        """Blocks on the longest way through the model: K x layers."""
        return self.num_layers * self.num_loops

    @property
    def deep_multiplier(self) -> float | None:
        """``deep_ffn / d_model``; None where there is no deep path."""
        return None if self.deep_ffn is None else self.deep_ffn / self.d_model

    @property
    def wide_multiplier(self) -> float | None:
        """``wide_ffn / d_model``; None where there is no wide path."""
        return None if self.wide_ffn is None else self.wide_ffn / self.d_model


def architecture_problems(architecture: Architecture) -> list[str]:
    """Every law that the values break, each as one sentence with the values and a remedy."""
    a = architecture
    problems: list[str] = []
    for name, allowed in (
        ("arm", get_args(Arm)),
        ("gate_mode", get_args(GateMode)),
        ("loop_output", get_args(LoopOutput)),
        ("qk_norm", get_args(QKNorm)),
    ):
        if getattr(a, name) not in allowed:
            problems.append(f"{name} must be one of {', '.join(allowed)}, got {getattr(a, name)!r}")
    if problems:
        return problems
    for name in ("num_layers", "num_loops", "d_model", "head_dim", "context_length", "vocab_size"):
        if getattr(a, name) < 1:
            problems.append(f"{name} must be at least 1, got {getattr(a, name)}")
    if problems:
        return problems
    if a.head_dim % 2:
        problems.append(f"head_dim must be even for rotary embeddings, got {a.head_dim}")
    if a.d_model % a.head_dim:
        nearest = max(1, round(a.d_model / a.head_dim)) * a.head_dim
        problems.append(
            f"head_dim must divide d_model, got head_dim {a.head_dim} and d_model {a.d_model}; "
            f"use d_model {nearest}"
        )
    if a.num_loops > 1 and a.arm not in ("dual", "loop"):
        problems.append(f"the {a.arm} arm has no loop, got num_loops {a.num_loops}; use 1")
    for name, present in (("deep_ffn", a.has_deep_path), ("wide_ffn", a.has_wide_path)):
        size = getattr(a, name)
        if present and size is None:
            problems.append(f"the {a.arm} arm needs {name} (its SwiGLU hidden size)")
        elif present and size < 1:
            problems.append(f"{name} must be at least 1, got {size}")
        elif not present and size is not None:
            problems.append(f"the {a.arm} arm has no {name}, got {size}; leave it out")
    if a.norm_epsilon <= 0 or a.rope_base <= 0:
        problems.append(
            f"norm_epsilon and rope_base must be positive, got {a.norm_epsilon} and {a.rope_base}"
        )
    return problems
