"""What did a model say to each item of a task? One row each, as `analysis.evaluation` reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


COLUMNS = (
    "item",
    "group",
    "label",
    "is_cut",
    "answer",
    "log_likelihood",
    "unconditional",
    "is_greedy",
)
"""Of questions, in order."""


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
    items: list[int] = []
    alone: list[bool] = []
    for item, choice in enumerate(choices):
        count = len(choice.answers)
        pairs += zip(choice.contexts, choice.answers, strict=True)
        times = 1
        if choice.has_one_context:
            pairs += [("", answer) for answer in choice.answers]
            times = 2
        items += [item] * (count * times)
        alone += [False] * count + [True] * (count * (times - 1))
    requests = pair_requests(pairs, tokenizer, context_length=context_length)
    found = scorer(requests)
    said = pl.DataFrame(
        {
            "place": items,
            "is_alone": alone,
            "answer": [answer for _, answer in pairs],
            "is_cut": [request.is_cut for request in requests],
            "log_likelihood": found.log_likelihoods,
            "is_greedy": found.are_greedy,
        },
        schema_overrides={"place": pl.Int64},
    )
    conditional = said.filter(~pl.col("is_alone")).group_by("place", maintain_order=True)
    unconditional = said.filter("is_alone").group_by("place", maintain_order=True)
    about = pl.DataFrame(
        {
            "item": [choice.name for choice in choices],
            "group": [choice.group for choice in choices],
            "label": [choice.label for choice in choices],
        }
    ).with_columns(place=pl.int_range(pl.len()))
    answers = conditional.agg(pl.col("is_cut").any(), "answer", "log_likelihood", "is_greedy")
    by_itself = unconditional.agg(unconditional="log_likelihood")
    together = about.join(answers, on="place", maintain_order="left")
    together = together.join(by_itself, on="place", how="left", maintain_order="left")
    return together.select(COLUMNS)
