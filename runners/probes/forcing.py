"""What would a model say if some tokens took another route?

A force sets the gates, or the weights of the loops, of chosen tokens in chosen layers. Inside a
layer nothing else changes: every token still passes both paths, and others look at it as before.

Shapes in names: B windows, T tokens, D width, K loops.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from spaces.arms.contract import Readings
from spaces.errors import RequestError
from spaces.model import LanguageModel
from spaces.parts.attention import Rotation
from spaces.parts.block import step_scales_of
from spaces.parts.layers import DeepPath, Layer, LayerStack
from spaces.parts.norm import at_least_float32

Path = Literal["deep", "wide", "close-deep", "close-wide"]
LOOPS = "loops="


@dataclass(frozen=True, kw_only=True)
class Force:
    """What is done to chosen tokens; with neither, nothing."""

    name: str = "nothing"
    """As `read_force` reads it."""
    path: Path | None = None
    """``deep``, ``wide``: that path has the sum of both gates, the other 0. ``close-deep``,
    ``close-wide``: that path has 0, the other what it had."""
    loops: int | None = None
    """The deep path's output is the state after so many loops."""
    layers: frozenset[int] | None = None
    """Where; None for everywhere."""

    def gates(self, gates_BT2: Tensor) -> Tensor:
        """Gates as forced: deep first."""
        deep_BT, wide_BT = gates_BT2.unbind(-1)
        none_BT, both_BT = torch.zeros_like(deep_BT), deep_BT + wide_BT
        forced = {
            "deep": (both_BT, none_BT),
            "wide": (none_BT, both_BT),
            "close-deep": (none_BT, wide_BT),
            "close-wide": (deep_BT, none_BT),
        }
        return gates_BT2 if self.path is None else torch.stack(forced[self.path], dim=-1)

    def loop_weights(self, weights_BTK: Tensor) -> Tensor:
        """Weights of the loops as forced."""
        if self.loops is None:
            return weights_BTK
        forced_BTK = torch.zeros_like(weights_BTK)
        forced_BTK[..., self.loops - 1] = 1
        return forced_BTK


def read_force(words: str, model: LanguageModel, layers: Collection[int] | None = None) -> Force:
    """The force of that name. Raises `RequestError` where there is none, or the model cannot."""
    a, paths = model.architecture, get_args(Path)
    wrong = sorted(set(layers or ()) - set(range(a.num_layers)))
    if wrong:
        raise RequestError(f"layers are 0 to {a.num_layers - 1}, got {wrong}; name those")
    where = None if layers is None else frozenset(layers)
    if words in paths:
        _require_paths(model, words)
        return Force(name=words, path=words, layers=where)  # type: ignore[arg-type]
    number = words.removeprefix(LOOPS)
    if not (words.startswith(LOOPS) and number.isdecimal()):
        raise RequestError(f"a force is one of {', '.join(paths)}, {LOOPS}N, got {words!r}")
    _require_loops(model, words, int(number))
    return Force(name=words, loops=int(number), layers=where)


def usual_forces(model: LanguageModel) -> list[str]:
    """What is asked of a model unless someone says otherwise. Raises `RequestError` where it has
    no choice of routes."""
    a = model.architecture
    if all(layer.gate is not None for layer in layers_of(model)):
        return ["deep", "wide"]
    if a.num_loops == 1:
        raise RequestError(
            f"this model has one path and one loop (arm {a.arm}), no other route to force a token "
            f"along; name a run of the dual arm, or of the loop arm with 2 or more loops"
        )
    return [f"{LOOPS}{loops}" for loops in range(1, a.num_loops)]


def _require_paths(model: LanguageModel, words: str) -> None:
    if any(layer.gate is None for layer in layers_of(model)):
        raise RequestError(
            f"{words} needs two paths and their gates, but the {model.architecture.arm} arm has "
            f"no gates; name a run of the dual arm"
        )


