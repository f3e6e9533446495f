"""What is a parameter? Its kind, start, decay, rate and rounding, declared where it is made.

A module that owns parameters says what each of them is in ``weights``; the nearest module around it
that has a ``part`` says which part of the model it belongs to. What nothing declares is an error.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spaces.architecture import Architecture
from spaces.errors import RequestError
from spaces.parametrization import STANDARD, Factors, Kind, ResolvedParametrization
from spaces.price import PARTS, Part

WEIGHT_STD = 0.02
"""Standard deviation of fresh weights (the authors' public configurations)."""


class UndeclaredParameterError(RequestError):
    """A model has a parameter or a state that no module declares."""


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What one parameter is."""

    std: float = 0.0
    """Standard deviation of its normal start; 0: it starts at ``start``."""
    start: float = 0.0
    """Where it starts, if it is not drawn."""
    decays: bool = False
    """Whether decoupled weight decay acts on it: on matrices of paths and on the head.

    Not on the embedding, a look-up whose rare rows decay would shrink between their uses (OLMo 2,
    arXiv 2501.00656), nor on gates and routers, which it would pull towards one half.
    """
    is_rounded: bool = False
    """Whether a step in bfloat16 computes with a rounded copy of it."""
    rate: float = 1.0
    """Its learning rate over the recipe's."""
    kind: Kind = "vector"
    """How it grows with the width: what a parametrisation goes by."""

    def fresh(self, name: str, shape: torch.Size, seed: int, *, std_factor: float = 1.0) -> Tensor:
        """Its start on the CPU in float32; drawn by a generator of its own, seeded by (seed, name),
        so that what two architectures share starts equal."""
        if not self.std:
            return torch.full(shape, self.start)
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        seed_of_name = int.from_bytes(digest[:8], "little") >> 1
        std = self.std * std_factor
        generator = torch.Generator(device="cpu").manual_seed(seed_of_name)
        return torch.empty(shape, device="cpu").normal_(0.0, std, generator=generator)


@dataclass(frozen=True, kw_only=True)
class DeclaredParameter:
    """A parameter of a model with all that is declared of it."""

    name: str
    """As in the model's state."""
    parameter: nn.Parameter
    weight: Weight
    part: Part

    def factors(self, parametrization: ResolvedParametrization = STANDARD) -> Factors:
        """What a parametrisation multiplies its start, rate, epsilon and decay by."""
        return parametrization.of(self.weight.kind, self.part)

    def fresh(self, seed: int, parametrization: ResolvedParametrization) -> Tensor:
        """Its start on the CPU in float32."""
        factor = self.factors(parametrization).std
        return self.weight.fresh(self.name, self.parameter.shape, seed, std_factor=factor)


class Piece(nn.Module):
    """A module that declares its parameters as it makes them."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: dict[str, Weight] = {}
        self.states: set[str] = set()

    def declare(self, name: str, shape: tuple[int, ...], weight: Weight) -> None:
        """Make a parameter of that name and say what it is."""
        self.register_parameter(name, nn.Parameter(torch.empty(shape)))
        self.weights[name] = weight

    def initialize(self) -> None:
        """Set what is no parameter; called once the weights are drawn."""

    def declare_state(self, name: str, value: Tensor) -> None:
        """Make a tensor that is saved and resumed with the weights, but is none; `initialize` sets
        it anew for every trial."""
        self.register_buffer(name, value)
        self.states.add(name)


def declared_parameters(model: nn.Module) -> Iterator[DeclaredParameter]:
    """Every parameter of a model, in its order. Raises `UndeclaredParameterError`."""
    seen: set[int] = set()
    for place, module in model.named_modules():
        declared: dict[str, Weight] = getattr(module, "weights", {})
        for leaf, parameter in module.named_parameters(recurse=False):
            name = f"{place}.{leaf}" if place else leaf
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            part = part_of(model, place)
            if leaf not in declared or part is None:
                raise UndeclaredParameterError(
                    f"every parameter is declared where it is made, but {name} of "
                    f"{type(module).__name__} has no {'weight' if part else 'part'}; make it with "
                    f"Piece.declare, inside a module whose part is one of {', '.join(PARTS)}"
                )
            yield DeclaredParameter(
                name=name, parameter=parameter, weight=declared[leaf], part=part
            )


def require_declared_state(model: nn.Module) -> None:
    """Raise `UndeclaredParameterError` where a model saves a tensor that nothing declares."""
    parameters = {name for name, _ in model.named_parameters()}
    for name in model.state_dict().keys() - parameters:
        place, _, leaf = name.rpartition(".")
        module = model.get_submodule(place)
        if leaf not in getattr(module, "states", ()):
            raise UndeclaredParameterError(
                f"every tensor that is saved is declared where it is made, but {name} of "
                f"{type(module).__name__} is not; make it with Piece.declare_state, or register it "
                f"with persistent=False"
            )


def part_of(model: nn.Module, place: str) -> Part | None:
    """The part of the nearest module on the way from a place to the model; None where none says."""
    names = place.split(".") if place else []
    for depth in range(len(names), -1, -1):
        part: Part | None = getattr(model.get_submodule(".".join(names[:depth])), "part", None)
        if part is not None:
            return part
    return None


def matrix(std: float = WEIGHT_STD, *, kind: Kind = "hidden") -> Weight:
    """A matrix of a path: drawn, decayed, rounded."""
    return Weight(std=std, decays=True, is_rounded=True, kind=kind)


def branch_matrix(architecture: Architecture) -> Weight:
    """A matrix that ends a residual step, drawn with `residual_std`."""
    return matrix(residual_std(architecture), kind="branch")


def readout(std: float = WEIGHT_STD) -> Weight:
    """A matrix from the state to a few numbers, such as a router's: drawn, rounded, not decayed."""
    return Weight(std=std, is_rounded=True, kind="readout")


def residual_std(architecture: Architecture) -> float:
    """Of projections that end a residual step: ``0.02 / sqrt(2 * num_layers)``, GPT-2's rule.

    K is left out on purpose: a start that depended on it would mix the effect of a loop with that
    of a start.
    """
    return WEIGHT_STD / math.sqrt(2 * architecture.num_layers)
