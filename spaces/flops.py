"""How many FLOPs does an architecture cost? Its arm's price, in three conventions.

``full`` counts attention scores over the whole square, ``causal`` half of them, ``projection``
none. A certificate (`spaces.certificate`) holds prices equal to two counters; nothing here imports
torch.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.price import BODY_PARTS, Integers, Pass, Price, Prices, total
from spaces.price import CONVENTIONS as CONVENTIONS
from spaces.price import Convention as Convention


@dataclass(frozen=True, kw_only=True)
class FlopsByConvention:
    """One cost, counted in each convention; a float only where tokens share a FLOP."""

    full: int
    """With attention scores over the whole square."""
    causal: int
    """With half of the square."""
    projection: int
    """Without attention scores."""

    def get(self, convention: Convention) -> int:
        """The cost in one convention."""
        flops: int = getattr(self, convention)
        return flops

    __getitem__ = get

    def as_dict(self) -> dict[str, int]:
        """The costs by convention."""
        return {"full": self.full, "causal": self.causal, "projection": self.projection}

    def times(self, factor: int) -> FlopsByConvention:
        """The cost of ``factor`` such things."""
        return FlopsByConvention(**{name: factor * flops for name, flops in self.as_dict().items()})

    def over(self, divisor: int) -> FlopsByConvention:
        """The share of each of ``divisor`` things; exact where that is a whole number."""
        return FlopsByConvention(
            **{name: quotient(flops, divisor) for name, flops in self.as_dict().items()}
        )


@lru_cache(maxsize=4096)
def prices_of(architecture: Architecture) -> Prices:
    """The price of a model by part, for one sequence."""
    return find_arm(architecture.arm).price(architecture)


@lru_cache(maxsize=4096)
def price_of(architecture: Architecture) -> Price:
    """The price of a model, for one sequence."""
    return total(prices_of(architecture))


def by_convention(work: Pass) -> FlopsByConvention:
    """A pass in every convention."""
    return FlopsByConvention(**{name: int(work.flops(name)) for name in CONVENTIONS})


@lru_cache(maxsize=4096)
def forward_flops_per_sequence(architecture: Architecture) -> FlopsByConvention:
    """FLOPs of a forward pass over one whole sequence, the head included."""
    return by_convention(price_of(architecture).forward)


@lru_cache(maxsize=4096)
def train_flops_per_sequence(architecture: Architecture) -> FlopsByConvention:
    """FLOPs of training on one whole sequence: forward and backward."""
    return by_convention(price_of(architecture).training)


def forward_flops_per_token(architecture: Architecture) -> FlopsByConvention:
    """Forward FLOPs per token of the whole model at its full context; the head is in each."""
    return forward_flops_per_sequence(architecture).over(architecture.context_length)


def train_flops_per_token(architecture: Architecture) -> FlopsByConvention:
    """Training FLOPs per token."""
    return train_flops_per_sequence(architecture).over(architecture.context_length)


def layer_flops_per_token(architecture: Architecture) -> FlopsByConvention:
    """Forward FLOPs per token of one layer: its paths, gates and routers, without the head."""
    prices = prices_of(architecture)
    body = sum((prices[part].forward for part in BODY_PARTS if part in prices), Pass())
    return by_convention(body).over(architecture.num_layers * architecture.context_length)


def part_flops_per_token(
    architecture: Architecture, part: str, convention: Convention
) -> int | float:
    """Forward FLOPs per token of one part of the model; 0 of a part that it lacks."""
    work = {name: price.forward for name, price in prices_of(architecture).items()}
    flops = work.get(part, Pass()).flops(convention)  # type: ignore[call-overload]
    per_token: int | float = quotient(int(flops), architecture.context_length)
    return per_token


def deep_share(architecture: Architecture, convention: Convention) -> float:
    """alpha: the deep path's share of the paths' FLOPs, without gates and routers.

    An arm with one path stands at the end of the axis: 1 without a wide path, 0 without a deep one.
    """
    deep = part_flops_per_token(architecture, "deep", convention)
    wide = part_flops_per_token(architecture, "wide", convention)
    return float(deep / (deep + wide))


def forward_flops_grid(
    *,
    arm: str,
    context_length: Integers,
    vocab_size: Integers,
    convention: Convention,
    **sizes: Any,
) -> NDArray[np.int64]:
    """Forward FLOPs per token of many architectures of one arm; arrays broadcast to one shape.

    ``sizes``: ``num_layers``, ``d_model``, and what else the arm's price reads, be it its own;
    those that it lacks are ignored.
    """
    shape = shape_of_arrays(context_length=context_length, vocab_size=vocab_size, **sizes)
    flops = total(find_arm(arm).price(shape)).forward.flops(convention)
    return np.asarray(flops // shape.context_length, dtype=np.int64)


def shape_of_arrays(**sizes: Any) -> SimpleNamespace:
    """Sizes as a price reads them: the architecture's names, whole numbers as arrays of int64.

    Raises TypeError where a size is not a whole number.
    """
    values = {name: as_int64(size) if is_count(size) else size for name, size in sizes.items()}
    defaults = {each.name: each.default for each in fields(Architecture)}
    absent = {name: as_int64(0) for name in ("deep_ffn", "wide_ffn")}
    known = {name: value for name, value in defaults.items() if value is not MISSING}
    return SimpleNamespace(**(known | absent | values | {"own": SimpleNamespace(**values)}))


def is_count(size: Any) -> bool:
    """Whether a value is a whole number, or an array, and no choice."""
    return isinstance(size, int | np.integer | np.ndarray) and not isinstance(size, bool)


def as_int64(values: Any) -> NDArray[np.int64]:
    """Integers as an array; raises TypeError where a value is not a whole number."""
    return np.asarray(values).astype(np.int64, casting="same_kind")


def quotient(dividend: int, divisor: int) -> Any:
    """The quotient as an integer where it is one."""
    whole, rest = divmod(dividend, divisor)
    return dividend / divisor if rest else whole