def _require_loops(model: LanguageModel, words: str, loops: int) -> None:
    a = model.architecture
    if any(layer.deep is None for layer in layers_of(model)):
        raise RequestError(
            f"{words} needs a deep path, but the {a.arm} arm has none; name a run of the dual or "
            f"loop arm"
        )
    if not 1 <= loops <= a.num_loops:
        raise RequestError(f"this model has 1 to {a.num_loops} loops, got {words}; ask for those")


def layers_of(model: LanguageModel) -> list[Layer]:
    """The layers of a model of paths. Raises `RequestError` where it is made of something else."""
    if not isinstance(model.layers, LayerStack):
        raise RequestError(
            f"tokens can be sent along paths and loops, but the {model.architecture.arm} arm has "
            f"neither; name a run of the dual or loop arm"
        )
    return [layer for layer in model.layers if isinstance(layer, Layer)]


@torch.no_grad()
def forced_hidden(
    model: LanguageModel, tokens_BT: Tensor, chosen_BT: Tensor, force: Force
) -> Tensor:
    """The state before the head where the chosen tokens are forced, B x T x D."""
    layers = layers_of(model)

    def body(x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, Readings]:
        for index, layer in enumerate(layers):
            is_here = force.layers is None or index in force.layers
            here = force if is_here else Force()
            x_BTD = _forced_layer(layer, x_BTD, rotation, chosen_BT[..., None], here)
        return x_BTD, {}

    return model.hidden_with_readings(tokens_BT, body=body)[0]


def _forced_layer(
    layer: Layer, x_BTD: Tensor, rotation: Rotation, chosen_BT1: Tensor, force: Force
) -> Tensor:
    assert layer.deep is not None
    states = loop_states(layer.deep, x_BTD, rotation)
    weights_BTK = loop_weights(layer.deep, states)
    weights_BTK = torch.where(chosen_BT1, force.loop_weights(weights_BTK), weights_BTK)
    shares = torch.split(weights_BTK.to(x_BTD.dtype), 1, dim=-1)
    deep_BTD = sum(
        (share * state for share, state in zip(shares, states, strict=True)),
        torch.zeros_like(x_BTD),
    )
    if layer.wide is None or layer.gate is None:
        return deep_BTD
    gates_BT2 = layer.gate(x_BTD)
    gates_BT2 = torch.where(chosen_BT1, force.gates(gates_BT2), gates_BT2)
    deep_BT1, wide_BT1 = torch.split(gates_BT2.to(x_BTD.dtype), 1, dim=-1)
    wide_BTD: Tensor = layer.wide(x_BTD, rotation)
    return deep_BT1 * deep_BTD + wide_BT1 * wide_BTD


def loop_states(deep: DeepPath, x_BTD: Tensor, rotation: Rotation) -> list[Tensor]:
    """The state after each loop."""
    states = []
    for step_scale in step_scales_of(deep.step_scales, deep.num_loops):
        x_BTD = deep.block(x_BTD, rotation, step_scale)
        states.append(x_BTD)
    return states


def loop_weights(deep: DeepPath, states: list[Tensor]) -> Tensor:
    """How much each loop's state counts in the path's output, B x T x K: by the router, all the
    same, or the last alone."""
    left_BT1 = torch.ones_like(at_least_float32(states[0][..., :1]))
    if deep.router is None:
        if deep.loop_output == "average":
            return (left_BT1 / deep.num_loops).expand(*left_BT1.shape[:2], deep.num_loops)
        weights = [torch.zeros_like(left_BT1)] * (deep.num_loops - 1)
        return torch.cat([*weights, left_BT1], dim=-1)
    found, mixed_BTD = [], torch.zeros_like(states[0])
    for state, position, is_last in zip(
        states, deep.loop_positions_K, deep.is_last_loop_K, strict=True
    ):
        mixed_BTD, left_BT1, weight_BT1 = deep.router.mix(
            state, mixed_BTD, left_BT1, position=position, is_last=is_last
        )
        found.append(weight_BT1)
    return torch.cat(found, dim=-1)
