"""How many parameters does an architecture have, and where do they sit? By its arm's price."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.flops import price_of, prices_of, shape_of_arrays
from spaces.price import NOTHING, PARTS, Integers


@dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Stored parameters by part; the five parts sum to the total exactly."""

    total: int
    """All parameters."""
    embedding: int
    """The input embedding, ``vocab_size * d_model``."""
    head: int
    """The output matrix, untied."""
    deep: int
    """The deep paths of all layers: attention, SwiGLU, norms, step scales; the only path of an arm
    that is no wide one."""
    wide: int
    """The wide paths of all layers: the same, used once."""
    shared: int
    """Gates and routers of all layers, and the final norm."""

    def as_dict(self) -> dict[str, int]:
        """The counts by name, as the ``flops`` verb prints them."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class ParameterGrid:
    """The counts of `ParameterCounts` for many architectures at once; arrays of one shape."""

    total: NDArray[np.int64]
    embedding: NDArray[np.int64]
    head: NDArray[np.int64]
    deep: NDArray[np.int64]
    wide: NDArray[np.int64]
    shared: NDArray[np.int64]


def count_parameters(architecture: Architecture) -> ParameterCounts:
    """Stored parameters of one architecture by part."""
    prices = prices_of(architecture)
    parts = {part: int(prices.get(part, NOTHING).parameters) for part in PARTS}
    return ParameterCounts(total=sum(parts.values()), **parts)


def count_active_parameters(architecture: Architecture) -> int:
    """Parameters that one token uses; all of them where nothing is routed."""
    return int(price_of(architecture).active_parameters)


def parameter_grid(*, arm: str, vocab_size: Integers, **sizes: Any) -> ParameterGrid:
    """Stored parameters of many architectures of one arm; integer arrays broadcast to one shape.

    Sizes that the arm lacks are ignored, as are loops of an arm without a loop.
    """
    shape = shape_of_arrays(vocab_size=vocab_size, context_length=1, **sizes)
    prices = find_arm(arm).price(shape)
    counts = [np.asarray(prices.get(part, NOTHING).parameters, dtype=np.int64) for part in PARTS]
    arrays = np.broadcast_arrays(*counts)
    return ParameterGrid(
        total=np.sum(arrays, axis=0, dtype=np.int64), **dict(zip(PARTS, arrays, strict=True))
    )
