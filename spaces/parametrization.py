"""How do start, rate, epsilon and decay of each kind of weight follow the shape of a model?

A peak rate that is best at one width, depth or number of loops is not best at another. A
parametrisation changes what surrounds the rate, so that one rate does for all shapes:

- ``mup`` (Tensor Programs V, arXiv 2203.03466, table 8; Adam): over width;
- ``complete-p`` (CompleteP, arXiv 2505.01618, table 1 with alpha = 1): over width and depth;
- a loop factor ``1 / K`` besides (arXiv 2606.18524): over uses of one shared block.

With ``m_d = d_model / base_width``, ``m_L = num_layers / base_layers`` and, for arms that loop,
``m_K = num_loops / base_loops``, both papers scale starts, rates, Adam's epsilon and decay, *and*
multiply two linear maps in the forward pass: the head by ``1 / m_d``, what ends a residual step by
``1 / m_L`` (and by ``1 / m_K``). No forward pass here has such multipliers, since a multiplier c on
a linear map ``y = c W x`` is absorbed by the matrix itself, ``W' = c W``:

- the function is the same if W' starts at c times the standard deviation;
- the gradients are ``G = c G'``, so Adam's step of W is ``rate * c m' / (c sqrt(v') + epsilon)``,
  and that of W', c times as long, ``(c rate) * m' / (sqrt(v') + epsilon / c)``;
- decoupled decay takes the share ``rate * decay`` of either, so W' has the decay ``decay / c``.

So a multiplier is four factors: c, c, 1 / c, 1 / c on start, rate, epsilon and decay; the training
is the same, up to the clipping of the *global* gradient norm, in which the gradient of W' is 1 / c
times that of W. What a parametrisation leaves is then four `Factors` a kind of weight; at its base
shape all are 1. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.price import Part

Kind = Literal["embedding", "vector", "hidden", "branch", "readout"]
"""How a weight grows with the width: rows of tokens; norms, biases and step scales; matrices from
width to width; of these, those that end a residual step; from width to a fixed number (the head,
gates, routers)."""

ParametrizationName = Literal["standard", "mup", "complete-p"]
LoopFactor = Literal["none", "inverse"]


@dataclass(frozen=True)
class Factors:
    """What multiplies the declared and the recipe's values for one kind of weight."""

    std: float = 1.0
    """Of the standard deviation of its start."""
    rate: float = 1.0
    """Of the learning rate."""
    epsilon: float = 1.0
    """Of Adam's epsilon."""
    decay: float = 1.0
    """Of the decoupled weight decay, where it decays at all."""

    def __mul__(self, other: Factors) -> Factors:
        return Factors(
            std=self.std * other.std,
            rate=self.rate * other.rate,
            epsilon=self.epsilon * other.epsilon,
            decay=self.decay * other.decay,
        )


@dataclass(frozen=True, kw_only=True)
class Parametrization:
    """A rule and the shape at which it changes nothing."""

    name: ParametrizationName = "standard"
    """standard: nothing follows the shape; mup: over width; complete-p: over width and depth."""
    base_width: int = 128
    """Channels of the base shape."""
    base_layers: int = 4
    """Layers of the base shape."""
    base_loops: int = 2
    """K of the base shape, for arms that loop."""
    loop_factor: LoopFactor = "none"
    """inverse: what ends a residual step of a looped block is divided by K / base_loops."""

    @property
    def follows_shape(self) -> bool:
        """Whether it scales anything at all."""
        return self.name in ("mup", "complete-p")

    def at(self, architecture: Architecture) -> ResolvedParametrization:
        """The factors at an architecture; `STANDARD` for ``standard``, whatever its base shape."""
        if not self.follows_shape:
            return STANDARD
        width = architecture.d_model / self.base_width
        by_depth = self.name == "complete-p"
        depth = architecture.num_layers / self.base_layers if by_depth else 1.0
        hidden = Factors(std=width**-0.5, rate=1 / width, epsilon=1 / (width * depth), decay=width)
        # the declared start of a branch falls as 1 / sqrt(2 num_layers): back to the base's
        branch = hidden * Factors(std=depth**0.5) * absorbed(1 / depth)
        return ResolvedParametrization(
            rule=self,
            embedding=Factors(epsilon=1 / width),
            vector=Factors(epsilon=1 / (width * depth)),
            hidden=hidden,
            branch=branch,
            looped_branch=branch * absorbed(self.loop_multiplier(architecture)),
            readout=Factors(epsilon=1 / width) * absorbed(1 / width),
        )

    def loop_multiplier(self, architecture: Architecture) -> float:
        """``base_loops / num_loops`` where the arm loops and there is a loop factor, else 1."""
        if self.loop_factor == "none" or not find_arm(architecture.arm).has_loop:
            return 1.0
        return self.base_loops / architecture.num_loops


@dataclass(frozen=True, kw_only=True)
class ResolvedParametrization:
    """A parametrisation at one architecture: all that training needs of it."""

    rule: Parametrization = Parametrization()
    """What it was resolved from."""
    embedding: Factors = Factors()
    """Rows of tokens."""
    vector: Factors = Factors()
    """Norms, biases and step scales."""
    hidden: Factors = Factors()
    """Matrices from width to width."""
    branch: Factors = Factors()
    """Matrices that end a residual step that is taken once."""
    looped_branch: Factors = Factors()
    """Matrices that end a residual step of the deep path."""
    readout: Factors = Factors()
    """From width to a fixed number."""

    def of(self, kind: Kind, part: Part) -> Factors:
        """The factors of a weight of that kind in that part of the model."""
        is_looped = kind == "branch" and part == "deep"
        found: Factors = getattr(self, "looped_branch" if is_looped else kind)
        return found


STANDARD = ResolvedParametrization()
"""As before there were parametrisations."""


def absorbed(multiplier: float) -> Factors:
    """What a matrix takes over from a multiplier on its product (see the module)."""
    return Factors(multiplier, multiplier, 1 / multiplier, 1 / multiplier)
