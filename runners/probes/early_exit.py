"""How does a model compute only the loops that a token needs? By gathering the tokens that stay.

In each layer a rule says which tokens enter the deep path, and after each loop which stay. It knows
a token's gate or router, which know that token and those before it. A token that does not enter
gives the sum of its gates to the wide path; one that leaves after a loop gives that loop all that
is left of its weights, as the last loop has it. Who is not in a loop is absent from it: tokens in
it attend to those in it before them. All that is causal, and what is computed is what is counted
(`spaces.arms.early_exit`).

Shapes in names: B sequences, T tokens, N most tokens of a sequence in a loop, M tokens in a loop
of all sequences, D width, H heads, C channels, L layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from runners.probes.forcing import layers_of
from spaces.arms.contract import Readings
from spaces.arms.dual_path import DualPathArm
from spaces.errors import RequestError
from spaces.model import LanguageModel
from spaces.parts.attention import Attention, Rotation
from spaces.parts.block import Block, step_scales_of, stepped
from spaces.parts.gate import deep_share
from spaces.parts.layers import DeepPath, Layer
from spaces.parts.norm import at_least_float32

By = Literal["gate", "router"]

EVERY_TOKEN, NO_TOKEN = 0.0, 2.0
"""Thresholds that keep every token in every loop, and none in any that it may leave."""


class Rule(Protocol):
    """Who goes on."""

    def enters(self, layer: int, gates_BT2: Tensor | None, like_BT: Tensor) -> Tensor:
        """Which tokens enter the deep path of a layer, B x T; ``like_BT`` has the shape."""
        ...

    def stays(self, layer: int, loop: int, left_M: Tensor, rows_M: Tensor, at_M: Tensor) -> Tensor:
        """Which of the tokens in a loop are in the next; ``left_M`` is their weight that is left,
        rows and places say which they are."""
        ...


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """By the model's own score: at least so much of the gates' sum on the deep path to enter it, or
    so much weight left for later loops to stay."""

    by: By
    threshold: float

    def enters(self, layer: int, gates_BT2: Tensor | None, like_BT: Tensor) -> Tensor:
        """By the deep share."""
        if self.by == "router" or gates_BT2 is None:
            return torch.ones_like(like_BT, dtype=torch.bool)
        return deep_share(gates_BT2) >= self.threshold

    def stays(self, layer: int, loop: int, left_M: Tensor, rows_M: Tensor, at_M: Tensor) -> Tensor:
        """By the weight that is left."""
        if self.by == "gate":
            return torch.ones_like(left_M, dtype=torch.bool)
        return left_M >= self.threshold


@dataclass(frozen=True)
class Given:
    """As told."""

    loops_LBT: Tensor
    """Loops that each token is in, in every layer."""

    def enters(self, layer: int, gates_BT2: Tensor | None, like_BT: Tensor) -> Tensor:
        """Those with a loop."""
        return self.loops_LBT[layer] > 0

    def stays(self, layer: int, loop: int, left_M: Tensor, rows_M: Tensor, at_M: Tensor) -> Tensor:
        """Those with more loops."""
        return self.loops_LBT[layer, rows_M, at_M] > loop + 1


def require_exits(model: LanguageModel, by: By) -> None:
    """Raise `RequestError` where a model has no such score."""
    a = model.architecture
    if not isinstance(model.arm, DualPathArm):
        raise RequestError(f"what an early exit costs is known of no {a.arm} arm; use another run")
    for layer in layers_of(model):
        if by == "gate" and layer.gate is None:
            raise RequestError(
                f"to skip the deep path by gate needs gates, but the {a.arm} arm has none; name a "
                f"run of the dual arm"
            )
        if by == "router" and (layer.deep is None or layer.deep.router is None or a.num_loops < 2):
            raise RequestError(
                f"to stop looping by router needs loops that a router mixes, but this {a.arm} "
                f"model has {a.num_loops} with loop output {a.loop_output!r}; name a run with "
                f'num_loops 2 or more and loop_output = "mixture"'
            )


def exits_of(model: LanguageModel) -> list[By]:
    """What a model can leave by. Raises `RequestError` where it is nothing."""
    found: list[By] = []
    ways: tuple[By, ...] = ("gate", "router")
    for by in ways:
        try:
            require_exits(model, by)
        except RequestError:
            continue
        found.append(by)
    if not found:
        raise RequestError(
            f"a model of the {model.architecture.arm} arm has neither gates nor a router of loops, "
            f"so nothing says which tokens need less; name a run of the dual or loop arm"
        )
    return found


@torch.no_grad()
def early_exit_hidden(model: LanguageModel, tokens_BT: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """The state before the head, B x T x D, and the loops that each token was in, L x B x T."""
    layers, loops = layers_of(model), []

    def body(x_BTD: Tensor, rotation: Rotation) -> tuple[Tensor, Readings]:
        for index, layer in enumerate(layers):
            x_BTD, loops_BT = _layer(layer, index, x_BTD, rotation, rule)
            loops.append(loops_BT)
        return x_BTD, {}

    hidden_BTD, _ = model.hidden_with_readings(tokens_BT, body=body)
    return hidden_BTD, torch.stack(loops)


def _layer(
    layer: Layer, index: int, x_BTD: Tensor, rotation: Rotation, rule: Rule
) -> tuple[Tensor, Tensor]:
    assert layer.deep is not None
    gates_BT2 = None if layer.gate is None else layer.gate(x_BTD)
    enters_BT = rule.enters(index, gates_BT2, x_BTD[..., 0])
    deep_BTD, loops_BT = _deep(layer.deep, index, x_BTD, enters_BT, rotation, rule)
    if layer.wide is None or gates_BT2 is None:
        return deep_BTD, loops_BT
    skips_BT1 = ~enters_BT[..., None]
    all_wide_BT2 = torch.cat((torch.zeros_like(gates_BT2[..., :1]), gates_BT2.sum(-1, True)), -1)
    gates_BT2 = torch.where(skips_BT1, all_wide_BT2, gates_BT2)
    deep_BT1, wide_BT1 = torch.split(gates_BT2.to(x_BTD.dtype), 1, dim=-1)
    wide_BTD: Tensor = layer.wide(x_BTD, rotation)
    return deep_BT1 * deep_BTD + wide_BT1 * wide_BTD, loops_BT


def _deep(
    deep: DeepPath, index: int, x_BTD: Tensor, is_in_BT: Tensor, rotation: Rotation, rule: Rule
) -> tuple[Tensor, Tensor]:
    """The deep path's output, 0 for who skips it, and how many loops each token was in."""
    out_BTD, loops_BT = torch.zeros_like(x_BTD), is_in_BT.long()
    rows_M, at_M = is_in_BT.nonzero(as_tuple=True)
    x_MD = x_BTD[rows_M, at_M]
    mixed_MD = torch.zeros_like(x_MD)
    left_M1 = torch.ones_like(at_least_float32(x_MD[:, :1]))
    for loop, step_scale in enumerate(step_scales_of(deep.step_scales, deep.num_loops)):
        if len(x_MD) == 0:
            break
        seats = Seats.of(rows_M, at_M, num_rows=len(x_BTD))
        x_MD = _block(deep.block, x_MD, seats, rotation, step_scale)
        mixed_MD, left_M1 = _mix(deep, loop, x_MD, mixed_MD, left_M1)
        if loop == deep.num_loops - 1:
            out_BTD[rows_M, at_M] = mixed_MD
            break
        stays_M = rule.stays(index, loop, left_M1[:, 0], rows_M, at_M)
        ends_M = ~stays_M
        ended_MD = mixed_MD[ends_M] + left_M1[ends_M].to(x_MD.dtype) * x_MD[ends_M]
        out_BTD[rows_M[ends_M], at_M[ends_M]] = ended_MD
        x_MD, mixed_MD, left_M1, rows_M, at_M = (
            each[stays_M] for each in (x_MD, mixed_MD, left_M1, rows_M, at_M)
        )
        loops_BT[rows_M, at_M] += 1
    return out_BTD, loops_BT


