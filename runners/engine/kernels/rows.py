"""How does a pass over the state's rows divide its work? What kernels that take whole rows share.

Sums over rows (gradients of weights and scales) are made in two steps: each program its own, then
all of them.
"""

from __future__ import annotations

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


class Rows:
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


def like(gradient: Tensor, operand: Tensor | None) -> Tensor | None:
    """The gradient in its operand's shape and dtype."""
    return None if operand is None else gradient.view_as(operand).to(operand.dtype)


@triton.jit  # type: ignore[untyped-decorator]
def places_of(tile, num_rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    rows = tile * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)
    inside = (rows < num_rows)[:, None] & (columns < width)[None, :]
    return rows.to(tl.int64)[:, None] * width + columns[None, :], inside, rows, rows < num_rows


@triton.jit  # type: ignore[untyped-decorator]
def read(pointer, places, inside):
    return tl.load(pointer + places, inside, 0.0).to(tl.float32)


@triton.jit  # type: ignore[untyped-decorator]
def write(pointer, places, value, inside):
    tl.store(pointer + places, value.to(pointer.dtype.element_ty), inside)
