"""What did a model say to each item of a task? One row each, as `analysis.evaluation` reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from runners.probes.likelihood import (
    Likelihoods,
    Pair,
    Request,
    Say,
    document_requests,
    likelihoods,
    pair_requests,
)
from runners.probes.tasks import Choice, Document, Task
from runners.text.tokenizers import TextTokenizer
from spaces.model import LanguageModel

Scorer = Callable[[Sequence[Request]], Likelihoods]
"""Requests to their likelihoods."""


def score_task(
    task: Task, model: LanguageModel, tokenizer: TextTokenizer, *, say: Say = lambda *_: None
) -> pl.DataFrame:
    """The task's items with what the model says to each (`score_items`)."""

    def scorer(requests: Sequence[Request]) -> Likelihoods:
        return likelihoods(model, requests, say=say)

    length = model.architecture.context_length
    return score_items(task, scorer, tokenizer, context_length=length)


def score_items(
    task: Task, scorer: Scorer, tokenizer: TextTokenizer, *, context_length: int
) -> pl.DataFrame:
    """One row an item, in order.

    Of questions: ``item``, ``group``, ``label``, ``is_cut``, and lists over the answers:
    ``answer``, ``log_likelihood``, ``unconditional`` (after the separator alone; null where the
    contexts differ or are empty) and ``is_greedy``. Of documents: ``item``, ``is_cut``, ``nats``
    and ``num_bytes`` of the raw text.
    """
    if task.is_text:
        documents = [item for item in task.items if isinstance(item, Document)]
        return _documents(documents, scorer, tokenizer, context_length=context_length)
    choices = [item for item in task.items if isinstance(item, Choice)]
    return _choices(choices, scorer, tokenizer, context_length=context_length)


def _documents(
    documents: Sequence[Document],
    scorer: Scorer,
    tokenizer: TextTokenizer,
    *,
    context_length: int,
) -> pl.DataFrame:
    windows = [
        document_requests(document.text, tokenizer, context_length=context_length)
        for document in documents
    ]
    found = iter(scorer([each for of_one in windows for each in of_one]).log_likelihoods.tolist())
    rows = [
        {
            "item": document.name,
            "is_cut": False,
            "nats": -sum(next(found) for _ in of_one),
            "num_bytes": len(document.text.encode()),
        }
        for document, of_one in zip(documents, windows, strict=True)
    ]
    return pl.DataFrame(rows)


def _choices(
    choices: Sequence[Choice], scorer: Scorer, tokenizer: TextTokenizer, *, context_length: int
) -> pl.DataFrame:
    pairs: list[Pair] = []
    for choice in choices:
        pairs += zip(choice.contexts, choice.answers, strict=True)
        if choice.has_one_context:
            pairs += [("", answer) for answer in choice.answers]
    requests = pair_requests(pairs, tokenizer, context_length=context_length)
    found = scorer(requests)
    sums, greedy = found.log_likelihoods.tolist(), found.are_greedy.tolist()
    rows, start = [], 0
    for choice in choices:
        middle = start + len(choice.answers)
        end = middle + (len(choice.answers) if choice.has_one_context else 0)
        row: dict[str, Any] = {
            "item": choice.name,
            "group": choice.group,
            "label": choice.label,
            "is_cut": any(request.is_cut for request in requests[start:middle]),
            "answer": list(choice.answers),
            "log_likelihood": sums[start:middle],
            "unconditional": sums[middle:end] or None,
            "is_greedy": greedy[start:middle],
        }
        rows.append(row)
        start = end
    return pl.DataFrame(rows, schema_overrides={"unconditional": pl.List(pl.Float64)})
