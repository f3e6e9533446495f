"""Which two pieces of a layer have kernels of their own? Those that a compiler left slow.

Measured on an H100 at width 512 and 32 k tokens, a layer: SwiGLU's product and its gradient took
380 microseconds compiled for any hidden size, rotary positions with their norm 380 more, about
twice what their memory traffic needs (experiments/LOG.md). Here each is one pass, forward and
backward, for any size: nothing is compiled anew but once per head count.

Only a GPU runs this; the plain forms in `spaces.layers` say what is computed.

Shapes in names: N tokens of a batch, B sequences, T tokens of one, H heads, C channels of a head,
F hidden size of a feed-forward.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 8, 256
"""Tile of a program of SwiGLU: tokens by hidden channels."""

PAIRS = 32
"""Tokens x heads of a program of the rotation."""

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


@triton.jit  # type: ignore[untyped-decorator]
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


@triton.jit  # type: ignore[untyped-decorator]
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


@torch.library.custom_op("isoflop::position", mutates_args=())
def position(
    qkv: Tensor, cos_TC: Tensor, sin_TC: Tensor, head_dim: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries and keys of B x T x 3 H C, turned and (``epsilon`` > 0) normed, and values.

    Each result is B x T x H x C.
    """
    B, T, _ = qkv.shape
    results = [qkv.new_empty(B, T, _heads(qkv, head_dim), head_dim) for _ in range(3)]
    q, k, v = results
    _position_forward[_programs(q)](
        qkv, cos_TC, sin_TC, q, k, v, q.numel() // head_dim, epsilon,
        T, q.shape[2], head_dim // 2, epsilon > 0, PAIRS,
    )  # fmt: skip
    return q, k, v


