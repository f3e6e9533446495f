"""Random architectures for hypothesis, of every arm and every variant."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

from spaces.architecture import Architecture, GateMode, LoopOutput, QKNorm

ARMS = ("dual", "loop", "wide", "standard")
"""Arms of the dual-path family whose architectures are of their own name."""


def small(arm: str, **fields: Any) -> Architecture:
    """A small architecture of an arm, with some fields of one's own."""
    values: dict[str, Any] = {
        "num_layers": 2,
        "num_loops": 3 if arm in ("dual", "loop") else 1,
        "d_model": 32,
        "head_dim": 8,
        "deep_ffn": None if arm == "wide" else 40,
        "wide_ffn": 96 if arm in ("dual", "wide") else None,
        "context_length": 16,
        "vocab_size": 64,
    }
    return Architecture(arm=arm, **(values | fields))


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Any architecture that a trace counts in a blink; odd sizes on purpose."""
    arm = draw(st.sampled_from(ARMS))
    head_dim = 2 * draw(st.integers(1, 9))
    return Architecture(
        arm=arm,
        num_layers=draw(st.integers(1, 2)),
        num_loops=draw(st.integers(1, 5)) if arm in ("dual", "loop") else 1,
        d_model=head_dim * draw(st.integers(1, 5)),
        head_dim=head_dim,
        deep_ffn=None if arm == "wide" else draw(st.integers(1, 70)),
        wide_ffn=draw(st.integers(1, 300)) if arm in ("dual", "wide") else None,
        context_length=draw(st.integers(1, 40)),
        vocab_size=draw(st.integers(2, 99)),
        gate_mode=draw(st.sampled_from(get_args(GateMode))),
        loop_output=draw(st.sampled_from(get_args(LoopOutput))),
        wide_attention=draw(st.booleans()),
        qk_norm=draw(st.sampled_from(get_args(QKNorm))),
    )
