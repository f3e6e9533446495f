"""What is a model? A frozen value that names every choice which changes the function or its cost.

Fields are common to all arms, of the dual-path family (arXiv 2605.30202; flat, and part of the
identity of its four arms, used or not), or an arm's own. The defaults depart from the paper's
preset in one place, ``step_scale_init``, because the paper's start decides short runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from spaces.arms.registry import find_arm_object, is_known
from spaces.errors import RequestError
from spaces.identity import added

StepScales = Literal["own", "trained"]
GateMode = Literal["independent", "convex", "softmax", "fixed"]
LoopOutput = Literal["mixture", "final", "average"]
QKNorm = Literal["none", "before", "after"]

PAPER_STEP_SCALE_INIT = -7.0
"""The published start: softplus(-7) = 0.0009, so that a fresh layer is the identity."""

UNIT_STEP_SCALE_INIT = math.log(math.e - 1.0)
"""softplus of this is 1: every block starts as an ordinary residual block.

Measured at 1e12 training FLOPs on bytes of public addresses (width 64, 2 layers, context 128, one
seed, better of two learning rates), validation nats per token from -7, -2 and this start: dual with
K = 2 2.451, 2.339, 2.324; loop with K = 3 2.518, 2.408, 2.429; wide 2.370, 2.229, 2.170.
"""


@dataclass(frozen=True, kw_only=True)
class CommonFields:
    """What the architectures of a study have in common: everything but arm and sizes."""

    head_dim: int = 64
    """Channels per attention head; even, for rotary embeddings."""
    context_length: int
    """Tokens per sequence."""
    vocab_size: int
    """Rows of the (untied) embedding and of the head."""
    gate_mode: GateMode = "independent"
    """How the two paths mix: independent sigmoids, (g, 1 - g), a softmax, or fixed halves."""
    loop_output: LoopOutput = "mixture"
    """The routers' mixture over loops, the final state, or the plain average."""
    wide_attention: bool = True
    """Whether the wide path holds its own attention besides its feed-forward."""
    qk_norm: QKNorm = "after"
    """RMSNorm (no weights) of query and key over the head: before or after RoPE, or none."""
    rope_base: float = 500_000.0
    """Base of the rotary position embedding."""
    norm_epsilon: float = 1e-5
    """Epsilon of every RMSNorm."""
    step_scale_init: float = UNIT_STEP_SCALE_INIT
    """Start of the residual step scales before softplus; -7 is the paper's preset."""
    gate_bias_init: float = 0.0
    """Start of the gates' biases (their weights start at zero); 0 opens each gate half."""
    step_scales: StepScales = added(as_before="own")
    """Whether residual steps are scaled by trained parameters: as the arm comes (own), or trained
    in an arm that comes without them (standard)."""


FAMILY_FIELDS = frozenset(
    {
        "num_loops",
        "deep_ffn",
        "wide_ffn",
        "gate_mode",
        "loop_output",
        "wide_attention",
        "step_scale_init",
        "gate_bias_init",
        "step_scales",
    }
)
"""Fields of the dual-path family; an arm with fields of its own has none of them."""


@dataclass(frozen=True, kw_only=True)
class Architecture(CommonFields):
    """One transformer of one arm. Raises `RequestError` for values that no model can have."""

    arm: str
    """Its arm, as `spaces.arms` names it: dual, loop, wide, standard, moe, or one of your own."""
    num_layers: int
    """Layers, each holding the arm's paths; at least 1."""
    num_loops: int = 1
    """K: times the deep block is applied with shared weights; 1 where there is no loop."""
    d_model: int
    """Width of the residual state, in channels; a multiple of ``head_dim``."""
    deep_ffn: int | None = None
    """SwiGLU hidden size of the deep path; absent in the wide arm."""
    wide_ffn: int | None = None
    """SwiGLU hidden size of the wide path; only in the dual and the wide arm."""
    own: Any = added(as_before=None)
    """Fields that only this arm has: a value of its ``fields`` type, or a mapping that makes one;
    None in the dual-path family."""
    arm_source: str | None = added(as_before=None)
    """Hash of the source of an arm that does not ship with isoflop; None for those that do."""

    def __post_init__(self) -> None:
        arm = find_arm_object(self.arm)
        own = own_fields(arm, self.own)
        object.__setattr__(self, "own", own)
        if self.arm_source is None:
            object.__setattr__(self, "arm_source", arm.source)
        for problem in [*architecture_problems(self), *arm.problems(self)]:
            raise RequestError(problem)

    @property
    def is_known(self) -> bool:
        """Whether its arm can be loaded here; if not, nothing but its fields is known of it."""
        return not isinstance(self.own, UnknownFields)

    @property
    def fields_left_out(self) -> frozenset[str]:
        """Fields that the canonical form lacks: those of a family that the arm is not of."""
        return frozenset() if self.own is None else FAMILY_FIELDS

    @property
    def effective_depth(self) -> int:
        """Blocks on the longest way through the model: K x layers."""
        depth: int = find_arm_object(self.arm).effective_depth(self)
        return depth

    @property
    def deep_multiplier(self) -> float | None:
        """``deep_ffn / d_model``; None where there is no deep path."""
        return None if self.deep_ffn is None else self.deep_ffn / self.d_model

    @property
    def wide_multiplier(self) -> float | None:
        """``wide_ffn / d_model``; None where there is no wide path."""
        return None if self.wide_ffn is None else self.wide_ffn / self.d_model

    def size(self, name: str) -> Any:
        """A field of the architecture, or of what its arm alone has."""
        return getattr(self if hasattr(self, name) else self.own, name)

    def with_size(self, name: str, value: Any) -> Architecture:
        """The architecture with another value of a field, be it its arm's own."""
        if name in self.__dataclass_fields__:
            return replace(self, **{name: value})
        return replace(self, own=replace(self.own, **{name: value}))


