"""Residual steps, norms, the mixture over loops and the gated sum: a row of the state at a time.

`Block.attend`, `Block.add_ffn`, `DeepPath.mix` and `Layer.combine` in `spaces.layers` say what is
computed. A state that goes on besides its norm passes through the norm's function, so that the sum
of its two gradients costs no pass of its own. Sums over rows (gradients of weights and scales) are
made in two steps: each program its own, then all of them.

Shapes in names: B x T tokens, N rows (all tokens), D width, P programs. Arithmetic in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 2_048
"""Numbers that a program holds of each operand at once."""

SIZES = ("num_rows", "num_tiles")
"""Arguments that change with batch and sequence: no kernel has another form for another value."""

OFFSETS = ("scale", "position", "is_last")
"""Arguments that lie anywhere in a tensor: no kernel has another form for another loop's."""

PROGRAMS = 528
"""Most programs of a pass that sums over rows: four for each multiprocessor of an H100."""


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
        rows = _Rows(x)
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
        rows = _Rows(state)
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
        return by_state, by_output, _like(by_scale, scale), _like(by_weight, weight), None


class Step(torch.autograd.Function):
    """`step` with a scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(output, scale)
        state, rows = torch.empty_like(x), _Rows(x)
        _step_forward[rows.tiles,](
            x, output, scale, state, rows.count, rows.width, rows.tile, rows.columns
        )
        return state

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        output, scale = ctx.saved_tensors
        flow = gradients[0].contiguous()
        by_output, rows = torch.empty_like(output), _Rows(output)
        sums = rows.sums(1)
        _step_backward[rows.programs,](
            flow, output, scale, by_output, sums, rows.count, rows.tiles, rows.width,
            rows.tile, rows.columns,
        )  # fmt: skip
        return flow, by_output, _like(sums.sum(), scale)


class Loop(torch.autograd.Function):
    """`end_loop`."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        x, output, mixed, left, scale, router_weight, router_bias, position, is_last = operands
        state, mixed_after = torch.empty_like(x), torch.empty_like(x)
        left_after, weight = torch.empty_like(left), torch.empty_like(left)
        rows = _Rows(x)
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
        by_left, rows = torch.empty_like(left), _Rows(state)
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
            by_state, by_output, by_mixed, by_left, _like(by_scale, scale),
            _like(by_router, router_weight), _like(by_bias, router_bias), None, None,
        )  # fmt: skip


class GatedSum(torch.autograd.Function):
    """`gated_sum`."""

    @staticmethod
    def forward(
        ctx: Any, deep: Tensor, wide: Tensor, output: Tensor, scale: Tensor, gates: Tensor
    ) -> Tensor:
        gates = gates.contiguous()
        ctx.save_for_backward(deep, wide, output, scale, gates)
        total, rows = torch.empty_like(deep), _Rows(deep)
        _gated_forward[rows.tiles,](
            deep, wide, output, scale, gates, total, rows.count, rows.width, rows.tile, rows.columns
        )
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        deep, wide, output, scale, gates = ctx.saved_tensors
        flow = gradients[0].contiguous()
        by_deep, by_wide, by_output = (torch.empty_like(deep) for _ in range(3))
        by_gates, rows = torch.empty_like(gates), _Rows(deep)
        sums = rows.sums(1)
        _gated_backward[rows.programs,](
            deep, wide, output, scale, gates, flow, by_deep, by_wide, by_output, by_gates, sums,
            rows.count, rows.tiles, rows.width, rows.tile, rows.columns,
        )  # fmt: skip
        return by_deep, by_wide, by_output, _like(sums.sum(), scale), by_gates


