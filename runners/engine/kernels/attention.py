"""Rotary positions and the norm of queries and keys, in one pass from the projection's output.

`Attention.position` in `spaces.parts` says what is computed. Measured on an H100 at width 512 and
32 k tokens, a layer: compiled for unknown sizes it took 380 microseconds forward and backward, here
164, which is its memory traffic (experiments/LOG.md).

Shapes in names: B sequences, T tokens of one, H heads, C channels of a head (or half of them in the
rotary tables), E three times the width.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spaces.parts.attention import Rotation

SIZES = ("num_pairs", "num_tokens", "num_heads")
"""Arguments for whose values no kernel has a form of its own."""

PAIRS = 32
"""Tokens x heads of a program."""


class Position(torch.autograd.Function):
    """Queries and keys of B x T x E, turned and (``epsilon`` > 0) normed, and values."""

    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, cos_TC: Tensor, sin_TC: Tensor, head_dim: int, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(qkv, cos_TC, sin_TC)
        ctx.head_dim, ctx.epsilon = head_dim, epsilon
        B, T, E = qkv.shape
        q, k, v = (qkv.new_empty(B, T, E // (3 * head_dim), head_dim) for _ in range(3))
        _position_forward[_programs(q)](
            qkv, cos_TC, sin_TC, q, k, v, q.numel() // head_dim, T, q.shape[2], epsilon,
            head_dim // 2, epsilon > 0, PAIRS,
        )  # fmt: skip
        return q, k, v

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        qkv, cos_TC, sin_TC = ctx.saved_tensors
        out = torch.empty_like(qkv)
        heads = gradients[0].shape[2]
        # attention's own backward leaves them in an order of its own; the channels lie together
        flows = [each if each.stride(-1) == 1 else each.contiguous() for each in gradients]
        strides = [stride for each in flows for stride in each.stride()[:3]]
        _position_backward[_programs(flows[0])](
            qkv, cos_TC, sin_TC, *flows, out, *strides,
            flows[0].numel() // ctx.head_dim, qkv.shape[1], heads, ctx.epsilon,
            ctx.head_dim // 2, ctx.epsilon > 0, PAIRS,
        )  # fmt: skip
        return out, None, None, None, None


def position(
    qkv_BTE: Tensor, rotation: Rotation, *, head_dim: int, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each B x T x H x C; ``epsilon`` 0 norms nothing."""
    results: tuple[Tensor, Tensor, Tensor] = Position.apply(  # type: ignore[no-untyped-call]
        qkv_BTE, rotation.cos_TC, rotation.sin_TC, head_dim, epsilon
    )
    return results


def has_kernel(head_dim: int) -> bool:
    """Whether such heads can be turned here: half of one must be a power of two."""
    half = head_dim // 2
    return half & (half - 1) == 0


def _programs(heads_BTHC: Tensor) -> tuple[int]:
    return (triton.cdiv(heads_BTHC.numel() // heads_BTHC.shape[-1], PAIRS),)


@triton.jit  # type: ignore[untyped-decorator]
def _turned(first, second, cos, sin, epsilon, HALF: tl.constexpr, NORM: tl.constexpr):
    if NORM:
        squares = tl.sum(first * first + second * second, axis=1)
        factor = tl.rsqrt(squares / (2 * HALF) + epsilon)[:, None]
        first, second = first * factor, second * factor
    return first * cos - second * sin, second * cos + first * sin


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _position_forward(
    qkv, cos, sin, q, k, v, num_pairs, num_tokens, num_heads, epsilon,
    HALF: tl.constexpr, NORM: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    pairs = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)[:, None]
    inside = pairs < num_pairs
    channels = tl.arange(0, HALF)[None, :]
    tokens, heads = (pairs // num_heads).to(tl.int64), pairs % num_heads
    angles = ((pairs // num_heads) % num_tokens) * HALF + channels
    c, s = tl.load(cos + angles, inside, 0.0), tl.load(sin + angles, inside, 0.0)
    source = qkv + tokens * (6 * num_heads * HALF) + heads * (2 * HALF) + channels
    target = pairs.to(tl.int64) * (2 * HALF) + channels
    part = 2 * num_heads * HALF
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


@triton.jit(do_not_specialize=SIZES)  # type: ignore[untyped-decorator]
def _position_backward(
    qkv, cos, sin, grad_q, grad_k, grad_v, out,
    q_b, q_t, q_h, k_b, k_t, k_h, v_b, v_t, v_h, num_pairs, num_tokens, num_heads, epsilon,
    HALF: tl.constexpr, NORM: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    pairs = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)[:, None]
    inside = pairs < num_pairs
    channels = tl.arange(0, HALF)[None, :]
    token, heads = pairs // num_heads, pairs % num_heads
    b, t = (token // num_tokens).to(tl.int64), token % num_tokens
    tokens, angles = token.to(tl.int64), t * HALF + channels
    c, s = tl.load(cos + angles, inside, 0.0), tl.load(sin + angles, inside, 0.0)
    place = tokens * (6 * num_heads * HALF) + heads * (2 * HALF) + channels
    part = 2 * num_heads * HALF
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
