"""How many FLOPs does a token cost? The closed form, in three conventions.

FLOPs are 2 per multiply-add of matrix products and attention; element-wise operators, norms,
softmax and look-ups count zero. ``full`` counts attention scores over the whole square (what fvcore
and PyTorch count), ``causal`` half of them (what a flash kernel runs), ``projection`` none (as
arXiv 2605.30202 matches its models). Training costs three times a forward pass.

One formula serves one architecture (Python integers) and a million (arrays of int64); it imports
no torch, and a certificate (`spaces.certificate`) holds it equal to two counters.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture, Arm, GateMode, LoopOutput
from spaces.parameters import Integers

Convention = Literal["full", "causal", "projection"]
CONVENTIONS: tuple[Convention, ...] = ("full", "causal", "projection")

TRAIN_FLOPS_PER_FORWARD_FLOP = 3
"""A backward pass costs two forward passes: gradients of inputs and of weights."""

SCORE_FLOPS = {"full": 4, "causal": 2, "projection": 0}
"""Attention scores and their use, per pass: this times context_length x d_model per token."""


@dataclass(frozen=True, kw_only=True)
class FlopsByConvention:
    """One cost, counted in each convention."""

    full: int
    """With attention scores over the whole square."""
    causal: int
    """With half of the square."""
    projection: int
    """Without attention scores."""

    def get(self, convention: Convention) -> int:
        """The cost in one convention."""
        return self.as_dict()[convention]

    __getitem__ = get

    def as_dict(self) -> dict[str, int]:
        """The costs by convention."""
        return asdict(self)

    def times(self, factor: int) -> FlopsByConvention:
        """The cost of ``factor`` such things."""
        return FlopsByConvention(**{name: factor * flops for name, flops in asdict(self).items()})


@dataclass(frozen=True, kw_only=True)
class LayerFlops:
    """Forward FLOPs of one layer and token by part; integers or arrays of them."""

    deep: Any
    """The deep path: K passes of attention and SwiGLU."""
    wide: Any
    """The wide path: one pass."""
    mixing: Any
    """Gates, and K calls of the router."""

    @property
    def total(self) -> Any:
        """The whole layer."""
        return self.deep + self.wide + self.mixing


def layer_flops(
    *,
    arm: Arm,
    num_loops: Integers = 1,
    d_model: Integers,
    deep_ffn: Integers = 0,
    wide_ffn: Integers = 0,
    context_length: Integers,
    convention: Convention,
    gate_mode: GateMode = "independent",
    loop_output: LoopOutput = "mixture",
    wide_attention: bool = True,
) -> LayerFlops:
    """Forward FLOPs of one layer and token by part: the formula that everything here rests on.

    An attention pass costs 8 d^2 and its scores, a SwiGLU of hidden size h 6 d h, each gate output
    2 d, a call of the router 2 (d + 1). Sizes that the arm lacks are ignored.
    """
    d: Any = d_model
    attention = 8 * d * d + SCORE_FLOPS[convention] * context_length * d
    deep = wide = mixing = 0
    if arm != "wide":
        deep = num_loops * (attention + 6 * d * deep_ffn)
    if arm in ("dual", "wide"):
        wide = 6 * d * wide_ffn + (attention if wide_attention else 0)
    if arm == "dual":
        mixing = 2 * d * {"independent": 2, "softmax": 2, "convex": 1, "fixed": 0}[gate_mode]
    if arm in ("dual", "loop") and loop_output == "mixture":
        mixing = mixing + 2 * (d + 1) * num_loops
    return LayerFlops(deep=deep, wide=wide, mixing=mixing)


def forward_flops_grid(
    *,
    arm: Arm,
    num_layers: Integers,
    num_loops: Integers = 1,
    d_model: Integers,
    deep_ffn: Integers = 0,
    wide_ffn: Integers = 0,
    context_length: Integers,
    vocab_size: Integers,
    convention: Convention,
    gate_mode: GateMode = "independent",
    loop_output: LoopOutput = "mixture",
    wide_attention: bool = True,
) -> NDArray[np.int64]:
    """Forward FLOPs per token of many architectures of one arm; arrays broadcast to one shape."""
    layer = layer_flops(
        arm=arm,
        num_loops=as_int64(num_loops),
        d_model=as_int64(d_model),
        deep_ffn=as_int64(deep_ffn),
        wide_ffn=as_int64(wide_ffn),
        context_length=as_int64(context_length),
        convention=convention,
        gate_mode=gate_mode,
        loop_output=loop_output,
        wide_attention=wide_attention,
    )
    head = 2 * as_int64(d_model) * as_int64(vocab_size)
    return np.asarray(as_int64(num_layers) * layer.total + head, dtype=np.int64)


def layer_flops_of(architecture: Architecture, convention: Convention) -> LayerFlops:
    """Forward FLOPs of one layer and token by part."""
    a = architecture
    return layer_flops(
        arm=a.arm,
        num_loops=a.num_loops,
        d_model=a.d_model,
        deep_ffn=a.deep_ffn or 0,
        wide_ffn=a.wide_ffn or 0,
        context_length=a.context_length,
        convention=convention,
        gate_mode=a.gate_mode,
        loop_output=a.loop_output,
        wide_attention=a.wide_attention,
    )


def layer_flops_per_token(architecture: Architecture) -> FlopsByConvention:
    """Forward FLOPs per token of one layer: its paths, gates and routers, without the head."""
    return FlopsByConvention(
        **{name: int(layer_flops_of(architecture, name).total) for name in CONVENTIONS}
    )


def forward_flops_per_token(architecture: Architecture) -> FlopsByConvention:
    """Forward FLOPs per token of the whole model at its full context; the head is in each."""
    head = 2 * architecture.d_model * architecture.vocab_size
    layers = layer_flops_per_token(architecture).times(architecture.num_layers)
    return FlopsByConvention(**{name: flops + head for name, flops in layers.as_dict().items()})


def train_flops_per_token(architecture: Architecture) -> FlopsByConvention:
    """Training FLOPs per token: three forward passes."""
    return forward_flops_per_token(architecture).times(TRAIN_FLOPS_PER_FORWARD_FLOP)


def deep_share(architecture: Architecture, convention: Convention) -> float:
    """alpha: the deep path's share of a layer's path FLOPs, without gates and routers.

    An arm with one path stands at the end of the axis: 1 without a wide path, 0 without a deep one.
    """
    layer = layer_flops_of(architecture, convention)
    return float(layer.deep / (layer.deep + layer.wide))


def as_int64(values: Integers) -> NDArray[np.int64]:
    """Integers as an array; raises TypeError where a value is not a whole number."""
    return np.asarray(values).astype(np.int64, casting="same_kind")
