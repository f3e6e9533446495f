"""What is asked of a model? Tasks from local files, in the layouts that are in use.

A file of JSON lines (also gz, bz2) is a task by what its lines have: ``sentence_good`` and
``sentence_bad`` (BLiMP), ``continuations`` and ``label`` with ``context``, or with one of
``contexts`` for each continuation (multiple choice; one continuation: the last word, as in
LAMBADA), or ``text`` (bits per byte). A folder with ``test/*_test.csv`` is MMLU in its own format,
asked by letters and, as a task of its own, by the words of its answers (``_cloze``).
A choice begins with the delimiter that parts it from its context, as a rule one space.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners.text.opening import open_text
from spaces.errors import RequestError

FEW_SHOT_SUFFIX = ".fewshot.txt"
"""``TASK.fewshot.txt`` beside ``TASK.jsonl``: what stands before every context, if asked for."""
LETTERS = "ABCD"
CLOZE = "_cloze"
"""Ends the name of a task that is asked by its answers' words, where it is asked by letters too."""
_ENDINGS = (".jsonl", ".jsonl.bz2", ".jsonl.gz")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One question with its answers."""

    name: str
    """Its id in the task."""
    group: str
    """The part of the task that it belongs to; empty where there are none."""
    contexts: tuple[str, ...]
    """What stands before each answer."""
    answers: tuple[str, ...]
    """Each with its delimiter."""
    label: int
    """The right one, from 0."""

    @property
    def has_one_context(self) -> bool:
        """Whether all answers follow the same words, and some do."""
        first = self.contexts[0]
        return first != "" and all(context == first for context in self.contexts)


@dataclass(frozen=True, kw_only=True)
class Document:
    """One raw text."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """Questions, or documents, under a name."""

    name: str
    items: tuple[Choice, ...] | tuple[Document, ...]
    fingerprint: str
    """SHA-256 (hexadecimal) of the files and of what was taken from them."""

    @property
    def is_text(self) -> bool:
        """Whether it is documents."""
        return isinstance(self.items[0], Document)


def find_tasks(
    paths: Sequence[Path], *, few_shot: bool = False, limit: int | None = None
) -> list[Task]:
    """The tasks of files and folders. ``limit``: of each at most so many items,
    evenly spread over it.

    Raises `RequestError` that names the file and the line of what is no task.
    """
    files = [file for path in paths for file in _files(path)]
    tasks = [task for file in files for task in _read(file, few_shot=few_shot, limit=limit)]
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(f"tasks are told apart by their names, but two are {name!r}")
    return tasks


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise RequestError(f"there is no task at {path}; name a file of JSON lines or a folder")
    if path.is_file() or _is_mmlu(path):
        return [path]
    found = [each for each in sorted(path.iterdir()) if each.name.endswith(_ENDINGS)]
    if not found:
        raise RequestError(f"{path} holds no task: no *.jsonl (also .bz2, .gz), no test/*_test.csv")
    return found


def _read(path: Path, *, few_shot: bool, limit: int | None) -> Iterator[Task]:
    if _is_mmlu(path):
        for suffix, form in MMLU_FORMS.items():
            yield _task(path.name + suffix, path, _mmlu(path, form, few_shot=few_shot), limit)
        return
    name = path.name.partition(".jsonl")[0]
    prefix = _prefix(path.with_name(name + FEW_SHOT_SUFFIX)) if few_shot else ""
    yield _task(name, path, _json_lines(path, prefix), limit)


def _task(name: str, path: Path, found: Iterator[Choice | Document], limit: int | None) -> Task:
    items: list[Any] = list(found)
    if limit is not None and limit < len(items):
        items = [items[number * len(items) // limit] for number in range(limit)]
    if not items:
        raise RequestError(f"{path} holds no item")
    if len({type(item) for item in items}) > 1:
        raise RequestError(f"{path} mixes questions and documents; part them")
    digest = hashlib.sha256(repr((name, items)).encode()).hexdigest()
    return Task(name=name, items=tuple(items), fingerprint=digest)


def _prefix(path: Path) -> str:
    if not path.is_file():
        raise RequestError(f"--few-shot puts {path.name} before every context, but there is none")
    return path.read_text(encoding="utf-8")


def _json_lines(path: Path, prefix: str) -> Iterator[Choice | Document]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path} line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RequestError(f"{where} is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise RequestError(f"{where} must be an object, got {type(row).__name__}")
            yield _item(row, where, number, prefix)


def _item(row: dict[str, Any], where: str, number: int, prefix: str) -> Choice | Document:
    name = str(row.get("id", row.get("pairID", number)))
    if "sentence_good" in row or "sentence_bad" in row:
        pair = tuple(_field(row, key, where, str) for key in ("sentence_good", "sentence_bad"))
        group = str(row.get("UID", ""))
        return Choice(name=name, group=group, contexts=("", ""), answers=pair, label=0)
    if "continuations" in row or "label" in row:
        return _choice(row, where, name, prefix)
    if "text" in row:
        return Document(name=name, text=_field(row, "text", where, str))
    raise RequestError(
        f"{where} must have continuations and label, sentence_good and sentence_bad, or text; it "
        f"has {', '.join(row) or 'nothing'}"
    )


def _choice(row: dict[str, Any], where: str, name: str, prefix: str) -> Choice:
    answers = _field(row, "continuations", where, list)
    if not answers or not all(isinstance(each, str) and each for each in answers):
        raise RequestError(f"{where}: continuations must be texts, got {answers!r:.80}")
    label = row.get("label", 0) if len(answers) == 1 else _field(row, "label", where, int)
    if len(answers) == 1 and isinstance(label, list):  # LAMBADA names the word itself
        label = 0
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(answers):
        raise RequestError(
            f"{where}: label is the index of the right continuation, from 0 to "
            f"{len(answers) - 1}, got {label!r}"
        )
    if "contexts" in row:
        contexts = _field(row, "contexts", where, list)
        if len(contexts) != len(answers):
            raise RequestError(
                f"{where}: one of contexts belongs to each continuation, got {len(contexts)} and "
                f"{len(answers)}"
            )
    else:
        contexts = [_field(row, "context", where, str)] * len(answers)
    return Choice(
        name=name,
        group=str(row.get("group", "")),
        contexts=tuple(prefix + context for context in contexts),
        answers=tuple(answers),
        label=label,
    )


def _field(row: dict[str, Any], name: str, where: str, kind: type) -> Any:
    if name not in row:
        raise RequestError(f"{where} lacks {name}; it has {', '.join(row)}")
    if not isinstance(row[name], kind):
        raise RequestError(f"{where}: {name} must be {kind.__name__}, got {row[name]!r:.80}")
    return row[name]


def _is_mmlu(path: Path) -> bool:
    return path.is_dir() and any((path / "test").glob("*_test.csv"))


@dataclass(frozen=True, kw_only=True)
class Form:
    """How one row of MMLU (question, four answers, letter) is asked."""

    head: str
    """Stands first; takes the subject."""
    asked: Callable[[list[str]], str]
    answers: Callable[[list[str]], tuple[str, ...]]
    """Each with its delimiter."""

    def shown(self, row: list[str]) -> str:
        """The question with its right answer, as an example."""
        return f"{self.asked(row)}{self.answers(row)[LETTERS.index(row[5])]}\n\n"


def _with_choices(row: list[str]) -> str:
    choices = "".join(f"\n{letter}. {row[n + 1]}" for n, letter in enumerate(LETTERS))
    return f"{row[0].strip()}{choices}\nAnswer:"


MMLU_FORMS = {
    "": Form(
        head="The following are multiple choice questions (with answers) about {}.\n\n",
        asked=_with_choices,
        answers=lambda row: tuple(f" {letter}" for letter in LETTERS),
    ),
    CLOZE: Form(
        head="The following are questions (with answers) about {}.\n\n",
        asked=lambda row: f"Question: {row[0].strip()}\nAnswer:",
        answers=lambda row: tuple(f" {text}" for text in row[1:5]),
    ),
}
"""What a form adds to the task's name; letters and continuations as the field's harness asks."""


def _mmlu(path: Path, form: Form, *, few_shot: bool) -> Iterator[Choice]:
    """All subjects in one form; few-shot: the subject's own five of ``dev``."""
    for file in sorted((path / "test").glob("*_test.csv")):
        subject = file.name.removesuffix("_test.csv")
        head = form.head.format(subject.replace("_", " "))
        if few_shot:
            dev = path / "dev" / f"{subject}_dev.csv"
            if not dev.is_file():
                raise RequestError(f"--few-shot takes questions from {dev}, which is not there")
            head += "".join(form.shown(row) for _, row in _rows(dev))
        for number, row in _rows(file):
            yield Choice(
                name=f"{subject}/{number}",
                group=subject,
                contexts=(head + form.asked(row),) * len(LETTERS),
                answers=form.answers(row),
                label=LETTERS.index(row[5]),
            )


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))), 1):
        if len(row) != 6 or row[5] not in tuple(LETTERS):
            raise RequestError(
                f"{file} row {number} must be a question, four choices and a letter of {LETTERS}, "
                f"got {len(row)} columns ending in {row[-1] if row else ''!r}"
            )
        yield number, row