@dataclass(frozen=True)
class UnknownFields(Mapping[str, Any]):
    """What a stored architecture says of an arm that cannot be imported here."""

    items_in_order: tuple[tuple[str, Any], ...]

    def __getitem__(self, name: str) -> Any:
        return dict(self.items_in_order)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self.items_in_order))

    def __len__(self) -> int:
        return len(self.items_in_order)


def own_fields(arm: Any, values: Any) -> Any:
    """A value of an arm's ``fields`` from a mapping. Raises `RequestError`."""
    if arm.fields is None:
        if values is not None:
            raise RequestError(f"the {arm.name} arm has no fields of its own, got {values!r}")
        return None
    if isinstance(values, arm.fields):
        return values
    names = [each.name for each in fields(arm.fields)]
    given = dict(values) if isinstance(values, Mapping) else {}
    try:
        return arm.fields(**given)
    except TypeError as error:
        raise RequestError(
            f"the {arm.name} arm's own fields are {', '.join(names)}, got {given or values!r}: "
            f"{error}"
        ) from None


def stored_architecture(form: Mapping[str, Any]) -> Architecture:
    """An architecture from its canonical form, even where its arm cannot be imported here."""
    if is_known(form["arm"]):
        names = {each.name for each in fields(Architecture)}
        return Architecture(**{name: form[name] for name in form if name in names})
    unknown = object.__new__(Architecture)
    for each in fields(Architecture):
        value = form.get(each.name, each.default)
        if each.name == "own":
            value = UnknownFields(tuple(sorted((form.get("own") or {}).items())))
        object.__setattr__(unknown, each.name, value)
    return unknown


def architecture_problems(architecture: Architecture) -> list[str]:
    """Every law of all arms that the values break, each with the values and a remedy."""
    a = architecture
    problems: list[str] = []
    for name, allowed in (
        ("gate_mode", get_args(GateMode)),
        ("loop_output", get_args(LoopOutput)),
        ("qk_norm", get_args(QKNorm)),
        ("step_scales", get_args(StepScales)),
    ):
        if getattr(a, name) not in allowed:
            problems.append(f"{name} must be one of {', '.join(allowed)}, got {getattr(a, name)!r}")
    if problems:
        return problems
    for name in ("num_layers", "num_loops", "d_model", "head_dim", "context_length", "vocab_size"):
        if getattr(a, name) < 1:
            problems.append(f"{name} must be at least 1, got {getattr(a, name)}")
    if problems:
        return problems
    if a.head_dim % 2:
        problems.append(f"head_dim must be even for rotary embeddings, got {a.head_dim}")
    if a.d_model % a.head_dim:
        nearest = max(1, round(a.d_model / a.head_dim)) * a.head_dim
        problems.append(
            f"head_dim must divide d_model, got head_dim {a.head_dim} and d_model {a.d_model}; "
            f"use d_model {nearest}"
        )
    if a.norm_epsilon <= 0 or a.rope_base <= 0:
        problems.append(
            f"norm_epsilon and rope_base must be positive, got {a.norm_epsilon} and {a.rope_base}"
        )
    return problems
