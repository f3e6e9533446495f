"""How do rows meet the matrices of their experts? Two operators whose shapes no route changes.

Rows are sorted by expert and cut at ``ends``; the number of rows is fixed, only where the cuts lie
depends on the route, so a CUDA graph replays it. On a GPU of compute capability 9 in bfloat16 they
are PyTorch's grouped products, elsewhere plain ones.

Shapes in names: M rows (tokens times experts chosen), E experts, I and O channels in and out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

EXPERT_PRODUCTS = ("expert_product", "expert_outer")
"""Names of the operators."""


@torch.library.custom_op("isoflop::expert_product", mutates_args=())
def expert_product(rows_MI: Tensor, weights_EIO: Tensor, ends_E: Tensor) -> Tensor:
    """Each row times its expert's matrix, M x O."""
    if _has_grouped_products(rows_MI):
        return torch._grouped_mm(rows_MI, weights_EIO, offs=ends_E)
    if rows_MI.is_cuda:
        expert_M = _expert_of_rows(ends_E, len(rows_MI))
        return torch.bmm(rows_MI.unsqueeze(1), weights_EIO[expert_M]).squeeze(1)
    pieces = zip(_pieces(rows_MI, ends_E), weights_EIO, strict=True)
    return torch.cat([rows @ weight for rows, weight in pieces])


@torch.library.custom_op("isoflop::expert_outer", mutates_args=())
def expert_outer(rows_MI: Tensor, rows_MO: Tensor, ends_E: Tensor) -> Tensor:
    """The sum over each expert's rows of their outer products, E x I x O."""
    if _has_grouped_products(rows_MI):
        return torch._grouped_mm(rows_MI.T.contiguous(), rows_MO, offs=ends_E)
    if rows_MI.is_cuda:
        sums = rows_MI.new_zeros(len(ends_E), rows_MI.shape[1], rows_MO.shape[1])
        outer = torch.bmm(rows_MI.unsqueeze(2), rows_MO.unsqueeze(1))
        return sums.index_add_(0, _expert_of_rows(ends_E, len(rows_MI)), outer)
    pieces = zip(_pieces(rows_MI, ends_E), _pieces(rows_MO, ends_E), strict=True)
    return torch.stack([left.T @ right for left, right in pieces])


def _has_grouped_products(rows: Tensor) -> bool:
    """Whether PyTorch's grouped product runs on these rows without asking the host."""
    return (
        rows.is_cuda
        and rows.dtype == torch.bfloat16
        and torch.cuda.get_device_capability(rows.device)[0] == 9
        and hasattr(torch, "_grouped_mm")
    )


def _pieces(rows: Tensor, ends_E: Tensor) -> Sequence[Tensor]:
    """The rows of each expert, on a CPU."""
    ends = ends_E.tolist()
    return torch.split(rows, [end - start for start, end in zip([0, *ends], ends, strict=False)])


def _expert_of_rows(ends_E: Tensor, num_rows: int) -> Tensor:
    return torch.searchsorted(ends_E, torch.arange(num_rows, device=ends_E.device), right=True)


@expert_product.register_fake
def _(rows_MI: Tensor, weights_EIO: Tensor, ends_E: Tensor) -> Tensor:
    return rows_MI.new_empty(rows_MI.shape[0], weights_EIO.shape[2])


@expert_outer.register_fake
def _(rows_MI: Tensor, rows_MO: Tensor, ends_E: Tensor) -> Tensor:
    return rows_MI.new_empty(ends_E.shape[0], rows_MI.shape[1], rows_MO.shape[1])


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _product_backward(ctx: Any, grad_MO: Tensor) -> tuple[Tensor, Tensor, None]:
    rows_MI, weights_EIO, ends_E = ctx.saved_tensors
    grad_MO = grad_MO.contiguous()
    rows = torch.ops.isoflop.expert_product(grad_MO, weights_EIO.mT.contiguous(), ends_E)
    weights = torch.ops.isoflop.expert_outer(rows_MI, grad_MO, ends_E)
    return rows, weights, None


expert_product.register_autograd(_product_backward, setup_context=_keep)


def expert_product_flops(left: Sequence[int], right: Sequence[int], *rest: Any, **more: Any) -> int:
    """2 x rows x channels in x channels out, for either operator: its last two shapes."""
    return int(2 * left[0] * left[1] * right[-1])


register_flop_formula([torch.ops.isoflop.expert_product, torch.ops.isoflop.expert_outer])(
    expert_product_flops
)
