"""How does a trained model route each token of a tagged text? One row per token and layer.

A document is read in windows of the context, each after a separator; `analysis.routing` reads the
rows from Parquet.

Shapes in names: W windows, B of them at once, T tokens of a window, N tokens of the text, K loops,
L layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from runners.probes.conllu import TaggedDocument
from runners.probes.likelihood import TOKENS_AT_ONCE
from runners.probes.windows import TOKEN_SCHEMA, TaggedWindows, tagged_windows
from runners.text.tokenizers import TextTokenizer
from spaces.errors import RequestError
from spaces.model import LanguageModel
from spaces.parts.gate import deep_share
from spaces.parts.router import expected_loops

FloatArray = NDArray[np.float32]

MEASURES = ("g_d", "g_w", "deep_share", "expected_loops")
"""What is read off at every token and layer."""

SCHEMA = {
    "model": pl.String,
    **TOKEN_SCHEMA,
    "layer": pl.Int32,
    **dict.fromkeys(MEASURES, pl.Float32),
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
    windows = tagged_windows(tokenizer, documents, context_length=model.architecture.context_length)
    routed = _routed(model, windows)
    layers = [
        windows.tokens.select(list(TOKEN_SCHEMA)).with_columns(
            layer=pl.lit(layer, dtype=pl.Int32),
            **{
                measure: pl.lit(None, dtype=pl.Float32)
                if values_LN is None
                else pl.Series(values_LN[layer], dtype=pl.Float32)
                for measure, values_LN in routed.items()
            },
        )
        for layer in range(model.architecture.num_layers)
    ]
    return pl.concat(layers).with_columns(model=pl.lit(name)).select(list(SCHEMA))


@torch.no_grad()
def _routed(model: LanguageModel, windows: TaggedWindows) -> dict[str, FloatArray | None]:
    """What the model did at every token, (L, N) by measure; None of what it lacks."""
    device = model.head.weight.device
    at_once = max(1, TOKENS_AT_ONCE[device.type] // windows.inputs_WT.shape[1])
    parts: dict[str, list[Tensor]] = {name: [] for name in MEASURES}
    for start in range(0, len(windows.inputs_WT), at_once):
        is_text_BT = windows.is_text_WT[start : start + at_once].to(device)
        inputs_BT = windows.inputs_WT[start : start + at_once].to(device)
        _, readings = model.hidden_with_readings(inputs_BT)
        if "gates_LBT2" in readings:
            gates_LBT2 = readings["gates_LBT2"]
            parts["g_d"].append(gates_LBT2[..., 0][:, is_text_BT])
            parts["g_w"].append(gates_LBT2[..., 1][:, is_text_BT])
            parts["deep_share"].append(deep_share(gates_LBT2)[:, is_text_BT])
        if "loop_weights_LBTK" in readings:
            loops_LBT = expected_loops(readings["loop_weights_LBTK"])
            parts["expected_loops"].append(loops_LBT[:, is_text_BT])
    return {
        name: torch.cat(found, dim=1).float().cpu().numpy() if found else None
        for name, found in parts.items()
    }
