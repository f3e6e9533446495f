"""How does each class of tokens route, and which differ from all others beyond chance?

Documents are drawn again, as wholes, because words of one text are not independent. A class differs
where its mean less that of all other tokens does, at 5 % over all classes looked at together (Holm
1979); the test divides by the bootstrap's standard error, with Student's t for documents less one.

Shapes in names: R resamples, U units that are drawn, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from analysis.routing.token_classes import token_class
from analysis.solve.told_apart import LEVEL, adjusted
from spaces.errors import RequestError

Measure = Literal["deep_share", "g_d", "g_w", "expected_loops"]
By = Literal["class", "tag", "layer", "position", "frequency"]
WordGate = Literal["mean", "last"]


@dataclass(frozen=True, kw_only=True)
class ClassMean:
    """One class of tokens."""

    name: str
    """The class, tag, layer, or stretch of positions or frequencies."""
    words: int
    """Words, and tokens of no word, in it."""
    units: int
    """Documents (or sentences) that hold any."""
    mean: float
    """Mean over its words and all layers."""
    interval: tuple[float, float] | None
    """95 % interval of the mean; None where too few units hold the class."""
    difference: float | None
    """Mean less that of all other words; None where there are no others."""
    difference_interval: tuple[float, float] | None
    """95 % interval of the difference, for this class alone."""
    p_adjusted: float | None
    """Of no difference, corrected for all classes looked at."""

    @property
    def differs(self) -> bool | None:
        """Whether the difference is beyond chance; None where nothing can be said."""
        return None if self.p_adjusted is None else self.p_adjusted < LEVEL


@dataclass(frozen=True, kw_only=True)
class ClassMeans:
    """All classes of one probe."""

    measure: Measure
    by: By
    unit: Literal["document", "sentence"]
    """What was drawn again: sentences where there are fewer than `FEWEST_UNITS` documents."""
    num_units: int
    classes: tuple[ClassMean, ...]
    """Largest mean first; layers, positions and frequencies in order."""


def class_means(
    probe: pl.DataFrame,
    *,
    measure: Measure = "deep_share",
    by: By = "class",
    word_gate: WordGate = "mean",
    resamples: int = 2000,
    seed: int = 0,
) -> ClassMeans:
    """Means of a probe's rows by class, with intervals.

    A word counts once: with the mean over its pieces or with its last piece. Raises `RequestError`
    where the model has no such measure.
    """
    values = _word_values(probe, measure, by, word_gate)
    unit: Literal["document", "sentence"] = "document"
    if values["document"].n_unique() < FEWEST_UNITS:
        unit = "sentence"
    keys = ["document"] if unit == "document" else ["document", "sentence"]
    sums_UC, counts_UC, names = _tables(values, keys)
    num_units = len(sums_UC)
    weights_RU = resample_weights(num_units, resamples, np.random.default_rng(seed))
    found = _means(names, sums_UC, counts_UC, weights_RU)
    if by in ("class", "tag"):
        found.sort(key=lambda each: -each.mean)
    return ClassMeans(measure=measure, by=by, unit=unit, num_units=num_units, classes=tuple(found))


def _word_values(
    probe: pl.DataFrame, measure: Measure, by: By, word_gate: WordGate
) -> pl.DataFrame:
    """One row per word (or token of none): document, sentence, group, value."""
    if probe[measure].is_null().all():
        raise RequestError(
            f"this model has no {measure}: the dual arm has gates, and models whose loops are "
            f"mixed have expected_loops; use --measure for another"
        )
    group = {
        "class": token_class(),
        "tag": pl.col("tag"),
        "layer": pl.col("layer").cast(pl.String),
        "position": _power_of_2(pl.col("position")),
        "frequency": _power_of_2(pl.len().over("token", "layer")),
    }[by]
    rows = probe.filter(~is_no_word()) if by == "tag" else probe
    if word_gate == "last":
        rows = rows.filter(pl.col("is_last_piece") | is_no_word())
    own_number = -1 - pl.int_range(pl.len()).over("document", "layer")
    word = pl.col("word").fill_null(own_number)
    keys = ["document", "sentence", "group", "unit_word"]
    return (
        rows.with_columns(group=group, unit_word=word)
        .group_by(keys, maintain_order=True)
        .agg(value=pl.col(measure).cast(pl.Float64).mean())
    )


def _power_of_2(count: pl.Expr) -> pl.Expr:
    """Between which powers of 2 a count lies, by the lower."""
    return pl.lit("2^") + count.log(2).floor().cast(pl.Int32).cast(pl.String)


def is_no_word() -> pl.Expr:
    """Whether a row of a probe belongs to no word."""
    return pl.col("word").is_null()


def _tables(values: pl.DataFrame, keys: list[str]) -> tuple[Array, Array, list[str]]:
    """Sums and counts by unit and class."""
    cells = values.group_by([*keys, "group"]).agg(total=pl.col("value").sum(), count=pl.len())
    names = sorted(values["group"].unique(), key=_order)
    units = cells.select(keys).unique(maintain_order=True).sort(keys).with_row_index("unit")
    cells = cells.join(units, on=keys)
    place = cells["group"].replace_strict(dict(zip(names, range(len(names)), strict=True)))
    sums_UC = np.zeros((len(units), len(names)))
    counts_UC = np.zeros_like(sums_UC)
    at = (cells["unit"].to_numpy(), place.to_numpy())
    sums_UC[at], counts_UC[at] = cells["total"].to_numpy(), cells["count"].to_numpy()
    return sums_UC, counts_UC, names


def _order(name: str) -> tuple[bool, int, str]:
    """Layers and powers of 2 by number, all else by name."""
    number = name.removeprefix("2^")
    return (False, int(number), "") if number.isdigit() else (True, 0, name)


def _means(
    names: list[str], sums_UC: Array, counts_UC: Array, weights_RU: Array
) -> list[ClassMean]:
    held_C = (counts_UC > 0).sum(0)
    one_1U = np.ones((1, len(sums_UC)))
    mean_C, difference_C = (each[0] for each in _of_weights(one_1U, sums_UC, counts_UC))
    means_RC, differences_RC = _of_weights(weights_RU, sums_UC, counts_UC)
    is_told_C = held_C >= FEWEST_UNITS
    has_others = len(names) > 1
    p_C = adjusted(p_values(difference_C, differences_RC, len(sums_UC)), is_told_C)
    return [
        ClassMean(
            name=name,
            words=int(counts_UC[:, place].sum()),
            units=int(held_C[place]),
            mean=float(mean_C[place]),
            interval=interval(means_RC[:, place]) if is_told_C[place] else None,
            difference=float(difference_C[place]) if has_others else None,
            difference_interval=(
                interval(differences_RC[:, place]) if is_told_C[place] and has_others else None
            ),
            p_adjusted=float(p_C[place]) if is_told_C[place] and has_others else None,
        )
        for place, name in enumerate(names)
    ]


def _of_weights(weights_RU: Array, sums_UC: Array, counts_UC: Array) -> tuple[Array, Array]:
    """Means of classes, and their differences to all else; NaN where a resample has none."""
    sums_RC, counts_RC = weights_RU @ sums_UC, weights_RU @ counts_UC
    other_sums, other_counts = (each.sum(1, keepdims=True) - each for each in (sums_RC, counts_RC))
    with np.errstate(divide="ignore", invalid="ignore"):
        means_RC = np.where(counts_RC > 0, sums_RC / counts_RC, np.nan)
        others_RC = np.where(other_counts > 0, other_sums / other_counts, np.nan)
    return means_RC, means_RC - others_RC
