"""The two ends of a model: the embedding's rows, and the softmax of the loss.

`TokenEmbedding.look_up` in `spaces.parts` and `runners.engine.loss` say what is computed.

Shapes in names: N tokens, D width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from runners.engine.kernels.rows import TILE

LOGITS = 4_096
"""Logits of a row that a program holds at once."""


def look_up(tokens_BT: Tensor, weight_VD: Tensor, dtype: torch.dtype) -> Tensor:
    """The tokens' rows in that dtype, B x T x D."""
    result: Tensor = LookUp.apply(tokens_BT, weight_VD, dtype)  # type: ignore[no-untyped-call]
    return result


def softmax_nats(logits_NV: Tensor, targets_N: Tensor, *, with_residual: bool) -> Tensor:
    """``-log p(target)`` of every token, in float32.

    With ``with_residual`` the logits are overwritten by what their gradient is: probabilities less
    the targets.
    """
    assert logits_NV.is_contiguous()
    num_rows, vocabulary = logits_NV.shape
    nats_N = torch.empty(num_rows, dtype=torch.float32, device=logits_NV.device)
    _softmax[num_rows,](logits_NV, targets_N, nats_N, vocabulary, with_residual, LOGITS)
    return nats_N


class LookUp(torch.autograd.Function):
    """`look_up`; its gradient adds up the rows of equal tokens in no fixed order."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        tokens = tokens.contiguous()
        ctx.save_for_backward(tokens, weight)
        rows = torch.empty(*tokens.shape, weight.shape[1], dtype=dtype, device=weight.device)
        _look_up_forward[_tiles(tokens, weight)](tokens, weight, rows, *_sizes(tokens, weight))
        return rows

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        tokens, weight = ctx.saved_tensors
        by_weight = torch.zeros_like(weight)
        _look_up_backward[_tiles(tokens, weight)](
            tokens, gradients[0].contiguous(), by_weight, *_sizes(tokens, weight)
        )
        return None, by_weight, None


def _tiles(tokens: Tensor, weight: Tensor) -> tuple[int]:
    _, _, rows, _ = _sizes(tokens, weight)
    return (triton.cdiv(tokens.numel(), rows),)


def _sizes(tokens: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
    """Tokens, width, and a program's rows and columns."""
    columns = triton.next_power_of_2(weight.shape[1])
    return tokens.numel(), weight.shape[1], max(1, TILE // columns), columns


@triton.jit(do_not_specialize=("num_tokens",))  # type: ignore[untyped-decorator]
def _look_up_forward(
    tokens, weight, rows, num_tokens, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)[None, :]
    inside = (places < num_tokens)[:, None] & (columns < width)
    token = tl.load(tokens + places, places < num_tokens, 0).to(tl.int64)[:, None]
    row = tl.load(weight + token * width + columns, inside, 0.0)
    tl.store(
        rows + places.to(tl.int64)[:, None] * width + columns,
        row.to(rows.dtype.element_ty),
        inside,
    )


@triton.jit(do_not_specialize=("num_tokens",))  # type: ignore[untyped-decorator]
def _look_up_backward(
    tokens, flow, by_weight, num_tokens, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    places = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    columns = tl.arange(0, COLUMNS)[None, :]
    inside = (places < num_tokens)[:, None] & (columns < width)
    token = tl.load(tokens + places, places < num_tokens, 0).to(tl.int64)[:, None]
    row = tl.load(flow + places.to(tl.int64)[:, None] * width + columns, inside, 0.0)
    tl.atomic_add(by_weight + token * width + columns, row.to(tl.float32), inside)


@triton.jit  # type: ignore[untyped-decorator]
def _softmax(
    logits, targets, nats, vocabulary, WITH_RESIDUAL: tl.constexpr, LOGITS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0)
    logits += row.to(tl.int64) * vocabulary
    target = tl.load(targets + row)
    # read before anything is overwritten: the reductions below let no warp run ahead of it
    at_target = tl.load(logits + target).to(tl.float32)
    largest = -float("inf")
    total = 0.0
    for start in range(0, vocabulary, LOGITS):
        columns = start + tl.arange(0, LOGITS)
        chunk = tl.load(logits + columns, columns < vocabulary, -float("inf")).to(tl.float32)
        larger = tl.maximum(largest, tl.max(chunk, axis=0))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(chunk - larger), axis=0)
        largest = larger
    log_normalizer = largest + tl.log(total)
    tl.store(nats + row, log_normalizer - at_target)
    if WITH_RESIDUAL:
        for start in range(0, vocabulary, LOGITS):
            columns = start + tl.arange(0, LOGITS)
            chunk = tl.load(logits + columns, columns < vocabulary, -float("inf")).to(tl.float32)
            residual = tl.exp(chunk - log_normalizer) - tl.where(columns == target, 1.0, 0.0)
            residual = residual.to(logits.dtype.element_ty)
            tl.store(logits + columns, residual, columns < vocabulary)