@position.register_fake
def _(
    qkv: Tensor, cos_TC: Tensor, sin_TC: Tensor, head_dim: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    B, T, _ = qkv.shape
    q, k, v = (qkv.new_empty(B, T, _heads(qkv, head_dim), head_dim) for _ in range(3))
    return q, k, v


@torch.library.custom_op("isoflop::position_backward", mutates_args=())
def position_backward(
    qkv: Tensor,
    cos_TC: Tensor,
    sin_TC: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    head_dim: int,
    epsilon: float,
) -> Tensor:
    """The gradient by ``qkv``, all three parts in one pass."""
    out = torch.empty_like(qkv)
    T, heads = qkv.shape[1], _heads(qkv, head_dim)
    strides = [stride for grad in (grad_q, grad_k, grad_v) for stride in grad.stride()[:3]]
    _position_backward[_programs(grad_q)](
        qkv, cos_TC, sin_TC, grad_q, grad_k, grad_v, out, *strides,
        grad_q.numel() // head_dim, epsilon, T, heads, head_dim // 2, epsilon > 0, PAIRS,
    )  # fmt: skip
    return out


@position_backward.register_fake
def _(
    qkv: Tensor,
    cos_TC: Tensor,
    sin_TC: Tensor,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
    head_dim: int,
    epsilon: float,
) -> Tensor:
    return torch.empty_like(qkv)


def _save_inputs(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    qkv, cos_TC, sin_TC, ctx.head_dim, ctx.epsilon = inputs
    ctx.save_for_backward(qkv, cos_TC, sin_TC)


def _gradients(ctx: Any, grad_q: Tensor, grad_k: Tensor, grad_v: Tensor) -> Any:
    qkv, cos_TC, sin_TC = ctx.saved_tensors
    by_qkv = position_backward(
        qkv, cos_TC, sin_TC, grad_q, grad_k, grad_v, ctx.head_dim, ctx.epsilon
    )
    return by_qkv, None, None, None, None


position.register_autograd(_gradients, setup_context=_save_inputs)


def _heads(qkv: Tensor, head_dim: int) -> int:
    return qkv.shape[-1] // (3 * head_dim)


def _programs(heads_BTHC: Tensor) -> tuple[int]:
    return (triton.cdiv(heads_BTHC.numel() // heads_BTHC.shape[-1], PAIRS),)


@triton.jit  # type: ignore[untyped-decorator]
def _turned(first, second, cos, sin, epsilon, HALF: tl.constexpr, NORM: tl.constexpr):
    if NORM:
        squares = tl.sum(first * first + second * second, axis=1)
        factor = tl.rsqrt(squares / (2 * HALF) + epsilon)[:, None]
        first, second = first * factor, second * factor
    return first * cos - second * sin, second * cos + first * sin


@triton.jit  # type: ignore[untyped-decorator]
def _position_forward(
    qkv, cos, sin, q, k, v, num_pairs, epsilon,
    T: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr,
    PAIRS: tl.constexpr,
):  # fmt: skip
    pairs = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)[:, None]
    inside = pairs < num_pairs
    channels = tl.arange(0, HALF)[None, :]
    tokens, heads = pairs // HEADS, pairs % HEADS
    angles = (tokens % T) * HALF + channels
    c, s = tl.load(cos + angles, inside, 0.0), tl.load(sin + angles, inside, 0.0)
    source = qkv + tokens * (6 * HEADS * HALF) + heads * (2 * HALF) + channels
    target = pairs * (2 * HALF) + channels
    part = 2 * HEADS * HALF
    first = tl.load(source, inside, 0.0).to(tl.float32)
    second = tl.load(source + HALF, inside, 0.0).to(tl.float32)
    first, second = _turned(first, second, c, s, epsilon, HALF, NORM)
    tl.store(q + target, first.to(q.dtype.element_ty), inside)
    tl.store(q + target + HALF, second.to(q.dtype.element_ty), inside)
    first = tl.load(source + part, inside, 0.0).to(tl.float32)
    second = tl.load(source + part + HALF, inside, 0.0).to(tl.float32)
    first, second = _turned(first, second, c, s, epsilon, HALF, NORM)
    tl.store(k + target, first.to(k.dtype.element_ty), inside)
    tl.store(k + target + HALF, second.to(k.dtype.element_ty), inside)
    tl.store(v + target, tl.load(source + 2 * part, inside, 0.0), inside)
    tl.store(v + target + HALF, tl.load(source + 2 * part + HALF, inside, 0.0), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _turned_back(
    first, second, flow_first, flow_second, cos, sin, epsilon,
    HALF: tl.constexpr, NORM: tl.constexpr,
):  # fmt: skip
    by_first = flow_first * cos + flow_second * sin
    by_second = flow_second * cos - flow_first * sin
    if NORM:
        squares = tl.sum(first * first + second * second, axis=1)
        factor = tl.rsqrt(squares / (2 * HALF) + epsilon)[:, None]
        first, second = first * factor, second * factor
        along = tl.sum(by_first * first + by_second * second, axis=1)[:, None] / (2 * HALF)
        by_first = factor * (by_first - first * along)
        by_second = factor * (by_second - second * along)
    return by_first, by_second


@triton.jit  # type: ignore[untyped-decorator]
def _position_backward(
    qkv, cos, sin, grad_q, grad_k, grad_v, out,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, num_pairs, epsilon,
    T: tl.constexpr, HEADS: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr,
    PAIRS: tl.constexpr,
):  # fmt: skip
    pairs = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)[:, None]
    inside = pairs < num_pairs
    channels = tl.arange(0, HALF)[None, :]
    tokens, heads = pairs // HEADS, pairs % HEADS
    b, t = tokens // T, tokens % T
    angles = t * HALF + channels
    c, s = tl.load(cos + angles, inside, 0.0), tl.load(sin + angles, inside, 0.0)
    place = tokens * (6 * HEADS * HALF) + heads * (2 * HALF) + channels
    part = 2 * HEADS * HALF
    flow = grad_q + b * q_b + t * q_t + heads * q_h + channels
    first = tl.load(qkv + place, inside, 0.0).to(tl.float32)
    second = tl.load(qkv + place + HALF, inside, 0.0).to(tl.float32)
    flow_first = tl.load(flow, inside, 0.0).to(tl.float32)
    flow_second = tl.load(flow + HALF, inside, 0.0).to(tl.float32)
    first, second = _turned_back(first, second, flow_first, flow_second, c, s, epsilon, HALF, NORM)
    tl.store(out + place, first.to(out.dtype.element_ty), inside)
    tl.store(out + place + HALF, second.to(out.dtype.element_ty), inside)
    flow = grad_k + b * k_b + t * k_t + heads * k_h + channels
    first = tl.load(qkv + place + part, inside, 0.0).to(tl.float32)
    second = tl.load(qkv + place + part + HALF, inside, 0.0).to(tl.float32)
    flow_first = tl.load(flow, inside, 0.0).to(tl.float32)
    flow_second = tl.load(flow + HALF, inside, 0.0).to(tl.float32)
    first, second = _turned_back(first, second, flow_first, flow_second, c, s, epsilon, HALF, NORM)
    tl.store(out + place + part, first.to(out.dtype.element_ty), inside)
    tl.store(out + place + part + HALF, second.to(out.dtype.element_ty), inside)
    flow = grad_v + b * v_b + t * v_t + heads * v_h + channels
    tl.store(out + place + 2 * part, tl.load(flow, inside, 0.0), inside)
    tl.store(out + place + 2 * part + HALF, tl.load(flow + HALF, inside, 0.0), inside)
