"""What may a search vary? Axes as values: what they set, and how the search reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from spaces.architecture import Architecture

SolveMode = Literal["tokens", "deep_ffn", "wide_ffn", "both_ffn", "d_model"]
"""Which dimension is solved from a budget."""

AxisValue: TypeAlias = float | int | str
Point: TypeAlias = Mapping[str, AxisValue]
"""A value of every axis, by name."""

Role = Literal["shape", "common", "training"]
"""What an axis sets: a dimension that the solver turns into a shape, a field that shapes have in
common, or the training recipe."""

Scale = Literal["log", "linear", "category"]
"""How a model of the loss reads an axis."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that an arm can vary."""

    name: str
    """As in an experiment's ``axes``."""
    doc: str
    """What it is, in a few words."""
    values: tuple[Any, ...]
    """What an experiment tries that says nothing else, in order."""
    role: Role = "shape"
    sizes: str | None = None
    """The size that this axis sets as a multiple of ``d_model``, to whole FFN multiples."""
    scale: Scale = "log"
    choices: tuple[Any, ...] = ()
    """All that a category can be."""
    below: float | None = None
    """Values lie below this; positive they always are where the scale is ``log``."""
    at_least: float | None = None
    """Of an experiment's values, those that an arm can have: the others are left out for it."""
    freed_by: str | None = None
    """An axis that gives an arm of another family the same freedom: beside such an arm, an
    experiment that says nothing else tries ``freed`` values."""
    freed: tuple[Any, ...] = ()
    """See ``freed_by``."""
    optional: bool = False
    """Whether it is an axis only of experiments that give it values; elsewhere the architecture or
    the recipe says what holds, and no point has it."""
    only_with: tuple[str, Any] | None = None
    """Another axis, and the value of it without which this one means nothing."""
    read: Callable[[Architecture], AxisValue | None] | None = None
    """What a resolved architecture has of it; left out: the field of the axis's name."""

    def of(self, architecture: Architecture) -> AxisValue | None:
        """What the architecture resolved it to; None where it has no such thing."""
        if self.role == "training":
            return None
        if self.read is not None:
            return self.read(architecture)
        value: AxisValue | None = architecture.size(self.name)
        return value

    def admitted(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Of an experiment's values those that the arm can have; 1 where it can have none."""
        if self.at_least is None:
            return values
        return tuple(value for value in values if value >= self.at_least) or (1,)


NUM_LAYERS = Axis(name="num_layers", doc="Depth.", values=(2, 3, 4))
D_MODEL = Axis(name="d_model", doc="Width, in channels.", values=(64, 96, 128))
LEARNING_RATE_MULTIPLIER = Axis(
    name="learning_rate_multiplier",
    doc="Peak learning rate over the rule's.",
    values=(1.0,),
    role="training",
)


@dataclass(frozen=True, kw_only=True)
class Axes:
    """One point of the shape axes; `spaces.budget.axes_of` says which an arm has in a mode, the
    rest is None."""

    num_layers: int
    """Depth."""
    num_loops: int | None = None
    """K."""
    d_model: int | None = None
    """Width, in channels."""
    deep_multiplier: float | None = None
    """Deep SwiGLU size over the width, rounded to the FFN multiple."""
    wide_multiplier: float | None = None
    """Wide SwiGLU size over the width, rounded to the FFN multiple."""
    alpha: float | None = None
    """Deep path's nominal share of a layer's path FLOPs, between 0 and 1."""
    own: Mapping[str, AxisValue] = field(default_factory=dict)
    """Axes that only one arm has, by name."""

    def point(self) -> dict[str, AxisValue]:
        """The values that there are, by name."""
        flat = {name: value for name, value in vars(self).items() if name != "own"}
        return {name: value for name, value in flat.items() if value is not None} | dict(self.own)