def _mix(
    deep: DeepPath, loop: int, x_MD: Tensor, mixed_MD: Tensor, left_M1: Tensor
) -> tuple[Tensor, Tensor]:
    """The mixture with a loop's state, and the weight that is left for later ones."""
    is_last = loop == deep.num_loops - 1
    if deep.router is None:
        share = 1 / deep.num_loops if deep.loop_output == "average" else float(is_last)
        return mixed_MD + share * x_MD, left_M1 - share
    mixed_1MD, left_1M1, _ = deep.router.mix(
        x_MD[None],
        mixed_MD[None],
        left_M1[None],
        position=deep.loop_positions_K[loop],
        is_last=deep.is_last_loop_K[loop],
    )
    return mixed_1MD[0], left_1M1[0]


@dataclass(frozen=True, kw_only=True)
class Seats:
    """Where tokens of a loop sit while they attend: sequence by sequence, without gaps."""

    rows_M: Tensor
    """Of which sequence each is."""
    at_M: Tensor
    """Where in the sequence: its position."""
    seats_M: Tensor
    """How many tokens of the loop come before it in its sequence."""
    num_rows: int
    num_seats: int
    """N, of the sequence with the most."""

    @classmethod
    def of(cls, rows_M: Tensor, at_M: Tensor, *, num_rows: int) -> Seats:
        """The seats of tokens that come in order of their sequences and places."""
        counts_B = torch.bincount(rows_M, minlength=num_rows)
        first_B = counts_B.cumsum(0) - counts_B
        seats_M = torch.arange(len(rows_M), device=rows_M.device) - first_B[rows_M]
        return cls(
            rows_M=rows_M,
            at_M=at_M,
            seats_M=seats_M,
            num_rows=num_rows,
            num_seats=int(counts_B.max()),
        )

    def seated(self, x_MHC: Tensor) -> Tensor:
        """B x H x N x C, zeros behind the last of a sequence."""
        seated_BNHC = x_MHC.new_zeros(self.num_rows, self.num_seats, *x_MHC.shape[1:])
        seated_BNHC[self.rows_M, self.seats_M] = x_MHC
        return seated_BNHC.transpose(1, 2)


def _block(
    block: Block, x_MD: Tensor, seats: Seats, rotation: Rotation, step_scale: Tensor | None
) -> Tensor:
    """One pass of a block over the tokens of a loop."""
    if block.attention is not None and block.attention_norm is not None:
        attended_MD = _attend(block.attention, block.attention_norm(x_MD), seats, rotation)
        x_MD = stepped(x_MD, attended_MD, step_scale)
    return stepped(x_MD, block.ffn(block.ffn_norm(x_MD)), step_scale)


def _attend(attention: Attention, x_MD: Tensor, seats: Seats, rotation: Rotation) -> Tensor:
    """Attention of the tokens of a loop to those before them; zeros come after all of them."""
    there = Rotation(rotation.cos_TC[seats.at_M], rotation.sin_TC[seats.at_M])
    q, k, v = (
        seats.seated(each[0]) for each in attention.position(attention.qkv(x_MD[None]), there)
    )
    mixed_BHNC = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mixed_MHC = mixed_BHNC.transpose(1, 2)[seats.rows_M, seats.seats_M]
    output: Tensor = attention.output(mixed_MHC.flatten(1))
    return output
