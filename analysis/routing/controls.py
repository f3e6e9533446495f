"""Which tokens are like those of a class, but not of it? As many, as frequent, and placed alike.

Tokens are compared by how often their kind occurs in the text and by their position in the model's
window, both in powers of 2. A control never holds a token of the class. Where a position has more
tokens of the class than others, a random part of the class is taken, as large as the rest; where a
frequency is short of others, the nearest frequency stands in, and the share that did not need to is
reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.routing.token_classes import CLASSES, token_class
from spaces.errors import RequestError

EVERYTHING = "all"
"""The name of all tokens, which have no control."""

Mask = NDArray[np.bool_]
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Tokens of one class, and random ones like them; masks over the rows of a text's tokens."""

    name: str
    """The class or tag."""
    class_tokens: int
    """Tokens of it in the text."""
    is_forced: Mask
    """Those taken: all, or a random part where others are too few for a control."""
    controls: tuple[Mask, ...]
    """Draws of as many others; none where all tokens are forced."""
    matched_share: float
    """Share of the controls' tokens that are as frequent as those that they stand for."""

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What is forced, one after the other: the class, then every control."""
        return (self.is_forced, *self.controls)


def choose_tokens(tokens: pl.DataFrame, name: str, *, draws: int, seed: int = 0) -> Chosen:
    """The tokens of a class or tag and their controls. Raises `RequestError` where there are none.

    ``tokens`` has a row for each, with form, tag, word, token and position.
    """
    is_class = _is_of(tokens, name)
    if name == EVERYTHING:
        return Chosen(
            name=name,
            class_tokens=len(is_class),
            is_forced=is_class,
            controls=(),
            matched_share=1.0,
        )
    rng = np.random.default_rng([seed, *name.encode()])
    position, frequency = _profile(tokens)
    is_forced = _no_more_than_others(is_class, position, rng)
    if not is_forced.any():
        raise RequestError(f"no token is at the positions of {name!r} but not of it; name another")
    drawn = [_control(is_class, is_forced, position, frequency, rng) for _ in range(draws)]
    return Chosen(
        name=name,
        class_tokens=int(is_class.sum()),
        is_forced=is_forced,
        controls=tuple(mask for mask, _ in drawn),
        matched_share=sum(matched for _, matched in drawn) / (draws * int(is_forced.sum())),
    )


def classes_held(tokens: pl.DataFrame) -> list[str]:
    """The classes that a text holds, in the order of `CLASSES`."""
    held = set(tokens.select(name=token_class())["name"].unique())
    return [name for name in CLASSES if name in held]


def _is_of(tokens: pl.DataFrame, name: str) -> Mask:
    if name == EVERYTHING:
        return np.ones(len(tokens), dtype=bool)
    named = pl.col("tag") == name if name.isupper() else token_class() == name
    found: Mask = tokens.select(found=named.fill_null(False))["found"].to_numpy()
    if not found.any():
        tags: Sequence[str] = sorted(tokens["tag"].drop_nulls().unique())
        raise RequestError(
            f"the text has no token of {name!r}; it has the classes "
            f"{', '.join(classes_held(tokens))}, the tags {', '.join(tags)}, and {EVERYTHING}"
        )
    return found


def _profile(tokens: pl.DataFrame) -> tuple[Places, Places]:
    """Position and frequency of each token in powers of 2."""
    bins = tokens.select(
        position=pl.col("position").log(2).floor().cast(pl.Int64),
        frequency=pl.len().over("token").log(2).floor().cast(pl.Int64),
    )
    return bins["position"].to_numpy(), bins["frequency"].to_numpy()


def _no_more_than_others(is_class: Mask, position: Places, rng: np.random.Generator) -> Mask:
    """The class, thinned at positions that it has most of."""
    kept = is_class.copy()
    for place in np.unique(position[is_class]):
        here = position == place
        members, others = np.flatnonzero(here & is_class), int((here & ~is_class).sum())
        too_many = max(0, len(members) - others)
        kept[rng.permutation(members)[:too_many]] = False
    return kept


def _control(
    is_class: Mask,
    is_forced: Mask,
    position: Places,
    frequency: Places,
    rng: np.random.Generator,
) -> tuple[Mask, int]:
    """As many others by position; and how many of them have the very frequency."""
    control, matched = np.zeros_like(is_class), 0
    for place in np.unique(position[is_forced]):
        here = position == place
        wanted = np.bincount(frequency[here & is_forced], minlength=int(frequency.max()) + 1)
        pools = [
            rng.permutation(np.flatnonzero(here & ~is_class & (frequency == each)))
            for each in range(len(wanted))
        ]
        taken, exact = _nearest(wanted, pools)
        control[taken] = True
        matched += exact
    return control, matched


def _nearest(wanted: Places, pools: list[Places]) -> tuple[Places, int]:
    """So many of each pool, or of the nearest that has any left; and how many of the very pool."""
    left, used, exact = wanted.copy(), np.zeros_like(wanted), 0
    sizes = np.array([len(pool) for pool in pools])
    for distance in range(len(pools)):
        for place in np.flatnonzero(left):
            for other in {place - distance, place + distance} & set(range(len(pools))):
                count = min(left[place], sizes[other] - used[other])
                left[place] -= count
                used[other] += count
        if distance == 0:
            exact = int(used.sum())
    return np.concatenate([pool[:count] for pool, count in zip(pools, used, strict=True)]), exact
