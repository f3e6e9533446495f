"""Do FLOPs, sizes and tokens of a table fit together? FLOPs beside 6 N D, row by row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.laws.law import FloatArray

OTHER_UNIT = 10.0
"""A row whose ratio is ten times off the median's has another unit or a slip in a column."""

SAME_UNIT = 4.0
"""Ratios of rows that share their units and their way of counting span less than this factor."""


@dataclass(frozen=True, kw_only=True)
class FlopsAgreement:
    """FLOPs over 6 N D; loops count every time that they run."""

    ratio: float
    """Median over the rows."""
    low: float
    """5 % quantile."""
    high: float
    """95 % quantile."""
    num_rows: int
    """Rows that have all three."""
    apart: tuple[int, ...]
    """Numbers of the rows more than ten times away from the median, where all others agree."""
    per_token: float
    """Median of FLOPs over 6 N."""


def flops_agreement(
    columns: Mapping[str, FloatArray], row_numbers: NDArray[np.int64]
) -> FlopsAgreement | None:
    """FLOPs beside 6 N D where flops, tokens and sizes are there, NaN where an entry is missing."""
    size = passed_params(columns)
    if size is None or "tokens" not in columns or "flops" not in columns:
        return None
    with np.errstate(all="ignore"):
        per_token = columns["flops"] / (6.0 * size)
        ratio = per_token / columns["tokens"]
    known = np.isfinite(ratio) & (ratio > 0)
    if not known.any():
        return None
    middle = float(np.median(ratio[known]))
    far = known & (np.abs(np.log(np.where(known, ratio, 1.0) / middle)) > np.log(OTHER_UNIT))
    near = ratio[known & ~far]
    if len(near) <= far.sum() or near.max() > SAME_UNIT * near.min():
        far &= False
    low, high = np.quantile(ratio[known], [0.05, 0.95])
    return FlopsAgreement(
        ratio=middle,
        low=float(low),
        high=float(high),
        num_rows=int(known.sum()),
        apart=tuple(int(row) for row in row_numbers[far]),
        per_token=float(np.median(per_token[known])),
    )


def passed_params(columns: Mapping[str, FloatArray]) -> FloatArray | None:
    """Parameters that a token passes: all of them, and deep ones once more for every loop."""
    if "params" in columns:
        total = columns["params"]
    elif {"params_once", "params_deep"} <= set(columns):
        total = columns["params_once"] + columns["params_deep"] + columns.get("params_wide", 0.0)
    else:
        return None
    if {"params_deep", "num_loops"} <= set(columns):
        extra = (columns["num_loops"] - 1.0) * columns["params_deep"]
        return np.asarray(total + np.where(np.isfinite(extra), extra, 0.0))
    return np.asarray(total)
