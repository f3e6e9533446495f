"""How does a model route? What gates and routers say of themselves, as means over tokens by layer.

A path is *nearly closed* for a token where its share of the two gates is below `NEARLY_CLOSED`, and
has *collapsed* in a layer where it is nearly closed for at least `COLLAPSED` of the tokens. Scores
between 0 and 1 hide their scale, so logits are kept too, as mean and mean square (which add up over
layers and seeds); they are read back from float32 scores, which ends at `LARGEST_LOGIT`.

Shapes in names: B batch, T tokens, K loops, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from spaces.arms.contract import Readout

if TYPE_CHECKING:
    from torch import Tensor

NEARLY_CLOSED = 0.05
"""Share of the gates' sum below which a path hardly counts for a token."""
COLLAPSED = 0.95
"""Share of tokens with a path nearly closed from which on the layer has lost it."""
LARGEST_LOGIT = math.log(2.0**24)
"""Of a score in float32: 1 - 2^-24 is the last number below 1."""

DEEP_SHARE = Readout(name="deep_share", doc="Gate of the deep path over the sum of both.")
GATE_ENTROPY = Readout(name="gate_entropy_nats", doc="Binary entropy of the deep share.")
DEEP_CLOSED = Readout(name="deep_closed_share", doc="Tokens with the deep path nearly closed.")
WIDE_CLOSED = Readout(name="wide_closed_share", doc="Tokens with the wide path nearly closed.")
DEEP_LOGIT = Readout(name="deep_gate_logit", doc="Logit of the deep path's gate.")
DEEP_LOGIT_SQUARED = Readout(name="deep_gate_logit_squared", doc="Its square.")
WIDE_LOGIT = Readout(name="wide_gate_logit", doc="Logit of the wide path's gate.")
WIDE_LOGIT_SQUARED = Readout(name="wide_gate_logit_squared", doc="Its square.")
GATES = (
    DEEP_SHARE,
    GATE_ENTROPY,
    DEEP_CLOSED,
    WIDE_CLOSED,
    DEEP_LOGIT,
    DEEP_LOGIT_SQUARED,
    WIDE_LOGIT,
    WIDE_LOGIT_SQUARED,
)
"""Where two paths are mixed."""

EXPECTED_LOOPS = Readout(name="expected_loops", doc="Loops of the deep path, sum of t q_t.")
ROUTER_LOGITS = (
    Readout(name="router_logit", doc="Logit of stopping, mean over all loops but the last."),
    Readout(name="router_logit_squared", doc="Mean of its square over the same loops."),
)
"""Where there is a choice of loops."""


def read_gates(gates_LBT2: Tensor) -> dict[str, Tensor]:
    """`GATES`, each L x B x T."""
    from spaces.parts.gate import deep_share, deep_share_entropy

    share = deep_share(gates_LBT2)
    deep, wide = gates_LBT2.float().logit(eps=math.exp(-LARGEST_LOGIT)).unbind(-1)
    return {
        DEEP_SHARE.name: share,
        GATE_ENTROPY.name: deep_share_entropy(gates_LBT2),
        DEEP_CLOSED.name: (share < NEARLY_CLOSED).float(),
        WIDE_CLOSED.name: (1 - share < NEARLY_CLOSED).float(),
        DEEP_LOGIT.name: deep,
        DEEP_LOGIT_SQUARED.name: deep.square(),
        WIDE_LOGIT.name: wide,
        WIDE_LOGIT_SQUARED.name: wide.square(),
    }


def read_router(loop_weights_LBTK: Tensor) -> dict[str, Tensor]:
    """`EXPECTED_LOOPS`, and `ROUTER_LOGITS` where there is more than one loop, L x B x T."""
    from spaces.parts.router import expected_loops, stop_logits

    found = {EXPECTED_LOOPS.name: expected_loops(loop_weights_LBTK)}
    if loop_weights_LBTK.shape[-1] > 1:
        logits = stop_logits(loop_weights_LBTK).clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
        values = (logits.mean(-1), logits.square().mean(-1))
        found |= {each.name: value for each, value in zip(ROUTER_LOGITS, values, strict=True)}
    return found


def collapsed_layers_share(readouts: Mapping[str, Sequence[float]]) -> float | None:
    """Share of layers in which a path has collapsed; None where no closed shares were read."""
    if not {DEEP_CLOSED.name, WIDE_CLOSED.name} <= readouts.keys():
        return None
    layers = list(zip(readouts[DEEP_CLOSED.name], readouts[WIDE_CLOSED.name], strict=True))
    return sum(max(closed) >= COLLAPSED for closed in layers) / len(layers)
