"""Which tokens has a tagged text, and in which windows does a model read them?

Shapes in names: N tokens of the text, W windows, T tokens of a window, B windows at once, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from runners.probes.conllu import TaggedDocument, words_of_tokens
from runners.probes.likelihood import LOGITS_AT_ONCE, TOKENS_AT_ONCE
from runners.text.tokenizers import TextTokenizer
from spaces.model import LanguageModel
from spaces.parts.norm import at_least_float32

TOKEN_SCHEMA = {
    "document": pl.String,
    "sentence": pl.Int32,
    "word": pl.Int32,
    "form": pl.String,
    "tag": pl.String,
    "is_last_piece": pl.Boolean,
    "position": pl.Int32,
    "token": pl.Int64,
}
"""What a text tells of a token. ``word`` is the number of its word in the document, null between
words; ``position`` counts tokens from the start of the model's window."""

NO_TARGET = -1
"""In the place of the next token where none follows."""

Row = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]
"""Inputs, targets and which places hold text, of one window."""

Hidden = Callable[[Tensor, Tensor], Tensor]
"""Of inputs (B x T) and what is chosen of them (B x T): the state before the head, B x T x D."""


def token_columns(
    document: TaggedDocument, ids: np.ndarray[Any, Any], num_bytes: Any, window: int
) -> pl.DataFrame:
    """What the text tells of each token of a document."""
    words = list(words_of_tokens(document.words, num_bytes[ids].tolist()))
    places = [None if each is None else document.words[each] for each in words]
    following = zip(words, [*words[1:], None], strict=True)
    sentences = accumulate((0 if place is None else place.sentence for place in places), max)
    columns = {
        "document": [document.name] * len(ids),
        "sentence": list(sentences),
        "word": words,
        "form": [place and place.form for place in places],
        "tag": [place and place.tag for place in places],
        "is_last_piece": [word is not None and word != after for word, after in following],
        "position": np.arange(len(ids)) % window + 1,
        "token": ids.astype(np.int64),
    }
    return pl.DataFrame(columns, schema={name: TOKEN_SCHEMA[name] for name in columns})


@dataclass(frozen=True, kw_only=True)
class TaggedWindows:
    """A tagged text as a model reads it: windows of the context, a separator before each."""

    tokens: pl.DataFrame
    """A row for each token, with `TOKEN_SCHEMA` and ``window``."""
    inputs_WT: Tensor
    """The separator, then the window's tokens; the last window of a document is filled up."""
    targets_WT: Tensor
    """The token that follows in the document, or `NO_TARGET`."""
    is_text_WT: Tensor
    """Which places hold the tokens, in their order."""

    def nats(
        self, model: LanguageModel, hidden: Hidden, chosen_N: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Cross-entropy of the prediction that is made at each token, of the next one; NaN where
        none follows."""
        device = model.head.weight.device
        chosen_WT = torch.zeros_like(self.is_text_WT)
        chosen_WT[self.is_text_WT] = torch.from_numpy(chosen_N)
        at_once = max(1, TOKENS_AT_ONCE[device.type] // self.inputs_WT.shape[1])
        found = []
        for start in range(0, len(self.inputs_WT), at_once):
            inputs_BT, targets_BT, chosen_BT = (
                each[start : start + at_once].to(device)
                for each in (self.inputs_WT, self.targets_WT, chosen_WT)
            )
            nats_BT = token_nats(model, hidden(inputs_BT, chosen_BT), targets_BT)
            found.append(nats_BT.cpu())
        return np.asarray(torch.cat(found)[self.is_text_WT].numpy(), dtype=np.float32)


def tagged_windows(
    tokenizer: TextTokenizer, documents: Sequence[TaggedDocument], *, context_length: int
) -> TaggedWindows:
    """The windows of all documents, in order."""
    num_bytes, size = tokenizer.token_num_bytes(), context_length - 1
    frames: list[pl.DataFrame] = []
    rows: list[Row] = []
    encoded = tokenizer.encode([document.text.encode() for document in documents])
    for document, ids in zip(documents, encoded, strict=True):
        columns = token_columns(document, ids, num_bytes, size)
        window = len(rows) + np.arange(len(ids)) // size
        frames.append(columns.with_columns(window=pl.Series(window, dtype=pl.Int32)))
        rows += _rows(ids.astype(np.int64), size, tokenizer.separator)
    inputs, targets, is_text = (
        torch.from_numpy(np.stack(each)) for each in zip(*rows, strict=True)
    )
    return TaggedWindows(
        tokens=pl.concat(frames), inputs_WT=inputs, targets_WT=targets, is_text_WT=is_text
    )


def _rows(ids: NDArray[np.int64], size: int, separator: int) -> list[Row]:
    """Inputs, targets and places of text of a document's windows."""
    following = np.append(ids[1:], NO_TARGET)
    found = []
    for start in range(0, len(ids), size):
        count = min(size, len(ids) - start)
        inputs = np.full(size + 1, separator)
        targets, is_text = np.full(size + 1, NO_TARGET), np.zeros(size + 1, dtype=bool)
        inputs[1 : count + 1] = ids[start : start + count]
        targets[1 : count + 1] = following[start : start + count]
        is_text[1 : count + 1] = True
        found.append((inputs, targets, is_text))
    return found


@torch.no_grad()
def token_nats(model: LanguageModel, hidden_BTD: Tensor, targets_BT: Tensor) -> Tensor:
    """Cross-entropy of each target in nats, float32 or wider; NaN where there is none."""
    rows = max(1, LOGITS_AT_ONCE // model.head.weight.shape[0])
    chunks = zip(
        torch.split(hidden_BTD.flatten(0, 1), rows),
        torch.split(targets_BT.flatten(), rows),
        strict=True,
    )
    nats = [
        F.cross_entropy(
            at_least_float32(model.head(hidden)), target, reduction="none", ignore_index=NO_TARGET
        )
        for hidden, target in chunks
    ]
    nats_BT = torch.cat(nats).view(targets_BT.shape)
    return nats_BT.masked_fill(targets_BT == NO_TARGET, torch.nan)