class _Rows:
    """How the rows of a contiguous tensor are laid out over programs."""

    def __init__(self, x: Tensor) -> None:
        assert x.is_contiguous(), "a kernel reads rows one after the other"
        self._like = x
        self.width = x.shape[-1]
        self.count = x.numel() // self.width
        self.columns = triton.next_power_of_2(self.width)
        self.tile = max(1, TILE // self.columns)
        self.tiles = triton.cdiv(self.count, self.tile)
        self.programs = min(self.tiles, PROGRAMS)

    def sums(self, width: int) -> Tensor:
        """Room for each program's own sums, P x width."""
        return self._like.new_empty(self.programs, width, dtype=torch.float32)


def _like(gradient: Tensor, operand: Tensor | None) -> Tensor | None:
    """The gradient in its operand's shape and dtype."""
    return None if operand is None else gradient.view_as(operand).to(operand.dtype)


@triton.jit  # type: ignore[untyped-decorator]
def _places(tile, num_rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = tile * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    return rows.to(tl.int64)[:, None] * width + columns[None, :], inside, rows, rows < num_rows


@triton.jit  # type: ignore[untyped-decorator]
def _read(pointer, places, inside):
    return tl.load(pointer + places, inside, 0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def _write(pointer, places, value, inside):
    tl.store(pointer + places, value.to(pointer.dtype.element_ty), inside)


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _norm_forward(
    x, output, scale, weight, state, normed, num_rows, width, epsilon,
    HAS_STEP: tl.constexpr, HAS_SCALE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    places, inside, _, _ = _places(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    columns = tl.arange(0, COLUMNS)
    h = _read(x, places, inside)
    if HAS_STEP:
        u = _read(output, places, inside)
        if HAS_SCALE:
            u = u * tl.load(scale).to(tl.float32)
        h = (h + u).to(state.dtype.element_ty).to(tl.float32)
        _write(state, places, h, inside)
    factor = tl.rsqrt(tl.sum(h * h, axis=1) / width + epsilon)[:, None]
    w = _read(weight, columns, columns < width)[None, :]
    _write(normed, places, h * factor * w, inside)


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
    w = _read(weight, columns, columns < width)[None, :]
    weight_sums = tl.zeros([COLUMNS], tl.float32)
    scale_sums = tl.zeros([ROWS], tl.float32)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        places, inside, _, _ = _places(tile, num_rows, width, ROWS, COLUMNS)
        h, dy = _read(state, places, inside), _read(flow, places, inside)
        factor = tl.rsqrt(tl.sum(h * h, axis=1) / width + epsilon)[:, None]
        unit = h * factor
        weight_sums += tl.sum(dy * unit, axis=0)
        dy = dy * w
        along = tl.sum(dy * unit, axis=1)[:, None] / width
        dh = factor * (dy - unit * along)
        if HAS_THROUGH:
            dh += _read(through, places, inside)
        _write(by_state, places, dh, inside)
        if HAS_SCALE:
            scale_sums += tl.sum(dh * _read(output, places, inside), axis=1)
            _write(by_output, places, dh * tl.load(scale).to(tl.float32), inside)
    sums += program * (width + 1)
    tl.store(sums + columns, weight_sums, columns < width)
    tl.store(sums + width, tl.sum(scale_sums, axis=0))


@triton.jit(  # type: ignore[untyped-decorator]
    do_not_specialize=SIZES, do_not_specialize_on_alignment=OFFSETS
)
def _step_forward(
    x, output, scale, state, num_rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    places, inside, _, _ = _places(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    s = tl.load(scale).to(tl.float32)
    h = _read(x, places, inside) + s * _read(output, places, inside)
    _write(state, places, h, inside)


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
        places, inside, _, _ = _places(tile, num_rows, width, ROWS, COLUMNS)
        dh = _read(flow, places, inside)
        scale_sums += tl.sum(dh * _read(output, places, inside), axis=1)
        _write(by_output, places, dh * s, inside)
    tl.store(sums + program, tl.sum(scale_sums, axis=0))


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
    places, inside, rows, is_row = _places(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    columns = tl.arange(0, COLUMNS)
    w = _read(router_weight, columns, columns < width)[None, :]
    s = tl.load(scale).to(tl.float32)
    h = _read(x, places, inside) + s * _read(output, places, inside)
    h = h.to(state.dtype.element_ty).to(tl.float32)
    _write(state, places, h, inside)
    probability = _probability(h, w, router_bias, router_weight + width, position, is_last)
    remaining = _read(left, rows, is_row)
    share = probability * remaining
    _write(weight, rows, share, is_row)
    _write(left_after, rows, remaining * (1 - probability), is_row)
    _write(mixed_after, places, _read(mixed, places, inside) + share[:, None] * h, inside)


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
    w = _read(router_weight, columns, columns < width)[None, :]
    s = tl.load(scale).to(tl.float32)
    last = tl.load(is_last) != 0
    weight_sums = tl.zeros([COLUMNS], tl.float32)
    bias_sums = tl.zeros([ROWS], tl.float32)
    scale_sums = tl.zeros([ROWS], tl.float32)
    for tile in range(program, num_tiles, tl.num_programs(0)):
        places, inside, rows, is_row = _places(tile, num_rows, width, ROWS, COLUMNS)
        h = _read(state, places, inside)
        p = _probability(h, w, router_bias, router_weight + width, position, is_last)
        remaining = _read(left, rows, is_row)
        dh = tl.zeros([ROWS, COLUMNS], tl.float32)
        dshare = tl.zeros([ROWS], tl.float32)
        dleft = tl.zeros([ROWS], tl.float32)
        if HAS_THROUGH:
            dh += _read(through, places, inside)
        if HAS_SHARE:
            dshare += _read(by_share, rows, is_row)
        if HAS_MIXED:
            dmixed = _read(by_mixed, places, inside)
            dshare += tl.sum(dmixed * h, axis=1)
            dh += (p * remaining)[:, None] * dmixed
        if HAS_LEFT:
            dleft += _read(by_left_after, rows, is_row)
        _write(by_left, rows, dshare * p + dleft * (1 - p), is_row)
        dlogit = tl.where(last, 0.0, (dshare - dleft) * remaining * p * (1 - p))
        dh += dlogit[:, None] * w
        weight_sums += tl.sum(dlogit[:, None] * h, axis=0)
        bias_sums += dlogit
        _write(by_state, places, dh, inside)
        scale_sums += tl.sum(dh * _read(output, places, inside), axis=1)
        _write(by_output, places, dh * s, inside)
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
    places, inside, rows, is_row = _places(tl.program_id(0), num_rows, width, ROWS, COLUMNS)
    gate_deep = _read(gates, rows * 2, is_row)[:, None]
    gate_wide = _read(gates, rows * 2 + 1, is_row)[:, None]
    s = tl.load(scale).to(tl.float32)
    w = _read(wide, places, inside) + s * _read(output, places, inside)
    _write(total, places, gate_deep * _read(deep, places, inside) + gate_wide * w, inside)


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
        places, inside, rows, is_row = _places(tile, num_rows, width, ROWS, COLUMNS)
        dy, u = _read(flow, places, inside), _read(output, places, inside)
        gate_deep = _read(gates, rows * 2, is_row)[:, None]
        gate_wide = _read(gates, rows * 2 + 1, is_row)[:, None]
        w = _read(wide, places, inside) + s * u
        _write(by_gates, rows * 2, tl.sum(dy * _read(deep, places, inside), axis=1), is_row)
        _write(by_gates, rows * 2 + 1, tl.sum(dy * w, axis=1), is_row)
        dwide = gate_wide * dy
        _write(by_deep, places, gate_deep * dy, inside)
        _write(by_wide, places, dwide, inside)
        _write(by_output, places, dwide * s, inside)
        scale_sums += tl.sum(dwide * u, axis=1)
    tl.store(sums + program, tl.sum(scale_sums, axis=0))
