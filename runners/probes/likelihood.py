"""How probable is a continuation after its context? Batched, on the device, read once.

The rules are those of the field's harness (lm-evaluation-harness 0.4.13), item by item. Spaces that
end a context go to the continuation; the whole is encoded and cut at the length of the encoded
context; an empty context is the separator. What is longer than the model's context loses its
beginning, and is counted.

Shapes in names: B requests of a batch, T tokens, M scored tokens of a batch, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from runners.text.tokenizers import TextTokenizer
from spaces.model import LanguageModel
from spaces.parts.norm import at_least_float32

TOKENS_AT_ONCE = {"cpu": 4_096, "cuda": 65_536}
"""Tokens of a forward pass, padding counted."""

Say = Callable[[int, int], None]
"""Is told how many requests of how many are done."""

Pair = tuple[str, str]
"""Context and continuation."""


class Request(NamedTuple):
    """Tokens, of which the last so many are scored."""

    tokens: tuple[int, ...]
    """At most one more than the model's context."""
    num_scored: int
    is_cut: bool
    """Whether the beginning was left out."""


@dataclass(frozen=True)
class Likelihoods:
    """Of each request."""

    log_likelihoods: np.ndarray
    """Natural logarithm, summed over the scored tokens, float64."""
    are_greedy: np.ndarray
    """Whether every scored token is the most probable one."""


def pair_requests(
    pairs: Sequence[Pair], tokenizer: TextTokenizer, *, context_length: int
) -> list[Request]:
    """What is scored of each pair."""
    moved = [_spaces_moved(context, continuation) for context, continuation in pairs]
    texts = list(
        dict.fromkeys(t for context, rest in moved for t in (context, context + rest) if t)
    )
    encoded = tokenizer.encode([text.encode() for text in texts])
    ids = {text: tuple(tokens.tolist()) for text, tokens in zip(texts, encoded, strict=True)}
    requests = []
    for context, continuation in moved:
        whole = ids[context + continuation]
        before = len(ids[context]) if context else 0
        tokens = whole if context else (tokenizer.separator, *whole)
        requests.append(_request(tokens, len(whole) - before, context_length))
    return requests


def _spaces_moved(context: str, continuation: str) -> Pair:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def _request(tokens: tuple[int, ...], num_scored: int, context_length: int) -> Request:
    kept = tokens[-(context_length + 1) :]
    return Request(kept, min(num_scored, context_length), len(kept) < len(tokens))


def document_requests(
    document: str, tokenizer: TextTokenizer, *, context_length: int
) -> list[Request]:
    """Windows in which every token of a text is scored once: they follow each other, and the last
    one reaches back so that it is whole. The separator stands before the text."""
    (encoded,) = tokenizer.encode([document.encode()])
    tokens = (tokenizer.separator, *encoded.tolist())
    requests, scored = [], 0
    while scored < len(tokens) - 1:
        end = min(scored + context_length, len(tokens) - 1)
        begin = max(0, end - context_length)
        requests.append(Request(tokens[begin : end + 1], end - scored, False))
        scored = end
    return requests


@torch.inference_mode()
def likelihoods(
    model: LanguageModel, requests: Sequence[Request], *, say: Say = lambda done, count: None
) -> Likelihoods:
    """The likelihood of every request; equal ones are computed once."""
    different = sorted(dict.fromkeys(requests), key=lambda each: len(each.tokens), reverse=True)
    places = {request: place for place, request in enumerate(different)}
    device = model.head.weight.device
    batches = _batches(different, TOKENS_AT_ONCE[device.type])
    sums, greedy, done = [], [], 0
    for batch in batches:
        total_B, greedy_B = _batch(model, batch, device)
        sums.append(total_B)
        greedy.append(greedy_B)
        done += len(batch)
        say(done, len(different))
    order = [places[request] for request in requests]
    return Likelihoods(
        log_likelihoods=torch.cat(sums).cpu().numpy()[order],
        are_greedy=torch.cat(greedy).cpu().numpy()[order],
    )


def _batches(requests: Sequence[Request], tokens_at_once: int) -> list[Sequence[Request]]:
    """Requests of like length together, longest first."""
    found, start = [], 0
    while start < len(requests):
        count = max(1, tokens_at_once // (len(requests[start].tokens) - 1))
        found.append(requests[start : start + count])
        start += count
    return found


def _batch(
    model: LanguageModel, batch: Sequence[Request], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Sums of log-probabilities (float64) and whether all are the greatest, of each request."""
    lengths_B1 = np.array([[len(request.tokens)] for request in batch])
    scored_B1 = np.array([[request.num_scored] for request in batch])
    places_T = np.arange(len(batch[0].tokens))
    tokens_BT = np.zeros((len(batch), len(places_T)), dtype=np.int64)
    there_BT = places_T < lengths_B1
    tokens_BT[there_BT] = list(chain.from_iterable(request.tokens for request in batch))
    found = np.nonzero(there_BT & (places_T >= lengths_B1 - scored_B1))
    tokens, rows_M, columns_M = (_on(device, each) for each in (tokens_BT, *found))
    hidden_BTD = model.hidden(tokens[:, :-1])
    targets_M = tokens[rows_M, columns_M]
    values, best = _log_probabilities(model, hidden_BTD[rows_M, columns_M - 1], targets_M)
    total_B = torch.zeros(len(batch), dtype=torch.float64, device=device)
    misses_B = torch.zeros(len(batch), dtype=torch.int64, device=device)
    total_B.index_add_(0, rows_M, values.double())
    misses_B.index_add_(0, rows_M, (best != targets_M).long())
    return total_B, misses_B == 0


def _on(device: torch.device, array: np.ndarray) -> Tensor:
    """On the device, without waiting for it."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


LOGITS_AT_ONCE = 1 << 24
"""Logits in memory at a time."""


def _log_probabilities(
    model: LanguageModel, hidden_MD: Tensor, targets_M: Tensor
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target, and the most probable token, in chunks of rows."""
    rows = max(1, LOGITS_AT_ONCE // model.head.weight.shape[0])
    values, best = [], []
    chunks = zip(torch.split(hidden_MD, rows), torch.split(targets_M, rows), strict=True)
    for hidden, targets in chunks:
        logits_NV = at_least_float32(model.head(hidden))
        chosen_N = logits_NV.gather(1, targets.unsqueeze(1)).squeeze(1)
        values.append(chosen_N - logits_NV.logsumexp(dim=-1))
        best.append(logits_NV.argmax(dim=-1))
    return torch.cat(values), torch.cat(best)
