"""Are tasks read as they are, and is every continuation as probable as the model says?"""

from __future__ import annotations

import bz2
import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from analysis.evaluation.scores import compare, scores_of
from runners.probes.items import score_items, score_task
from runners.probes.likelihood import (
    Likelihoods,
    Request,
    document_requests,
    likelihoods,
    pair_requests,
)
from runners.probes.tasks import Choice, Task, find_tasks
from runners.text.corpus import Corpus
from runners.text.tokenizers import ByteTokenizer, TextTokenizer, load_tokenizer, make_tokenizer
from spaces.errors import RequestError
from spaces.model import LanguageModel
from tests.runners.small import SIZES, small_architecture

ROWS: dict[str, list[dict[str, Any]]] = {
    "pairs": [
        {"UID": "a", "sentence_good": "Cats sleep.", "sentence_bad": "Cats sleeps."},
        {"UID": "b", "sentence_good": "A dog is here.", "sentence_bad": "A dog are here."},
    ],
    "questions": [
        {"id": "q1", "context": "Q: one?\nA:", "continuations": [" x", " yy", " zzz"], "label": 2},
        {"id": "q2", "context": "Q: two?\nA:", "continuations": [" no", " yes"], "label": 0},
    ],
    "contexts": [
        {"contexts": ["He ran so he", "She ran so he"], "continuations": [" won."] * 2, "label": 1}
    ],
    "words": [{"context": "I do not care", "continuations": [" about"], "label": ["about"]}],
    "texts": [{"text": "naïve “words” of a text\n" * 3}, {"text": "x"}, {"text": ""}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one task in each layout, one of them packed."""
    for name, rows in ROWS.items():
        lines = "\n".join(map(json.dumps, rows)).encode()
        if name == "questions":
            (tmp_path / f"{name}.jsonl.bz2").write_bytes(bz2.compress(lines))
        else:
            (tmp_path / f"{name}.jsonl").write_bytes(lines)
    return tmp_path


@pytest.fixture(scope="module")
def bpe() -> TextTokenizer:
    text = b"the cats sleep and she ran so he won about words of a text " * 50
    return make_tokenizer("bpe:280", iter([text]))


def model_of(arm: str, *, vocab_size: int = 256, context_length: int = 48) -> LanguageModel:
    sizes = {"vocab_size": vocab_size, "context_length": context_length}
    model = LanguageModel(small_architecture(arm, **sizes), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return model.eval()


def test_every_layout_is_read(folder: Path) -> None:
    tasks = {task.name: task for task in find_tasks([folder])}
    assert set(tasks) == set(ROWS)
    assert tasks["texts"].is_text
    (first, _) = tasks["pairs"].items
    assert isinstance(first, Choice)
    assert (first.contexts, first.label, first.group) == (("", ""), 0, "a")
    (only,) = tasks["contexts"].items
    assert isinstance(only, Choice)
    assert not only.has_one_context
    assert len(find_tasks([folder], limit=1)[0].items) == 1
    (spread,) = find_tasks([folder / "texts.jsonl"], limit=2)
    assert [item.name for item in spread.items] == ["1", "2"]
    (folder / "questions.fewshot.txt").write_text("Q: zero?\nA: z\n\n")
    (shown,) = find_tasks([folder / "questions.jsonl.bz2"], few_shot=True)
    assert isinstance(shown.items[0], Choice)
    assert shown.items[0].contexts[0] == "Q: zero?\nA: z\n\nQ: one?\nA:"
    assert shown.fingerprint != tasks["questions"].fingerprint


def test_mmlu_is_read_in_its_own_format(tmp_path: Path) -> None:
    for part, letter in (("test", "C"), ("dev", "B")):
        (tmp_path / "mmlu" / part).mkdir(parents=True)
        row = f'"One, or two?",first,second,third,fourth,{letter}\n'
        (tmp_path / "mmlu" / part / f"high_school_physics_{part}.csv").write_text(row)
    task, cloze = find_tasks([tmp_path / "mmlu"], few_shot=True)
    (item,) = task.items
    assert isinstance(item, Choice)
    asked = "One, or two?\nA. first\nB. second\nC. third\nD. fourth\nAnswer:"
    head = "The following are multiple choice questions (with answers) about high school physics."
    assert item.contexts[0] == f"{head}\n\n{asked} B\n\n{asked}"
    assert (task.name, item.answers[item.label], item.group) == (
        "mmlu",
        " C",
        "high_school_physics",
    )
    (item,) = cloze.items
    assert isinstance(item, Choice)
    head = "The following are questions (with answers) about high school physics."
    asked = "Question: One, or two?\nAnswer:"
    assert item.contexts == (f"{head}\n\n{asked} second\n\n{asked}",) * 4
    assert item.answers == (" first", " second", " third", " fourth")
    assert (cloze.name, item.label) == ("mmlu_cloze", 2)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"context": "a", "continuations": ["b", "c"]}', "line 2 lacks label"),
        ('{"context": "a", "continuations": ["b", "c"], "label": 2}', "from 0 to 1, got 2"),
        ('{"context": "a", "continuations": ["b", "c"], "label": true}', "got True"),
        ('{"continuations": ["b", "c"], "label": 1}', "line 2 lacks context"),
        ('{"contexts": ["a"], "continuations": ["b", "c"], "label": 1}', "got 1 and 2"),
        ('{"context": "a", "continuations": ["b", ""], "label": 1}', "must be texts"),
        ('{"sentence_good": "a"}', "line 2 lacks sentence_bad"),
        ('{"question": "a"}', "it has question"),
        ("[1]", "must be an object, got list"),
        ("{", "line 2 is no JSON"),
        ('{"text": "a document"}', "mixes questions and documents"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    good = '{"context": "a", "continuations": ["b", "c"], "label": 0}'
    (tmp_path / "own.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(RequestError, match=r"own\.jsonl") as error:
        find_tasks([tmp_path / "own.jsonl"])
    assert said in str(error.value)


def test_pairs_are_encoded_whole_and_cut_after_the_context(bpe: TextTokenizer) -> None:
    pairs = [("she ran so ", "he won"), ("she ran so", " he won"), ("", "cats sleep")]
    moved, plain, alone = pair_requests(pairs, bpe, context_length=64)
    assert moved == plain, "spaces that end a context belong to the continuation"
    (whole,) = bpe.encode([b"she ran so he won"])
    (context,) = bpe.encode([b"she ran so"])
    assert plain.tokens == tuple(whole.tolist())
    assert plain.num_scored == len(whole) - len(context)
    assert alone.tokens[0] == bpe.separator
    assert alone.num_scored == len(alone.tokens) - 1


def test_a_long_context_loses_its_beginning_and_is_counted(tmp_path: Path) -> None:
    row = {"context": "abcdefgh" * 4, "continuations": [" x", " yy"], "label": 0}
    (tmp_path / "long.jsonl").write_text(json.dumps(row))
    (task,) = find_tasks([tmp_path / "long.jsonl"])
    model = model_of("standard", context_length=16)
    items = score_task(task, model, ByteTokenizer())
    assert items["is_cut"].to_list() == [True]
    text = (row["context"][-14:] + " yy").encode()
    expected = by_hand(model, text, num_scored=3)
    assert items["log_likelihood"][0][1] == pytest.approx(expected, abs=1e-5)


def by_hand(model: LanguageModel, text: bytes, *, num_scored: int) -> float:
    """The log-likelihood of the last bytes, one sequence at a time."""
    tokens = torch.tensor([list(text)])
    with torch.no_grad():
        logits = model(tokens[:, :-1]).double()
    chosen = torch.log_softmax(logits, dim=-1)[0].gather(1, tokens[0, 1:, None])
    return float(chosen[-num_scored:].sum())


@pytest.mark.parametrize("arm", SIZES)
def test_a_batch_says_what_each_sequence_says_alone(arm: str, folder: Path) -> None:
    model, tokenizer = model_of(arm), ByteTokenizer()
    tasks = {task.name: task for task in find_tasks([folder])}
    items = score_task(tasks["questions"], model, tokenizer)
    for row, question in zip(items.to_dicts(), ROWS["questions"], strict=True):
        for answer, found, alone in zip(
            question["continuations"], row["log_likelihood"], row["unconditional"], strict=True
        ):
            text = (question["context"] + answer).encode()
            assert found == pytest.approx(by_hand(model, text, num_scored=len(answer)), abs=1e-4)
            bare = b"\0" + answer.encode()
            assert alone == pytest.approx(by_hand(model, bare, num_scored=len(answer)), abs=1e-4)
    words = score_task(tasks["words"], model, tokenizer)
    tokens = list(b"I do not care about")
    with torch.no_grad():
        best = model(torch.tensor([tokens[:-1]])).argmax(dim=-1)[0, -6:].tolist()
    assert words["is_greedy"].to_list() == [[best == tokens[-6:]]]


@pytest.mark.parametrize("specification", ["bytes", "bpe"])
def test_bits_are_per_byte_of_the_raw_text(
    specification: str, folder: Path, bpe: TextTokenizer
) -> None:
    tokenizer = ByteTokenizer() if specification == "bytes" else bpe
    (task,) = find_tasks([folder / "texts.jsonl"])
    model = model_of("loop", vocab_size=tokenizer.vocab_size, context_length=16)
    items = score_task(task, model, tokenizer)
    texts = [row["text"].encode() for row in ROWS["texts"]]
    assert items["num_bytes"].to_list() == [len(text) for text in texts]
    (encoded,) = tokenizer.encode(texts[:1])
    windows = document_requests(ROWS["texts"][0]["text"], tokenizer, context_length=16)
    assert sum(window.num_scored for window in windows) == len(encoded)
    assert [window.tokens[-1] for window in windows][-1] == encoded[-1]
    assert all(len(window.tokens) == 17 for window in windows), "the last one reaches back"
    assert items["nats"][2] == 0
    uniform = model_of("standard", vocab_size=tokenizer.vocab_size, context_length=16)
    with torch.no_grad():
        uniform.head.weight.zero_()
    nats = score_task(task, uniform, tokenizer)["nats"][0]
    assert nats == pytest.approx(len(encoded) * np.log(tokenizer.vocab_size), rel=1e-6)


def test_equal_requests_are_computed_once() -> None:
    model = model_of("dual")
    request, other = Request((0, 65, 66), 2, False), Request((0, 70), 1, False)
    said: list[tuple[int, int]] = []
    found = likelihoods(
        model, [request, other, request], say=lambda done, count: said.append((done, count))
    )
    assert found.log_likelihoods[0] == found.log_likelihoods[2]
    assert said[-1] == (2, 2)


def planted(task: Task, *, oracle: bool) -> pl.DataFrame:
    """A task scored by something that knows every answer, or says the same of all."""
    right = [
        (item.contexts[item.label], item.answers[item.label])
        for item in task.items
        if isinstance(item, Choice)
    ]
    texts = {(context + answer).encode() for context, answer in right}

    def scorer(requests: Sequence[Request]) -> Likelihoods:
        found = np.zeros(len(requests))
        if oracle:
            found = np.array([bytes(r.tokens).lstrip(b"\0") in texts for r in requests]) * 1e3
        return Likelihoods(found - 1e3 if oracle else found, np.full(len(requests), oracle))

    return score_items(task, scorer, ByteTokenizer(), context_length=10_000)


TASKS = ["blimp/blimp.jsonl.bz2", "olmes"]


@pytest.mark.slow
def test_an_oracle_scores_all_and_a_constant_chance_on_every_task(shared_data: Path) -> None:
    for task in find_tasks([shared_data / name for name in TASKS], limit=400):
        oracle = {score.rule: score for score in scores_of(planted(task, oracle=True))}
        constant = {score.rule: score for score in scores_of(planted(task, oracle=False))}
        choices = [item for item in task.items if isinstance(item, Choice)]
        # a few questions have an answer twice: nobody can tell the two apart
        told = [1 / item.answers.count(item.answers[item.label]) for item in choices]
        if not choices[0].has_one_context:
            told = [1.0]
        for rule, score in oracle.items():
            if rule.startswith("acc") or rule == "greedy":
                assert score.value == pytest.approx(np.mean(told)), (task.name, rule)
        if "greedy" in constant:
            assert constant["greedy"].value == 0
            continue
        counts = [len(item.answers) for item in choices]
        for rule in ("acc", "acc_norm", "acc_bytes"):
            guessing = np.mean([1 / count for count in counts])
            assert constant[rule].value == pytest.approx(guessing), (task.name, rule)
            assert constant[rule].p_chance is not None
            assert constant[rule].p_chance > 0.4, (task.name, "not above chance")


def turned(item: Choice) -> Choice:
    """The same question, its answers in the opposite order."""
    label = len(item.answers) - 1 - item.label
    return replace(item, contexts=item.contexts[::-1], answers=item.answers[::-1], label=label)


@pytest.mark.slow
def test_neither_order_nor_oneself_changes_a_score_on_any_task(shared_data: Path) -> None:
    def opinion(requests: Sequence[Request]) -> Likelihoods:
        """Something else of every text, the same each time."""
        said = [zlib.crc32(bytes(request.tokens)) % 97 / 9.7 for request in requests]
        return Likelihoods(-np.array(said), np.array([each < 5 for each in said]))

    for task in find_tasks([shared_data / name for name in TASKS], limit=400):
        items = tuple(item for item in task.items if isinstance(item, Choice))
        one, other = (
            score_items(each, opinion, ByteTokenizer(), context_length=10_000)
            for each in (task, replace(task, items=tuple(map(turned, items))))
        )
        values = [[score.value for score in scores_of(each)] for each in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=1e-12), task.name
        for found in compare(one, one):
            assert (found.difference, found.p_value) == (0.0, 1.0), (task.name, found.rule)


def test_the_order_of_answers_changes_nothing(folder: Path, sotu_corpus: Corpus) -> None:
    tokenizer = load_tokenizer(sotu_corpus.tokenizer_path)
    model = model_of("dual")
    rows = [
        {"context": f"Q: {n}?\nA:", "continuations": [f" {n}", f" {n + 1} x", " no"], "label": 0}
        for n in range(40)
    ]
    backwards = [
        row | {"continuations": row["continuations"][::-1], "label": 2}  # type: ignore[operator]
        for row in rows
    ]
    scores = []
    for name, each in (("one", rows), ("two", backwards)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, each)))
        (task,) = find_tasks([folder / f"{name}.jsonl"])
        items = score_task(task, model, tokenizer)
        scores.append(scores_of(items))
        assert all(
            (found.difference, found.p_value) == (0.0, 1.0) for found in compare(items, items)
        )
    assert [score.value for score in scores[0]] == pytest.approx(
        [score.value for score in scores[1]]
    )
