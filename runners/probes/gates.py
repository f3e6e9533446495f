"""How does a trained model route each token of a tagged text? One row per token and layer.

A document is read in windows of the context, each after a separator; `analysis.routing` reads the
rows from Parquet.

Shapes in names: B batch, T tokens, K loops, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from runners.probes.conllu import TaggedDocument
from runners.probes.windows import TOKEN_SCHEMA, token_columns
from runners.text.tokenizers import TextTokenizer
from spaces.errors import RequestError
from spaces.model import LanguageModel
from spaces.parts.gate import deep_share
from spaces.parts.router import expected_loops

SCHEMA = {
    "model": pl.String,
    **TOKEN_SCHEMA,
    "layer": pl.Int32,
    "g_d": pl.Float32,
    "g_w": pl.Float32,
    "deep_share": pl.Float32,
    "expected_loops": pl.Float32,
}
"""Columns of a probe; what the model lacks is null."""


def require_routing(model: LanguageModel) -> None:
    """Raise `RequestError` where a model has nothing that routes."""
    if not model.arm.readouts_of(model.architecture):
        raise RequestError(
            f"gates needs a model with gates or a router of loops, but the "
            f"{model.architecture.arm} arm has neither; name a run of the dual or loop arm"
        )


def probe_gates(
    model: LanguageModel,
    tokenizer: TextTokenizer,
    documents: Sequence[TaggedDocument],
    *,
    name: str,
) -> pl.DataFrame:
    """Every token and layer of the documents, with the columns of `SCHEMA`.

    Raises `RequestError` where the model routes nothing.
    """
    require_routing(model)
    num_bytes = tokenizer.token_num_bytes()
    encoded = tokenizer.encode([document.text.encode() for document in documents])
    frames = []
    for document, ids in zip(documents, encoded, strict=True):
        tokens = token_columns(document, ids, num_bytes, model.architecture.context_length - 1)
        frames.append(_routed(model, tokenizer.separator, ids, tokens))
    return pl.concat(frames).with_columns(model=pl.lit(name)).select(list(SCHEMA))


@torch.no_grad()
def _routed(
    model: LanguageModel, separator: int, ids: np.ndarray[Any, Any], tokens: pl.DataFrame
) -> pl.DataFrame:
    """The rows of `tokens`, once per layer, with what the model did there."""
    window = model.architecture.context_length - 1
    parts = []
    for start in range(0, len(ids), window):
        piece = torch.from_numpy(ids[start : start + window].astype(np.int64))
        inputs_BT = torch.cat((torch.tensor([separator]), piece))[None]
        _, readings = model.hidden_with_readings(inputs_BT)
        columns: dict[str, Any] = {}
        if "gates_LBT2" in readings:
            gates_LBT2 = readings["gates_LBT2"][:, :, 1:]
            columns["g_d"], columns["g_w"] = gates_LBT2[:, 0].unbind(-1)
            columns["deep_share"] = deep_share(gates_LBT2)[:, 0]
        if "loop_weights_LBTK" in readings:
            columns["expected_loops"] = expected_loops(readings["loop_weights_LBTK"])[:, 0, 1:]
        rows = tokens[start : start + window]
        for layer in range(model.architecture.num_layers):
            values = {
                name: pl.Series(values_LT[layer].float().numpy(), dtype=pl.Float32)
                if (values_LT := columns.get(name)) is not None
                else pl.lit(None, dtype=pl.Float32)
                for name in ("g_d", "g_w", "deep_share", "expected_loops")
            }
            parts.append(rows.with_columns(layer=pl.lit(layer, dtype=pl.Int32), **values))
    return pl.concat(parts)
