"""Which colour is whose? One per arm, the same in every figure; a ramp for budgets.

Okabe and Ito's colours, told apart by readers with any colour vision and on white as on black;
budgets come from the middle of viridis, light enough for a dark page and dark enough for paper.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spaces.arms.registry import BUILT_IN

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
"""In the order in which things without a name of their own take them."""

NEUTRAL = "#7F7F7F"
"""Of what belongs to no one arm."""

MANY_MARKS = 100
"""Runs of one curve from which on their marks are smaller."""

RAMP = ("#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962")
"""Smallest budget to largest."""


@dataclass(frozen=True, kw_only=True)
class ArmStyle:
    """How an arm is shown: by colour and by shape, so that neither is all that tells it apart."""

    colour: str
    """As #rrggbb."""
    symbol: str
    """Its mark as plotly names it."""
    marker: str
    """Its mark as matplotlib names it."""
    glyph: str
    """Its mark in a line of text."""


SHAPES = (
    ("circle", "o", "●"),
    ("square", "s", "■"),
    ("triangle-up", "^", "▲"),
    ("diamond", "D", "◆"),
    ("triangle-down", "v", "▼"),
    ("x", "X", "✖"),
    ("cross", "P", "✚"),
)
"""Marks by place, as plotly, matplotlib and text have them."""


def arm_styles(arms: Iterable[str]) -> dict[str, ArmStyle]:
    """The style of each arm (or family): of those that ship always the same, the others in order
    after them, or from the first on where none of those that ship is there."""
    arms = list(arms)
    shipped = list(BUILT_IN) if set(BUILT_IN) & set(arms) else []
    own = sorted(set(arms) - set(shipped))
    places = {arm: place for place, arm in enumerate([*shipped, *own])}
    return {arm: _style(places[arm]) for arm in arms}


def _style(place: int) -> ArmStyle:
    """The style of a place; the second round of colours has other shapes."""
    shape = (place + place // len(COLOURS)) % len(SHAPES)
    symbol, marker, glyph = SHAPES[shape]
    return ArmStyle(colour=COLOURS[place % len(COLOURS)], symbol=symbol, marker=marker, glyph=glyph)


def budget_colours(budgets: Sequence[str]) -> dict[str, str]:
    """A colour for each budget, given smallest first."""
    steps = max(1, len(budgets) - 1)
    return {each: _along(place / steps) for place, each in enumerate(budgets)}


def _along(share: float) -> str:
    """The ramp's colour at a share of its way, between its two nearest."""
    place = share * (len(RAMP) - 1)
    left = min(int(place), len(RAMP) - 2)
    ends = [[int(each[i : i + 2], 16) for i in (1, 3, 5)] for each in RAMP[left : left + 2]]
    mixed = [round(a + (b - a) * (place - left)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{each:02x}" for each in mixed)
