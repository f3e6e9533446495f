"""How does the loss of every token change where some are forced along a route?"""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from runners.probes.forcing import Force, forced_hidden
from runners.probes.windows import TaggedWindows
from spaces.model import LanguageModel

SCHEMA = {
    "model": pl.String,
    "force": pl.String,
    "on": pl.String,
    "draw": pl.Int32,
    "document": pl.String,
    "sentence": pl.Int32,
    "place": pl.Int32,
    "is_forced": pl.Boolean,
    "follows_forced": pl.Boolean,
    "change_nats": pl.Float32,
}
"""Columns of an intervention's rows, one per token of the text. ``draw``: null where the class was
forced, else the control's number; ``place``: the token's in the text; ``follows_forced``: whether
a token before it, in its window, was forced; ``change_nats``: of the prediction made at the token,
null where nothing follows it."""


class Interventions:
    """A model and a text, with the loss as it is."""

    def __init__(self, model: LanguageModel, windows: TaggedWindows, *, name: str) -> None:
        self._model, self._windows, self._name = model, windows, name
        self.nats_before = self._nats(Force(), np.zeros(len(windows.tokens), dtype=bool))
        """Of the prediction at each token; NaN where nothing follows."""

    @property
    def loss_nats(self) -> float:
        """Mean over the text's tokens."""
        return float(np.nanmean(self.nats_before, dtype=np.float64))

    def rows(
        self, force: Force, is_forced: NDArray[np.bool_], *, on: str, draw: int | None
    ) -> pl.DataFrame:
        """The changes where those tokens are forced, with the columns of `SCHEMA`."""
        named = {"model": self._name, "force": force.name, "on": on, "draw": draw}
        change = self._nats(force, is_forced) - self.nats_before
        tokens = self._windows.tokens.select("document", "sentence", "window")
        return (
            tokens.with_row_index("place")
            .with_columns(is_forced=pl.Series(is_forced), change_nats=pl.Series(change))
            .with_columns(
                pl.col("change_nats").fill_nan(None),
                follows_forced=pl.col("is_forced").cum_sum().over("window")
                > pl.col("is_forced").cast(pl.UInt32),
                **{name: pl.lit(value) for name, value in named.items()},
            )
            .select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())
        )

    def _nats(self, force: Force, is_forced: NDArray[np.bool_]) -> NDArray[np.float32]:
        return self._windows.nats(
            self._model,
            lambda tokens_BT, chosen_BT: forced_hidden(self._model, tokens_BT, chosen_BT, force),
            is_forced,
        )
