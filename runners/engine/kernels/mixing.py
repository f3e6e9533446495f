"""The end of a loop and the gated sum of both paths: a row of the state at a time.

`DeepPath.mix` and `Layer.combine` in `spaces.parts` say what is computed.

Shapes in names: B x T tokens, D width, E = D + 1. Arithmetic in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from runners.engine.kernels.rows import OFFSETS, SIZES, Rows, like, places_of, read, write


def end_loop(
    x_BTD: Tensor,
    output_BTD: Tensor,
    mixed_BTD: Tensor,
    left_BT1: Tensor,
    *,
    scale: Tensor,
    router_weight_1E: Tensor,
    router_bias_1: Tensor,
    position: Tensor,
    is_last: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`DeepPath.mix`: the loop's state, the mixture with it, the share left, the loop's weight."""
    results: tuple[Tensor, Tensor, Tensor, Tensor] = Loop.apply(  # type: ignore[no-untyped-call]
        x_BTD, output_BTD, mixed_BTD, left_BT1, scale, router_weight_1E, router_bias_1, position,
        is_last,
    )  # fmt: skip
    return results


def gated_sum(
    deep_BTD: Tensor, wide_BTD: Tensor, output_BTD: Tensor, scale: Tensor, gates_BT2: Tensor
) -> Tensor:
    """``gate_deep deep + gate_wide (wide + scale output)``."""
    result: Tensor = GatedSum.apply(  # type: ignore[no-untyped-call]
        deep_BTD, wide_BTD, output_BTD, scale, gates_BT2
    )
    return result


