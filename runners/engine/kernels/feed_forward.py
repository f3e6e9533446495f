"""SwiGLU's product, in one pass each way.

`SwiGLU.activate` in `spaces.parts` says what is computed. Measured on an H100 at width 512 and
32 k tokens, a layer: compiled for any hidden size it took 380 microseconds forward and backward,
here 258, which is its memory traffic (experiments/LOG.md).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 8, 256
"""Tile of a program: tokens by hidden channels."""

SIZES = ("num_tokens", "hidden_lanes")
"""Arguments for whose values no kernel has a form of its own."""

LANES = 8
"""Hidden sizes of a multiple of this are read 16 bytes at a time."""


class SwiGLUProduct(torch.autograd.Function):
    """``silu(gate) * up`` of B x T x 2F, in one pass."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        hidden = gate_up.shape[-1] // 2
        product = gate_up.new_empty(*gate_up.shape[:-1], hidden)
        _swiglu_forward[_tiles(product)](gate_up, product, *_sizes(product), ROWS, COLUMNS)
        return product

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (gate_up,) = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        out = torch.empty_like(gate_up)
        _swiglu_backward[_tiles(gradient)](gate_up, gradient, out, *_sizes(gradient), ROWS, COLUMNS)
        return out


def swiglu_product(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of the two halves of a contiguous tensor's last dimension."""
    product: Tensor = SwiGLUProduct.apply(gate_up)  # type: ignore[no-untyped-call]
    return product


def _tiles(product: Tensor) -> tuple[int, int]:
    hidden = product.shape[-1]
    return triton.cdiv(product.numel() // hidden, ROWS), triton.cdiv(hidden, COLUMNS)


def _sizes(product: Tensor) -> tuple[int, int, int]:
    """Tokens, hidden size in lanes, and the lane: known to divide, so that reads are wide."""
    hidden = product.shape[-1]
    lanes = LANES if hidden % LANES == 0 else 1
    return product.numel() // hidden, hidden // lanes, lanes


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _swiglu_forward(
    gate_up, product, num_tokens, hidden_lanes, LANES: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    hidden = hidden_lanes * LANES
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (rows < num_tokens) & (columns < hidden)
    gate = tl.load(gate_up + rows * 2 * hidden + columns, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + rows * 2 * hidden + hidden + columns, inside, 0.0).to(tl.float32)
    out = gate * tl.sigmoid(gate) * up
    tl.store(product + rows * hidden + columns, out.to(product.dtype.element_ty), inside)


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _swiglu_backward(
    gate_up, gradient, out, num_tokens, hidden_lanes, LANES: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    hidden = hidden_lanes * LANES
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (rows < num_tokens) & (columns < hidden)
    gates = rows * 2 * hidden + columns
    gate = tl.load(gate_up + gates, inside, 0.0).to(tl.float32)
    up = tl.load(gate_up + gates + hidden, inside, 0.0).to(tl.float32)
    flow = tl.load(gradient + rows * hidden + columns, inside, 0.0).to(tl.float32)
    share = tl.sigmoid(gate)
    by_gate = flow * up * share * (1 + gate * (1 - share))
    by_up = flow * gate * share
    tl.store(out + gates, by_gate.to(out.dtype.element_ty), inside)
    tl.store(out + gates + hidden, by_up.to(out.dtype.element_ty), inside)
