"""How many parameters does an architecture have, and where do they sit? In closed form.

One formula serves one architecture (Python integers) and a million (arrays of int64).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture, Arm, GateMode, LoopOutput

Integers: TypeAlias = "int | NDArray[np.int64]"
"""A number or an array of them; arrays broadcast against each other."""


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Parameters by part; the five parts sum to the total exactly."""

    total: int
    """All parameters."""
    embedding: int
    """The input embedding, ``vocab_size * d_model``."""
    head: int
    """The output matrix, untied."""
    deep: int
    """The deep paths of all layers: attention, SwiGLU, norms, step scales (standard arm too)."""
    wide: int
    """The wide paths of all layers: the same, used once."""
    shared: int
    """Gates and routers of all layers, and the final norm."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name, as the ``flops`` verb prints them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class ParameterGrid:
    """The counts of `ParameterCounts` for many architectures at once; arrays of one shape."""

    total: NDArray[np.int64]
    embedding: NDArray[np.int64]
    head: NDArray[np.int64]
    deep: NDArray[np.int64]
    wide: NDArray[np.int64]
    shared: NDArray[np.int64]


def count_parameters(architecture: Architecture) -> ParameterCounts:
    """Parameters of one architecture by part."""
    a = architecture
    parts = _parts(
        arm=a.arm,
        num_layers=a.num_layers,
        num_loops=a.num_loops,
        d_model=a.d_model,
        deep_ffn=a.deep_ffn or 0,
        wide_ffn=a.wide_ffn or 0,
        vocab_size=a.vocab_size,
        gate_mode=a.gate_mode,
        loop_output=a.loop_output,
        wide_attention=a.wide_attention,
    )
    return ParameterCounts(total=sum(parts.values()), **parts)


def parameter_grid(
    *,
    arm: Arm,
    num_layers: Integers,
    num_loops: Integers = 1,
    d_model: Integers,
    deep_ffn: Integers = 0,
    wide_ffn: Integers = 0,
    vocab_size: Integers,
    gate_mode: GateMode = "independent",
    loop_output: LoopOutput = "mixture",
    wide_attention: bool = True,
) -> ParameterGrid:
    """Parameters of many architectures of one arm; integer arrays broadcast to one shape.

    Sizes that the arm lacks are ignored, as are loops of an arm without a loop.
    """
    parts = _parts(
        arm=arm,
        num_layers=num_layers,
        num_loops=num_loops,
        d_model=d_model,
        deep_ffn=deep_ffn,
        wide_ffn=wide_ffn,
        vocab_size=vocab_size,
        gate_mode=gate_mode,
        loop_output=loop_output,
        wide_attention=wide_attention,
    )
    names = list(parts)
    arrays = np.broadcast_arrays(*(np.asarray(parts[name], dtype=np.int64) for name in names))
    return ParameterGrid(
        total=np.sum(arrays, axis=0, dtype=np.int64), **dict(zip(names, arrays, strict=True))
    )


def _parts(
    *,
    arm: Arm,
    num_layers: Any,
    num_loops: Any,
    d_model: Any,
    deep_ffn: Any,
    wide_ffn: Any,
    vocab_size: Any,
    gate_mode: GateMode,
    loop_output: LoopOutput,
    wide_attention: bool,
) -> dict[str, Any]:
    """The five parts, of Python integers or of arrays."""
    d = d_model
    attention, ffn_of_deep, ffn_of_wide = 4 * d * d + d, 3 * d * deep_ffn + d, 3 * d * wide_ffn + d
    step_scales = 0 if arm == "standard" else num_loops
    deep = 0 if arm == "wide" else attention + ffn_of_deep + step_scales
    wide = ffn_of_wide + (attention if wide_attention else 0) + 1 if arm in ("dual", "wide") else 0
    outputs = {"independent": 2, "softmax": 2, "convex": 1, "fixed": 0}[gate_mode]
    gates = outputs * (d + 1) if arm == "dual" else 0
    router = d + 2 if arm in ("dual", "loop") and loop_output == "mixture" else 0
    return {
        "embedding": vocab_size * d,
        "head": vocab_size * d,
        "deep": num_layers * deep,
        "wide": num_layers * wide,
        "shared": num_layers * (gates + router) + d,
    }
