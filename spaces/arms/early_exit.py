"""What does a pass cost where tokens skip the deep path, or leave its loops early?

A token that is not in a loop is absent from it: no query, key, value or feed-forward of it is
computed there, and its router is not asked. Tokens of a loop attend to those of the same loop, so
that each loop costs what it would on a text of so many tokens. Gates and all else are as always.

Shapes in names: L layers, S sequences, T tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.arms.dual_path import DualPathArm
from spaces.flops import price_of
from spaces.parts.block_price import block_price
from spaces.parts.mixing_price import loop_router_price
from spaces.price import Pass


def early_exit_pass(architecture: Architecture, loops_LST: NDArray[np.integer[Any]]) -> Pass:
    """FLOPs at inference of each sequence, arrays of S: the whole model's less the loops that
    tokens are absent from.

    ``loops_LST``: loops that each token is in, 0 to K, in every layer; T is the context length.
    """
    a = architecture
    _, sequences, tokens = loops_LST.shape
    assert tokens == a.context_length
    every = np.full(sequences, tokens)
    work = price_of(a).inference
    found = Pass(products=np.full(sequences, work.products), scores=np.full(sequences, work.scores))
    for loop in range(a.num_loops):
        present_LS = (loops_LST > loop).sum(axis=-1)
        for present_S in present_LS:
            found = found + _loop(a, present_S) + _loop(a, every) * -1
    return found


def _loop(a: Architecture, tokens: NDArray[np.int64]) -> Pass:
    """One loop of one layer over so many tokens, its router included."""
    arm = find_arm(a.arm)
    assert isinstance(arm, DualPathArm)
    price = block_price(a.d_model, a.deep_ffn, tokens)
    if arm.has_router(a):
        price = price + loop_router_price(a.d_model, tokens)
    return price.inference
