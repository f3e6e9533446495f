"""What is an arm? A family of models that says by itself what it is, costs, varies and minimises.

Everything else derives from an arm's price, axes and readouts: parameters, FLOPs, predicted memory,
what the search models, MLflow's numbers and the columns of tables. To write one, subclass `Arm`,
give what it requires, and make one instance; the rest has a plain default. Nothing here imports
torch, so that planning does not: `Arm.body`, `Arm.objective` and `Arm.read` import it inside.

Shapes in names: B batch, T tokens, D width, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, cast

from spaces.architecture import FAMILY_FIELDS, Architecture, CommonFields
from spaces.arms.registry import find_arm_object
from spaces.axes import Axis, Point, SolveMode
from spaces.parts.block_price import norm_price
from spaces.parts.vocabulary_price import embedding_price, head_price
from spaces.price import NOTHING, Prices

if TYPE_CHECKING:
    from torch import Tensor, nn

Shape = Any
"""An `Architecture`, or the same names holding arrays of int64."""

Readings = dict[str, Any]
"""What a forward pass tells of itself besides its state, by name: tensors."""


@dataclass(frozen=True, kw_only=True)
class Readout:
    """A number that the validation reads off every layer, as a mean over tokens."""

    name: str
    """With its unit last."""
    doc: str
    """What it is, in a few words."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one evaluation of an objective is given."""

    inputs_BT: Tensor
    targets_BT: Tensor
    mean_nats: Callable[[Tensor, Tensor], Tensor]
    """Of a state (B x T x D) and targets: mean cross-entropy through the model's head, in nats."""
    charges: Mapping[str, float]
    """What the training recipe charges for, by the name of its field."""
    seed: int = 0
    """Of the trial; with ``step`` it decides all that an objective draws."""
    step: int = 0
    """Optimizer step."""


@dataclass(frozen=True)
class Objective:
    """What a batch gives."""

    loss: Tensor
    """What to differentiate."""
    cross_entropy: Tensor
    """Mean nats per token of the model as it is measured: what a record calls loss; detached."""


