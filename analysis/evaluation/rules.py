"""Which answer does a model give? The rules of the field's harness, one column each, never mixed.

``acc``: the greatest log-likelihood; ``acc_norm``: over characters of the answer without its
delimiter; ``acc_bytes``: over its UTF-8 bytes; ``acc_pmi``: less the log-likelihood after no
context. Among k equal ones the right answer counts 1 / k, so that a model that says the same of
everything scores chance (the harness takes the first).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import polars as pl

Values = npt.NDArray[np.float64]

DELIMITER = " "
"""One of it at an answer's beginning parts it from the context and counts for no length."""

OLMES_RULES: Mapping[str, str] = {
    "arc_challenge": "acc_pmi",
    "csqa": "acc_pmi",
    "openbookqa": "acc_pmi",
    "arc_easy": "acc_norm",
    "arc_easy_val": "acc_norm",
    "hellaswag": "acc_norm",
    "piqa": "acc_norm",
    "socialiqa": "acc_norm",
    "boolq": "acc",
    "winogrande": "acc",
    "mmlu": "acc",
    "mmlu_cloze": "acc_norm",
    "blimp": "acc",
}
"""By which rule OLMES (arXiv 2406.08446) reads a task's cloze form; ``mmlu`` has letters."""

FORMS = ("_cloze", "_letters")
"""Endings that tell apart the forms of one task; ``arc_easy`` and ``arc_easy_letters`` are one."""


def credits_of(items: pl.DataFrame) -> dict[str, Values]:
    """Of each rule that the items allow, 1, 0 or a share for every item."""
    if "label" not in items.columns:
        return {}
    if items["answer"].list.len().max() == 1:
        return {"greedy": items["is_greedy"].list.first().cast(pl.Float64).to_numpy()}
    rules: dict[str, Callable[[Mapping[str, list[float]]], Values]] = {
        "acc": lambda row: np.array(row["log_likelihood"]),
        "acc_norm": lambda row: _over(row, len),
        "acc_bytes": lambda row: _over(row, lambda text: len(text.encode())),
    }
    if items["unconditional"].null_count() == 0:
        rules["acc_pmi"] = lambda row: (
            np.array(row["log_likelihood"]) - np.array(row["unconditional"])
        )
    rows = items.to_dicts()
    return {
        name: np.array([_credit(rule(row), row["label"]) for row in rows])
        for name, rule in rules.items()
    }


def headline_rule(task: str, rules: Mapping[str, Values]) -> str:
    """The rule that a task is best read by."""
    usual = OLMES_RULES.get(task, "acc")
    return usual if usual in rules else next(iter(rules), "bits_per_byte")


def chance_of(items: pl.DataFrame) -> Values:
    """What guessing scores on each item, or, where all have the same answers, the best fixed one
    (62 % of BoolQ's are yes)."""
    counts: Values = np.asarray(items["answer"].list.len().to_numpy(), dtype=np.float64)
    guessing: Values = 1.0 / counts
    answers = set(map(tuple, items["answer"].to_list()))
    if len(answers) > 1:
        return guessing
    best = items["label"].value_counts(normalize=True)["proportion"].max()
    assert isinstance(best, float)
    fixed: Values = np.maximum(guessing, best)
    return fixed


def _over(row: Mapping[str, list[float]], length: Callable[[str], int]) -> Values:
    texts = [str(answer).removeprefix(DELIMITER) for answer in row["answer"]]
    lengths = [float(max(1, length(text))) for text in texts]
    over: Values = np.array(row["log_likelihood"], dtype=np.float64) / np.array(lengths)
    return over


def _credit(values: Values, label: int) -> float:
    best = values == values.max()
    return float(best[label] / best.sum())
