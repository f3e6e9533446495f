"""What do dual, loop, wide and standard share? A layer of a deep path, a wide path, or both.

The block is that of arXiv 2605.30202. The deep path applies one block K times with shared weights,
the wide path an enlarged one once, and gates weigh the two per token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

from spaces.architecture import UNIT_STEP_SCALE_INIT, Architecture, GateMode, StepScales
from spaces.arms.contract import Arm, Readings, Readout, Shape
from spaces.arms.routing import (
    EXPECTED_LOOPS,
    ROUTER_LOGITS,
    read_gates,
    read_router,
)
from spaces.axes import D_MODEL, LEARNING_RATE_MULTIPLIER, NUM_LAYERS, Axis, SolveMode
from spaces.parts.block_price import block_price
from spaces.parts.mixing_price import gate_price, loop_router_price
from spaces.price import NOTHING, Part, Price, plain_price

if TYPE_CHECKING:
    from torch import Tensor, nn

NUM_LOOPS = Axis(
    name="num_loops",
    doc="K, uses of the deep block (and for the unrolled arm the factor on the layers).",
    values=(1, 2, 3, 4),
)
WIDE_MULTIPLIER = Axis(
    name="wide_multiplier",
    doc="Wide FFN size over the width.",
    values=(2.0, 4.0, 6.0, 8.0),
    sizes="wide_ffn",
)
DEEP_MULTIPLIER = Axis(
    name="deep_multiplier",
    doc="Deep FFN size over the width.",
    values=(8 / 3,),
    sizes="deep_ffn",
)
ONLY_MULTIPLIER = replace(
    DEEP_MULTIPLIER, freed_by="wide_multiplier", freed=(4 / 3, 2.0, 8 / 3, 4.0, 6.0)
)
"""The same of an arm that has no other feed-forward."""
ALPHA = Axis(
    name="alpha",
    doc="Nominal deep share of a layer's FLOPs; used by solve = both_ffn only.",
    values=(0.25, 0.5, 0.75),
    below=1.0,
    read=lambda architecture: None,
)
STEP_SCALE_INIT = Axis(
    name="step_scale_init",
    doc="Start of the step scales before softplus; -7 is the paper's preset.",
    values=(UNIT_STEP_SCALE_INIT,),
    role="common",
    scale="linear",
)
STEP_SCALES = Axis(
    name="step_scales",
    doc="Whether residual steps have trained scales: as the arm comes (own), or trained.",
    values=("own",),
    role="common",
    scale="category",
    choices=get_args(StepScales),
    freed_by="step_scale_init",
    freed=("trained",),
)
GATE_MODE = Axis(
    name="gate_mode",
    doc="How the dual arm mixes its paths.",
    values=("independent",),
    role="common",
    scale="category",
    choices=get_args(GateMode),
)

GATE_BIAS_INIT = Axis(
    name="gate_bias_init",
    doc="Start of the gates' biases; 0 opens each gate half.",
    values=(0.0,),
    role="common",
    scale="linear",
    optional=True,
)
GATE_ENTROPY_PENALTY = Axis(
    name="gate_entropy_penalty",
    doc="Weight of the mean gate entropy (nats) in the loss.",
    values=(0.0,),
    role="training",
    scale="linear",
    optional=True,
)
GATE_BALANCE_PENALTY = Axis(
    name="gate_balance_penalty",
    doc="Weight of the gates' imbalance in the loss.",
    values=(0.0,),
    role="training",
    scale="linear",
    optional=True,
)
GATE_TRAINING = (GATE_BIAS_INIT, GATE_ENTROPY_PENALTY, GATE_BALANCE_PENALTY)
"""Axes of gates that an experiment has where it says so."""

TRAINED = (LEARNING_RATE_MULTIPLIER, STEP_SCALE_INIT)
"""Axes of every arm with trained step scales, after those of its shape."""

PERHAPS_TRAINED = (
    LEARNING_RATE_MULTIPLIER,
    STEP_SCALES,
    replace(STEP_SCALE_INIT, only_with=(STEP_SCALES.name, "trained")),
)
"""Axes of an arm that may have them."""


class DualPathArm(Arm):
    """An arm of the family; what it has of the block is said in four words."""

    has_deep_path: bool = True
    has_wide_path: bool = False
    has_step_scales: bool = True
    """Whether the deep path's residual steps are scaled by trained parameters, whatever the
    architecture says."""

    @property
    def has_gates(self) -> bool:
        """Whether two paths are mixed."""
        return self.has_deep_path and self.has_wide_path

    def has_router(self, shape: Shape) -> bool:
        """Whether per-token routers mix the loops."""
        return self.has_loop and bool(shape.loop_output == "mixture")

    def scales_steps(self, shape: Shape) -> bool:
        """Whether the deep path's residual steps are scaled by trained parameters."""
        return self.has_step_scales or bool(shape.step_scales == "trained")

    def loops(self, shape: Shape) -> Any:
        """K; 1 where there is no loop."""
        return shape.num_loops if self.has_loop else 1

    def problems(self, architecture: Architecture) -> list[str]:
        """Loops and sizes where the arm has none, and sizes that it lacks."""
        a, problems = architecture, []
        if a.num_loops > 1 and not self.has_loop:
            problems.append(f"the {a.arm} arm has no loop, got num_loops {a.num_loops}; use 1")
        if self.has_step_scales and a.step_scales != "own":
            problems.append(
                f"the {a.arm} arm always trains its step scales; leave out step_scales = "
                f"{a.step_scales!r}"
            )
        present = {"deep_ffn": self.has_deep_path, "wide_ffn": self.has_wide_path}
        for name, is_there in present.items():
            size = getattr(a, name)
            if is_there and size is None:
                problems.append(f"the {a.arm} arm needs {name} (its SwiGLU hidden size)")
            elif is_there and size < 1:
                problems.append(f"{name} must be at least 1, got {size}")
            elif not is_there and size is not None:
                problems.append(f"the {a.arm} arm has no {name}, got {size}; leave it out")
        return problems

    def effective_depth(self, architecture: Shape) -> int:
        """K x layers."""
        depth: int = architecture.num_layers * architecture.num_loops
        return depth

    def numbers(self, architecture: Architecture) -> dict[str, float | None]:
        """Sizes and starts."""
        a = architecture
        return {
            "deep_ffn": a.deep_ffn,
            "wide_ffn": a.wide_ffn,
            "deep_multiplier": a.deep_multiplier,
            "wide_multiplier": a.wide_multiplier,
            "step_scale_init": a.step_scale_init,
        }

    def sizes(self, architecture: Architecture) -> dict[str, int]:
        """K, and the hidden sizes of both paths."""
        a = architecture
        loops = {"K": a.num_loops} if self.has_loop else {}
        ffns = {"deep": a.deep_ffn, "wide": a.wide_ffn}
        return loops | {name: size for name, size in ffns.items() if size is not None}

    def variants(self, architecture: Architecture) -> dict[str, str]:
        """Attention of the wide path, what leaves the loops, and how gates mix."""
        a = architecture
        found: dict[str, str] = {}
        if a.step_scales != "own":
            found["step scales"] = a.step_scales
        if self.has_wide_path:
            found["wide attention"] = "yes" if a.wide_attention else "no"
        if self.has_loop:
            found["loop output"] = a.loop_output
        if self.has_gates:
            found["gates"] = a.gate_mode
        return found

    def body_price(self, shape: Shape) -> dict[Part, Price]:
        """K passes of the deep block, one of the wide one, gates, and K calls of the router."""
        s, tokens = shape, shape.context_length
        deep = wide = shared = NOTHING
        if self.has_deep_path:
            loops = self.loops(s)
            deep = block_price(s.d_model, s.deep_ffn, tokens).applied(loops)
            if self.scales_steps(s):
                deep = deep + plain_price(parameters=loops)
        if self.has_wide_path:
            block = block_price(s.d_model, s.wide_ffn, tokens, attention=s.wide_attention)
            wide = block + plain_price(parameters=1)
        if self.has_gates:
            shared = shared + gate_price(s.gate_mode, s.d_model, tokens)
        if self.has_router(s):
            shared = shared + loop_router_price(s.d_model, tokens).applied(self.loops(s))
        layer: dict[Part, Price] = {"deep": deep, "wide": wide, "shared": shared}
        return {part: price * s.num_layers for part, price in layer.items()}

    def body(self, architecture: Architecture) -> nn.Module:
        """The layers, one after the other."""
        from spaces.parts.layers import LayerStack

        return LayerStack(
            architecture,
            has_deep_path=self.has_deep_path,
            has_wide_path=self.has_wide_path,
            has_step_scales=self.scales_steps(architecture),
            has_router=self.has_router(architecture),
        )

    def penalties(
        self, architecture: Architecture, readings: Readings, charges: Mapping[str, float]
    ) -> Iterator[tuple[float, Tensor]]:
        """Expected loops, and entropy (nats) and imbalance of the gates, as means over layers and
        tokens."""
        from spaces.parts.gate import deep_share_entropy, imbalance
        from spaces.parts.router import expected_loops

        if charges.get("ponder_penalty") and "loop_weights_LBTK" in readings:
            yield charges["ponder_penalty"], expected_loops(readings["loop_weights_LBTK"]).mean()
        if charges.get("gate_entropy_penalty") and "gates_LBT2" in readings:
            entropy = deep_share_entropy(readings["gates_LBT2"])
            yield charges["gate_entropy_penalty"], entropy.mean()
        if charges.get("gate_balance_penalty") and "gates_LBT2" in readings:
            yield charges["gate_balance_penalty"], imbalance(readings["gates_LBT2"]).mean()

    def read(self, readings: Readings) -> dict[str, Tensor]:
        """How gates and routers route, where there are any."""
        found: dict[str, Tensor] = {}
        if "gates_LBT2" in readings:
            found |= read_gates(readings["gates_LBT2"])
        if "loop_weights_LBTK" in readings:
            found |= read_router(readings["loop_weights_LBTK"])
        return found

    def readouts_of(self, architecture: Architecture) -> tuple[Readout, ...]:
        """Those of what mixes loops only where something does."""
        a = architecture
        absent: set[Readout] = set()
        if not self.has_router(a):
            absent |= {EXPECTED_LOOPS, *ROUTER_LOGITS}
        elif a.num_loops == 1:
            absent |= set(ROUTER_LOGITS)
        return tuple(readout for readout in self.readouts if readout not in absent)


def one_path_axes(
    multiplier: Axis, *, loops: tuple[Axis, ...] = (), others: tuple[Axis, ...]
) -> dict[SolveMode, tuple[Axis, ...]]:
    """Axes of an arm with one FFN, which every FFN mode derives: so it stands in the same study as
    the dual arm, at the same FLOPs per token."""
    solved_ffn = (*loops, NUM_LAYERS, D_MODEL, *others)
    return {
        "tokens": (*loops, multiplier, NUM_LAYERS, D_MODEL, *others),
        "deep_ffn": solved_ffn,
        "wide_ffn": solved_ffn,
        "both_ffn": solved_ffn,
        "d_model": (*loops, multiplier, NUM_LAYERS, *others),
    }


def derives_everywhere(size: str) -> dict[SolveMode, str]:
    """An arm with one FFN: every FFN mode derives it."""
    return {"deep_ffn": size, "wide_ffn": size, "both_ffn": size}