class Arm:
    """One family of models. A subclass gives `name`, `axes`, `derived`, `body_price` and `body`."""

    is_arm: ClassVar[bool] = True
    name: str
    """What experiments call it."""
    axes: ClassVar[Mapping[SolveMode, tuple[Axis, ...]]]
    """What is free where each dimension is solved, in the order of a proposal."""
    derived: ClassVar[Mapping[SolveMode, str]] = {}
    """The size that the solver derives in each FFN mode; a mode that is absent cannot be solved."""
    fields: type | None = None
    """Frozen dataclass of what only this arm has; part of the identity of its trials alone."""
    source: str | None = None
    """Hash of its source where it does not ship with isoflop; set when it is loaded."""
    learning_rate: float = 0.002
    """Peak learning rate at the rule's reference shape, unless an experiment says otherwise."""
    spans_depths: bool = False
    """Whether baselines stand at the least and the greatest depth, too."""
    has_loop: bool = False
    """Whether K may be more than 1: its part ``deep`` is applied K times with shared weights, and
    a router may mix the loops."""
    is_causal: bool = True
    """Whether no prediction depends on later tokens; if not, its loss does not compare, and says
    so."""
    packs: bool = True
    """Whether nothing couples models that train in one step: no statistics over a whole step."""
    is_captured: bool = True
    """Whether a step is the same operations at every seed and step, so that a GPU replays it."""
    readouts: tuple[Readout, ...] = ()
    """What validation reads off its layers."""

    @property
    def family(self) -> str:
        """Arms of one family answer questions about each other: their configurations are the same
        kind of model."""
        return self.name

    # What an architecture is

    def problems(self, architecture: Architecture) -> list[str]:
        """Every law of this arm that the values break, with the values and a remedy."""
        return []

    def shape(
        self, point: Point, common: CommonFields, *, d_model: int, ffn_multiple: int
    ) -> Architecture:
        """The architecture at a point of the axes and a width.

        A size with a multiplier among the axes follows it; one that is still to be solved stands at
        the smallest.
        """
        values: dict[str, Any] = dict(vars(common)) | {"arm": self.name, "d_model": d_model}
        if self.fields is not None:
            values = {name: value for name, value in values.items() if name not in FAMILY_FIELDS}
        multipliers = {axis.sizes: axis.name for axis in self.all_axes() if axis.sizes}
        sizes = {
            size: rounded(point.get(multipliers.get(size, "")), d_model, ffn_multiple)
            for size in {**multipliers, **dict.fromkeys(self.derived.values())}
        }
        own_names = set() if self.fields is None else {each.name for each in fields(self.fields)}
        flat_names = {each.name for each in fields(Architecture)}
        given = sizes | dict(point)
        values |= {name: value for name, value in given.items() if name in flat_names - {"d_model"}}
        own = {name: value for name, value in given.items() if name in own_names}
        return Architecture(**values, own=None if self.fields is None else own)

    def effective_depth(self, architecture: Shape) -> int:
        """Blocks on the longest way through the model."""
        depth: int = architecture.num_layers
        return depth

    def scales_steps(self, architecture: Shape) -> bool:
        """Whether trained scales weigh what blocks add to the state."""
        return False

    def describe(self, architecture: Architecture) -> str:
        """The shape in a few words, for a line of a log."""
        a = architecture
        own = [f"{name} {value:g}" for name, value in self.sizes(a).items()]
        return ", ".join([f"{a.num_layers} x {a.d_model}", *own])

    def numbers(self, architecture: Architecture) -> dict[str, float | None]:
        """What a table shows of it besides what all arms have; units in the names."""
        own = architecture.own
        values = {} if self.fields is None else {f.name: getattr(own, f.name) for f in fields(own)}
        return {name: value for name, value in values.items() if isinstance(value, int | float)}

    def sizes(self, architecture: Architecture) -> Mapping[str, float]:
        """What tells two shapes of this arm apart besides layers and width, in short names."""
        return {name: value for name, value in self.numbers(architecture).items() if value}

    def variants(self, architecture: Architecture) -> dict[str, str]:
        """Choices of this arm other than sizes, for a person."""
        return {}

    # What it costs

    def body_price(self, shape: Shape) -> Prices:
        """The price by part of everything between embedding and head but the final norm."""
        raise NotImplementedError(f"the {self.name} arm prices no body")

    def price(self, shape: Shape) -> Prices:
        """The price of the whole model by part; with one head unless an arm says otherwise."""
        body = dict(self.body_price(shape))
        body["shared"] = body.get("shared", NOTHING) + norm_price(shape.d_model)
        return {
            "embedding": embedding_price(shape.vocab_size, shape.d_model),
            "head": head_price(shape.vocab_size, shape.d_model, shape.context_length),
            **body,
        }

    # What it computes

    def body(self, architecture: Architecture) -> nn.Module:
        """What runs between embedding and final norm: ``(x_BTD, rotation) -> (x_BTD, readings)``.

        Its parameters are declared (`spaces.parts.weights`).
        """
        raise NotImplementedError(f"the {self.name} arm builds no body")

    def objective(self, model: Any, batch: Batch) -> Objective:
        """Cross-entropy of the next token, plus `penalties`."""
        hidden_BTD, readings = model.hidden_with_readings(batch.inputs_BT)
        cross_entropy = batch.mean_nats(hidden_BTD, batch.targets_BT)
        loss = cross_entropy
        for weight, penalty in self.penalties(model.architecture, readings, batch.charges):
            loss = loss + weight * penalty
        return Objective(loss, cross_entropy.detach())

    def penalties(
        self, architecture: Architecture, readings: Readings, charges: Mapping[str, float]
    ) -> Iterator[tuple[float, Tensor]]:
        """Weight and value (a scalar) of what is added to the cross-entropy."""
        return iter(())

    def read(self, readings: Readings) -> dict[str, Tensor]:
        """Each of `readouts_of` its architecture, in their order, L x B x T."""
        return {}

    def readouts_of(self, architecture: Architecture) -> tuple[Readout, ...]:
        """Those of `readouts` that a model of the architecture has."""
        return self.readouts

    def all_axes(self) -> tuple[Axis, ...]:
        """Every axis of any mode, once each, in order."""
        return tuple({axis.name: axis for axes in self.axes.values() for axis in axes}.values())


def find_arm(name: str) -> Arm:
    """The arm of that name. Raises `RequestError` that lists the names."""
    return cast(Arm, find_arm_object(name))


def shape_in_words(architecture: Architecture) -> str:
    """The shape in a few words; of an arm that cannot be imported here, layers and width."""
    a = architecture
    return find_arm(a.arm).describe(a) if a.is_known else f"{a.num_layers} x {a.d_model}"


def rounded(multiplier: Any, d_model: int, ffn_multiple: int) -> int:
    """A multiple of the width in whole FFN multiples, at least one; one where nothing is given."""
    if multiplier is None:
        return ffn_multiple
    return max(1, int(multiplier * d_model / ffn_multiple + 0.5)) * ffn_multiple
