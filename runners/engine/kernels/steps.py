"""Residual steps and norms: a row of the state at a time.

`Block.attend` and `Block.add_ffn` in `spaces.parts` say what is computed. A state that goes on
besides its norm passes through the norm's function, so that the sum of its two gradients costs no
pass of its own.

Shapes in names: B x T tokens, D width. Arithmetic in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from runners.engine.kernels.rows import OFFSETS, SIZES, Rows, like, places_of, read, write


def fork_norm(x_BTD: Tensor, weight_D: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """The state as it is, to go on with, and its root-mean-square norm."""
    results: tuple[Tensor, Tensor] = Norm.apply(  # type: ignore[no-untyped-call]
        x_BTD, None, None, weight_D, epsilon
    )
    return results


def step_norm(
    x_BTD: Tensor, output_BTD: Tensor, scale: Tensor | None, weight_D: Tensor, epsilon: float
) -> tuple[Tensor, Tensor]:
    """The state after a residual step of that scale (None means 1), and that state normed."""
    results: tuple[Tensor, Tensor] = Norm.apply(  # type: ignore[no-untyped-call]
        x_BTD, output_BTD, scale, weight_D, epsilon
    )
    return results


def step(x_BTD: Tensor, output_BTD: Tensor, scale: Tensor | None) -> Tensor:
    """The state after a residual step of that scale (None means 1)."""
    if scale is None:
        return x_BTD + output_BTD
    result: Tensor = Step.apply(x_BTD, output_BTD, scale)  # type: ignore[no-untyped-call]
    return result


class Norm(torch.autograd.Function):
    """`fork_norm` and, with an output to add first, `step_norm`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        output: Tensor | None,
        scale: Tensor | None,
        weight: Tensor,
        epsilon: float,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        state = x if output is None else torch.empty_like(x)
        normed = torch.empty_like(x)
        rows = Rows(x)
        _norm_forward[rows.tiles,](
            x, output, scale, weight, state, normed, rows.count, rows.width, epsilon,
            output is not None, scale is not None, rows.tile, rows.columns,
        )  # fmt: skip
        ctx.save_for_backward(state, weight, output if scale is not None else None, scale)
        ctx.epsilon, ctx.has_step = epsilon, output is not None
        return state, normed

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        through, flow = (None if each is None else each.contiguous() for each in gradients)
        state, weight, output, scale = ctx.saved_tensors
        rows = Rows(state)
        by_state = torch.empty_like(state)
        by_output = None if scale is None else torch.empty_like(state)
        sums = rows.sums(rows.width + 1)
        _norm_backward[rows.programs,](
            state, weight, through, flow, output, scale, by_state, by_output, sums,
            rows.count, rows.tiles, rows.width, ctx.epsilon,
            through is not None, scale is not None, rows.tile, rows.columns,
        )  # fmt: skip
        by_weight, by_scale = sums.sum(0).split((rows.width, 1))
        if scale is None:
            by_output = by_state if ctx.has_step else None
        return by_state, by_output, like(by_scale, scale), like(by_weight, weight), None


class Step(torch.autograd.Function):
    """`step` with a scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(output, scale)
        state, rows = torch.empty_like(x), Rows(x)
        _step_forward[rows.tiles,](
            x, output, scale, state, rows.count, rows.width, rows.tile, rows.columns
        )
        return state

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        output, scale = ctx.saved_tensors
        flow = gradients[0].contiguous()
        by_output, rows = torch.empty_like(output), Rows(output)
        sums = rows.sums(1)
        _step_backward[rows.programs,](
            flow, output, scale, by_output, sums, rows.count, rows.tiles, rows.width,
            rows.tile, rows.columns,
        )  # fmt: skip
        return flow, by_output, like(sums.sum(), scale)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _norm_forward(
    x, output, scale, weight, state, normed, num_rows, width, epsilon,
    HAS_STEP: tl.constexpr, HAS_SCALE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    places, inside, _, _ = places_of(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    columns = tl.arange(0, COLUMNS)
    h = read(x, places, inside)
    if HAS_STEP:
        u = read(output, places, inside)
        if HAS_SCALE:
            u = u * tl.load(scale).to(tl.float32)
        h = (h + u).to(state.dtype.element_ty).to(tl.float32)
        write(state, places, h, inside)
    factor = tl.rsqrt(tl.sum(h * h, axis=1) / width + epsilon)[:, None]
    w = read(weight, columns, columns < width)[None, :]
    write(normed, places, h * factor * w, inside)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _norm_backward(
    state, weight, through, flow, output, scale, by_state, by_output, sums,
    num_rows, num_tiles, width, epsilon,
    HAS_THROUGH: tl.constexpr, HAS_SCALE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    columns = tl.arange(0, COLUMNS)
    w = read(weight, columns, columns < width)[None, :]
    weight_sums = tl.zeros([COLUMNS], tl.float32)
    scale_sums = tl.zeros([ROWS], tl.float32)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        places, inside, _, _ = places_of(tile, num_rows, width, ROWS, COLUMNS)
        h, dy = read(state, places, inside), read(flow, places, inside)
        factor = tl.rsqrt(tl.sum(h * h, axis=1) / width + epsilon)[:, None]
        unit = h * factor
        weight_sums += tl.sum(dy * unit, axis=0)
        dy = dy * w
        along = tl.sum(dy * unit, axis=1)[:, None] / width
        dh = factor * (dy - unit * along)
        if HAS_THROUGH:
            dh += read(through, places, inside)
        write(by_state, places, dh, inside)
        if HAS_SCALE:
            scale_sums += tl.sum(dh * read(output, places, inside), axis=1)
            write(by_output, places, dh * tl.load(scale).to(tl.float32), inside)
    sums += program * (width + 1)
    tl.store(sums + columns, weight_sums, columns < width)
    tl.store(sums + width, tl.sum(scale_sums, axis=0))


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _step_forward(
    x, output, scale, state, num_rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    places, inside, _, _ = places_of(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    s = tl.load(scale).to(tl.float32)
    h = read(x, places, inside) + s * read(output, places, inside)
    write(state, places, h, inside)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _step_backward(
    flow, output, scale, by_output, sums, num_rows, num_tiles, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    s = tl.load(scale).to(tl.float32)
    scale_sums = tl.zeros([ROWS], tl.float32)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        places, inside, _, _ = places_of(tile, num_rows, width, ROWS, COLUMNS)
        dh = read(flow, places, inside)
        scale_sums += tl.sum(dh * read(output, places, inside), axis=1)
        write(by_output, places, dh * s, inside)
    tl.store(sums + program, tl.sum(scale_sums, axis=0))
