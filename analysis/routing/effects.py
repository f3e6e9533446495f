"""What is a route worth? The change in loss where tokens are forced, less that of random controls.

Documents are drawn again, as wholes, and so are the controls.

Shapes in names: R resamples, U units that are drawn, D draws of a control.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from analysis.routing.resamples import (
    FEWEST_UNITS,
    Array,
    interval,
    p_values,
    resample_weights,
)
from analysis.solve.told_apart import LEVEL, adjusted

Where = Literal["at", "later"]
PLACES: tuple[Where, ...] = ("at", "later")
"""Predictions made at the forced tokens (each of the token that follows it), and those made at
other tokens after the first forced one of a window, which only look at forced tokens."""

RUN = ["force", "on"]
"""Columns that tell one intervention from another."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One intervention at one place, in nats per token: above 0, the force does harm."""

    force: str
    on: str
    """The class of tokens that was forced."""
    where: Where
    tokens: int
    """Predictions that the effect is a mean over."""
    effect: float
    """Loss with the force less loss without."""
    effect_interval: tuple[float, float] | None
    """95 %; None where too few units hold such tokens."""
    control: float | None
    """The same where random tokens are forced instead, mean over the draws; None without any."""
    difference: float | None
    """Effect less the control's: what is the class's own."""
    difference_interval: tuple[float, float] | None
    """95 %, for this difference alone."""
    p_adjusted: float | None
    """Of no difference, corrected for all differences looked at."""

    @property
    def differs(self) -> bool | None:
        """Whether the difference to the control is beyond chance; None where nothing is said."""
        return None if self.p_adjusted is None else self.p_adjusted < LEVEL


@dataclass(frozen=True, kw_only=True)
class Effects:
    """All interventions on one text."""

    unit: Literal["document", "sentence"]
    """What was drawn again: sentences where there are fewer than `FEWEST_UNITS` documents."""
    num_units: int
    effects: tuple[Effect, ...]
    """In the order of the rows, at the forced tokens first."""


def intervention_effects(rows: pl.DataFrame, *, resamples: int = 2000, seed: int = 0) -> Effects:
    """Effects with intervals.

    ``rows``: force, on, draw (null where the class itself was forced, else the control's number),
    document, sentence, is_forced, follows_forced, change_nats (null where nothing was predicted).
    """
    unit: Literal["document", "sentence"] = "document"
    if rows["document"].n_unique() < FEWEST_UNITS:
        unit = "sentence"
    keys = ["document"] if unit == "document" else ["document", "sentence"]
    units = rows.select(keys).unique().sort(keys).with_row_index("unit")
    rows = rows.drop_nulls("change_nats").join(units, on=keys)
    weights_RU = resample_weights(len(units), resamples, np.random.default_rng(seed))
    found, spreads = [], []
    for (force, on), run in rows.group_by(RUN, maintain_order=True):
        for where in PLACES:
            place = Place(run, where, num_units=len(units))
            effect, differences_R = place.effect(str(force), str(on), weights_RU)
            if effect is not None:
                found.append(effect)
                spreads.append(differences_R)
    return Effects(
        unit=unit, num_units=len(units), effects=tuple(_judged(found, spreads, len(units)))
    )


class Place:
    """Sums and counts by unit of one intervention at one place: of the class, and of each draw."""

    def __init__(self, run: pl.DataFrame, where: Where, *, num_units: int) -> None:
        is_here = {
            "at": pl.col("is_forced"),
            "later": ~pl.col("is_forced") & pl.col("follows_forced"),
        }[where]
        cells = (
            run.filter(is_here)
            .group_by("draw", "unit")
            .agg(total=pl.col("change_nats").cast(pl.Float64).sum(), count=pl.len())
        )
        draws = int(run["draw"].n_unique() - run["draw"].is_null().any())
        table = np.zeros((2, draws + 1, num_units))
        at = (cells["draw"].fill_null(-1).to_numpy() + 1, cells["unit"].to_numpy())
        table[0][at], table[1][at] = cells["total"].to_numpy(), cells["count"].to_numpy()
        self.where = where
        self._class = table[:, :1]
        self._control = table[:, 1:]

    def effect(self, force: str, on: str, weights_RU: Array) -> tuple[Effect | None, Array | None]:
        """The effect (None where there are no such tokens), and its resampled differences."""
        one_1U = np.ones((1, weights_RU.shape[1]))
        count = int(self._class[1].sum())
        if count == 0:
            return None, None
        effect, effects_R = _mean(self._class, one_1U)[0], _mean(self._class, weights_RU)
        is_told = int((self._class[1] > 0).sum()) >= FEWEST_UNITS
        control = difference = differences_R = None
        if self._control[1].sum() > 0:
            control = float(_mean(self._control, one_1U)[0])
            difference = float(effect - control)
            differences_R = effects_R - _mean(self._control, weights_RU, redrawn=True)
        return (
            Effect(
                force=force,
                on=on,
                where=self.where,
                tokens=count,
                effect=float(effect),
                effect_interval=interval(effects_R) if is_told else None,
                control=control,
                difference=difference,
                difference_interval=(
                    interval(differences_R) if is_told and differences_R is not None else None
                ),
                p_adjusted=None,
            ),
            differences_R if is_told else None,
        )


def _mean(table: Array, weights_RU: Array, *, redrawn: bool = False) -> Array:
    """Means over resamples of units, and of draws where that is asked for."""
    totals_DR, counts_DR = table[0] @ weights_RU.T, table[1] @ weights_RU.T
    weights_DR = np.ones_like(totals_DR)
    if redrawn:
        num_draws, resamples = totals_DR.shape
        weights_DR = resample_weights(num_draws, resamples, np.random.default_rng(1)).T
    with np.errstate(divide="ignore", invalid="ignore"):
        means: Array = (weights_DR * totals_DR).sum(0) / (weights_DR * counts_DR).sum(0)
    return means


def _judged(found: list[Effect], spreads: list[Array | None], num_units: int) -> list[Effect]:
    """The effects with p-values, corrected for all that are judged."""
    told = {place: spread for place, spread in enumerate(spreads) if spread is not None}
    if not told:
        return found
    difference_C = np.array([found[place].difference for place in told], dtype=float)
    differences_RC = np.stack(list(told.values()), axis=1)
    p_C = p_values(difference_C, differences_RC, num_units)
    adjusted_C = adjusted(p_C, np.ones(len(told), dtype=bool))
    judged = dict(zip(told, adjusted_C, strict=True))
    return [
        replace(effect, p_adjusted=float(judged[place]) if place in judged else None)
        for place, effect in enumerate(found)
    ]