class Loop(torch.autograd.Function):
    """`end_loop`."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        x, output, mixed, left, scale, router_weight, router_bias, position, is_last = operands
        state, mixed_after = torch.empty_like(x), torch.empty_like(x)
        left_after, weight = torch.empty_like(left), torch.empty_like(left)
        rows = Rows(x)
        _loop_forward[rows.tiles,](
            x, output, mixed, left, scale, router_weight, router_bias, position, is_last,
            state, mixed_after, left_after, weight, rows.count, rows.width, rows.tile, rows.columns,
        )  # fmt: skip
        ctx.save_for_backward(
            state, output, left, scale, router_weight, router_bias, position, is_last
        )
        return state, mixed_after, left_after, weight

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        through, by_mixed, by_left_after, by_share = (
            None if each is None else each.contiguous() for each in gradients
        )
        state, output, left, scale, router_weight, router_bias, position, is_last = (
            ctx.saved_tensors
        )
        by_state, by_output = torch.empty_like(state), torch.empty_like(state)
        by_left, rows = torch.empty_like(left), Rows(state)
        sums = rows.sums(rows.width + 3)
        _loop_backward[rows.programs,](
            state, output, left, scale, router_weight, router_bias, position, is_last,
            through, by_mixed, by_left_after, by_share,
            by_state, by_output, by_left, sums, rows.count, rows.tiles, rows.width,
            through is not None, by_mixed is not None, by_left_after is not None,
            by_share is not None, rows.tile, rows.columns,
        )  # fmt: skip
        by_router, by_bias, by_scale = sums.sum(0).split((rows.width + 1, 1, 1))
        return (
            by_state, by_output, by_mixed, by_left, like(by_scale, scale),
            like(by_router, router_weight), like(by_bias, router_bias), None, None,
        )  # fmt: skip


class GatedSum(torch.autograd.Function):
    """`gated_sum`."""

    @staticmethod
    def forward(
        ctx: Any, deep: Tensor, wide: Tensor, output: Tensor, scale: Tensor, gates: Tensor
    ) -> Tensor:
        gates = gates.contiguous()
        ctx.save_for_backward(deep, wide, output, scale, gates)
        total, rows = torch.empty_like(deep), Rows(deep)
        _gated_forward[rows.tiles,](
            deep, wide, output, scale, gates, total, rows.count, rows.width, rows.tile, rows.columns
        )
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        deep, wide, output, scale, gates = ctx.saved_tensors
        flow = gradients[0].contiguous()
        by_deep, by_wide, by_output = (torch.empty_like(deep) for _ in range(3))
        by_gates, rows = torch.empty_like(gates), Rows(deep)
        sums = rows.sums(1)
        _gated_backward[rows.programs,](
            deep, wide, output, scale, gates, flow, by_deep, by_wide, by_output, by_gates, sums,
            rows.count, rows.tiles, rows.width, rows.tile, rows.columns,
        )  # fmt: skip
        return by_deep, by_wide, by_output, like(sums.sum(), scale), by_gates


@triton.jit  # type: ignore[untyped-decorator]
def _probability(h, w, router_bias, position_weight, position, is_last):
    """The router's, by row; 1 at the last loop."""
    logit = tl.sum(h * w, axis=1) + tl.load(router_bias).to(tl.float32)
    logit += tl.load(position_weight).to(tl.float32) * tl.load(position).to(tl.float32)
    return tl.where(tl.load(is_last) != 0, 1.0, tl.sigmoid(logit))


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _loop_forward(
    x, output, mixed, left, scale, router_weight, router_bias, position, is_last,
    state, mixed_after, left_after, weight, num_rows, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    places, inside, rows, is_row = places_of(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    columns = tl.arange(0, COLUMNS)
    w = read(router_weight, columns, columns < width)[None, :]
    s = tl.load(scale).to(tl.float32)
    h = read(x, places, inside) + s * read(output, places, inside)
    h = h.to(state.dtype.element_ty).to(tl.float32)
    write(state, places, h, inside)
    probability = _probability(h, w, router_bias, router_weight + width, position, is_last)
    remaining = read(left, rows, is_row)
    share = probability * remaining
    write(weight, rows, share, is_row)
    write(left_after, rows, remaining * (1 - probability), is_row)
    write(mixed_after, places, read(mixed, places, inside) + share[:, None] * h, inside)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _loop_backward(
    state, output, left, scale, router_weight, router_bias, position, is_last,
    through, by_mixed, by_left_after, by_share, by_state, by_output, by_left, sums,
    num_rows, num_tiles, width, HAS_THROUGH: tl.constexpr, HAS_MIXED: tl.constexpr,
    HAS_LEFT: tl.constexpr, HAS_SHARE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    columns = tl.arange(0, COLUMNS)
    w = read(router_weight, columns, columns < width)[None, :]
    s = tl.load(scale).to(tl.float32)
    last = tl.load(is_last) != 0
    weight_sums = tl.zeros([COLUMNS], tl.float32)
    bias_sums = tl.zeros([ROWS], tl.float32)
    scale_sums = tl.zeros([ROWS], tl.float32)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        places, inside, rows, is_row = places_of(tile, num_rows, width, ROWS, COLUMNS)
        h = read(state, places, inside)
        p = _probability(h, w, router_bias, router_weight + width, position, is_last)
        remaining = read(left, rows, is_row)
        dh = tl.zeros([ROWS, COLUMNS], tl.float32)
        dshare = tl.zeros([ROWS], tl.float32)
        dleft = tl.zeros([ROWS], tl.float32)
        if HAS_THROUGH:
            dh += read(through, places, inside)
        if HAS_SHARE:
            dshare += read(by_share, rows, is_row)
        if HAS_MIXED:
            dmixed = read(by_mixed, places, inside)
            dshare += tl.sum(dmixed * h, axis=1)
            dh += (p * remaining)[:, None] * dmixed
        if HAS_LEFT:
            dleft += read(by_left_after, rows, is_row)
        write(by_left, rows, dshare * p + dleft * (1 - p), is_row)
        dlogit = tl.where(last, 0.0, (dshare - dleft) * remaining * p * (1 - p))
        dh += dlogit[:, None] * w
        weight_sums += tl.sum(dlogit[:, None] * h, axis=0)
        bias_sums += dlogit
        write(by_state, places, dh, inside)
        scale_sums += tl.sum(dh * read(output, places, inside), axis=1)
        write(by_output, places, dh * s, inside)
    sums += program * (width + 3)
    bias_sum = tl.sum(bias_sums, axis=0)
    tl.store(sums + columns, weight_sums, columns < width)
    tl.store(sums + width, bias_sum * tl.load(position).to(tl.float32))
    tl.store(sums + width + 1, bias_sum)
    tl.store(sums + width + 2, tl.sum(scale_sums, axis=0))


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _gated_forward(
    deep, wide, output, scale, gates, total, num_rows, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    places, inside, rows, is_row = places_of(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    gate_deep = read(gates, rows * 2, is_row)[:, None]
    gate_wide = read(gates, rows * 2 + 1, is_row)[:, None]
    s = tl.load(scale).to(tl.float32)
    w = read(wide, places, inside) + s * read(output, places, inside)
    write(total, places, gate_deep * read(deep, places, inside) + gate_wide * w, inside)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _gated_backward(
    deep, wide, output, scale, gates, flow, by_deep, by_wide, by_output, by_gates, sums,
    num_rows, num_tiles, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    s = tl.load(scale).to(tl.float32)
    scale_sums = tl.zeros([ROWS], tl.float32)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        places, inside, rows, is_row = places_of(tile, num_rows, width, ROWS, COLUMNS)
        dy, u = read(flow, places, inside), read(output, places, inside)
        gate_deep = read(gates, rows * 2, is_row)[:, None]
        gate_wide = read(gates, rows * 2 + 1, is_row)[:, None]
        w = read(wide, places, inside) + s * u
        write(by_gates, rows * 2, tl.sum(dy * read(deep, places, inside), axis=1), is_row)
        write(by_gates, rows * 2 + 1, tl.sum(dy * w, axis=1), is_row)
        dwide = gate_wide * dy
        write(by_deep, places, gate_deep * dy, inside)
        write(by_wide, places, dwide, inside)
        write(by_output, places, dwide * s, inside)
        scale_sums += tl.sum(dwide * u, axis=1)
    tl.store(sums + program, tl.sum(scale_sums, axis=0))
