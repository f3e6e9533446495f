"""Which part of a data set does a file's path say it is: training, validation or test?

The words that data sets use (`_WORDS`) count in the names of files and folders, as words of their
own: ``contest``, ``trains`` and ``latest`` say nothing. ``val``, ``valid`` and ``validation`` in a
file's own name always count. The other words also stand in titles (``test-of-time.txt``), so they
count only where

- the name holds nothing else that says something (``test.txt``, ``dev-00001-of-00003.jsonl``), or
- another name differs in this word alone (``ptb.test.txt`` beside ``ptb.train.txt``), or
- most files have such a word in their paths (``a-train.txt``, ``b-dev.txt``; but ``train`` in a
  longer name is not what leaves all others out).

Where several levels of a path speak, the one that holds out most decides: a file called ``train``
in a folder called ``test`` is test.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from runners.text.naming import name_some

Side = Literal["train", "validation"]

_VALIDATION_NAME = re.compile(r"(^|[^a-z])(val|valid|validation)([^a-z]|$)")
_TRAINING_NAME = re.compile(r"(^|[^a-z])(train|training)([^a-z]|$)")

TRAIN, HELD_OUT, EVAL, DEV, VALIDATION, TEST = "train", "heldout", "eval", "dev", "val", "test"
VALIDATION_WORDS = (VALIDATION, DEV, EVAL, HELD_OUT)
"""Where a source has several of them, the first is the validation set; the others are left out."""
_LEAST_HELD_OUT_FIRST = (TRAIN, HELD_OUT, EVAL, DEV, VALIDATION, TEST)

_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate"), VALIDATION),
    **dict.fromkeys(("dev", "devel", "development", "newsdev"), DEV),
    **dict.fromkeys(("eval", "evaluation"), EVAL),
    **dict.fromkeys(("heldout", "holdout"), HELD_OUT),
    **dict.fromkeys(("test", "testing", "tst", "devtest", "testdev", "newstest"), TEST),
}
_FILLERS = {
    *("part", "parts", "shard", "chunk", "file", "files", "split", "set", "data", "corpus"),
    *("docs", "documents", "text", "texts", "sentences", "tokens", "raw"),
}
"""Words beside which a word of a split is still all that a name says; words of one or two letters
(``of``, languages) are others."""

_EXTENSION = re.compile(
    r"(\.(txt|text|jsonl|ndjson|jsonlines|json))?(\.(gz|bz2))?$", flags=re.IGNORECASE
)
_HELD_OUT = re.compile(r"(held|hold)[-_ .]?out")
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+")
_GLUED = re.compile(r"(.+?)(set|split|data|files?)")


@dataclass(frozen=True, kw_only=True)
class NamedSplit:
    """What the paths of a source's files say."""

    sides: dict[str, Side | None]
    """The side of each file that takes part; all None where no name says validation."""
    left_out: tuple[str, ...] = ()
    """Files that take no part."""
    notes: tuple[str, ...] = ()
    """What was taken from the names, for a person."""


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One name of a path: the splits it says, and its other words."""

    splits: frozenset[str]
    others: tuple[str, ...]

    @property
    def says_nothing_else(self) -> bool:
        return all(len(word) <= 2 or word in _FILLERS for word in self.others)


def split_by_names(names: list[str]) -> NamedSplit:
    """The sides that files ask for by their paths (with forward slashes, inside the source)."""
    splits = _splits_of(names)
    validation_word = next((each for each in VALIDATION_WORDS if each in splits.values()), None)
    says_one_thing = len(set(splits.values())) == 1
    if validation_word is None or (says_one_thing and validation_word != VALIDATION):
        return _without_validation(names, splits)
    validation = [name for name in names if splits[name] == validation_word]
    unsaid = [name for name in names if splits[name] is None]
    train = [name for name in names if splits[name] == TRAIN] or unsaid
    taking_part = {*validation, *train}
    sides: dict[str, Side | None] = dict.fromkeys(train, "train")
    sides |= dict.fromkeys(validation, "validation")
    return NamedSplit(
        sides=sides,
        left_out=tuple(name for name in names if name not in taking_part),
        notes=(
            f"the names say the split: trains on {name_some(train) or 'nothing'}, validates on "
            f"{name_some(validation)}",
            *_notes_on_left_out([name for name in names if name not in taking_part], splits),
            *_notes_on_unsure(names, splits),
        ),
    )


def _without_validation(names: list[str], splits: dict[str, str | None]) -> NamedSplit:
    """No name says validation: what is not test is split by hash."""
    taking_part = [name for name in names if splits[name] != TEST] or names
    if set(splits.values()) & {*VALIDATION_WORDS, TEST} and taking_part == names:
        splits = dict.fromkeys(names)  # all of them are: there is nothing to hold them out from
    left_out = [name for name in names if splits[name] == TEST and len(taking_part) < len(names)]
    notes = (*_notes_on_left_out(left_out, splits), *_notes_on_unsure(names, splits))
    return NamedSplit(sides=dict.fromkeys(taking_part), left_out=tuple(left_out), notes=notes)


def _splits_of(names: list[str]) -> dict[str, str | None]:
    """The split that each path says, None where it says none that counts."""
    levels = {name: _levels(name) for name in names}
    speaking = sum(any(level.splits for level in levels[name]) for name in names)
    mostly = speaking * 2 > len(names)
    twins = _words_with_several_splits(levels.values())
    own_says_validation = any(_VALIDATION_NAME.search(_own_name(name)) for name in names)

    def split_of(name: str) -> str | None:
        if _VALIDATION_NAME.search(_own_name(name)):
            return VALIDATION
        said = {
            split
            for level in levels[name]
            for split in level.splits
            if level.says_nothing_else
            or level.others in twins
            or split == HELD_OUT
            or (mostly and split != TRAIN)
        }
        if not said and own_says_validation and _TRAINING_NAME.search(_own_name(name)):
            return TRAIN
        return max(said, key=_LEAST_HELD_OUT_FIRST.index, default=None)

    return {name: split_of(name) for name in names}


def _words_with_several_splits(paths: Iterable[list[_Level]]) -> set[tuple[str, ...]]:
    """The other words of names that differ in the word of the split alone."""
    found: dict[tuple[str, ...], set[frozenset[str]]] = {}
    for levels in paths:
        for level in levels:
            found.setdefault(level.others, set()).add(level.splits)
    return {others for others, splits in found.items() if len(splits) > 1}


def _levels(name: str) -> list[_Level]:
    """What each part of a path says, the file's own name last."""
    *folders, own = PurePosixPath(name).parts
    return [_level(part) for part in (*folders, _EXTENSION.sub("", own))]


def _level(part: str) -> _Level:
    apart = _CAMEL_CASE.sub(" ", part).lower()
    words = _WORD.findall(_HELD_OUT.sub(" heldout ", apart))
    splits = frozenset(split for word in words if (split := _split_of_word(word)) is not None)
    others = tuple(word for word in words if _split_of_word(word) is None)
    return _Level(splits=splits, others=others)


def _split_of_word(word: str) -> str | None:
    glued = _GLUED.fullmatch(word)
    return _WORDS.get(word) or (_WORDS.get(glued[1]) if glued else None)


def _own_name(name: str) -> str:
    return PurePosixPath(name).name.lower()


def _notes_on_left_out(left_out: list[str], splits: dict[str, str | None]) -> list[str]:
    """Why files take no part."""
    test = [name for name in left_out if splits[name] == TEST]
    held_out = [name for name in left_out if splits[name] in VALIDATION_WORDS]
    others = [name for name in left_out if splits[name] in (None, TRAIN)]
    why = {
        "test by name": test,
        "held out by name, beside the validation set": held_out,
        "neither training nor validation by name": others,
    }
    return [f"{reason}, left out: {name_some(some)}" for reason, some in why.items() if some]


def _notes_on_unsure(names: list[str], splits: dict[str, str | None]) -> list[str]:
    """Names that hold a word of a split that was not taken for one."""
    unsure = [
        name
        for name in names
        if splits[name] is None and any(level.splits - {TRAIN} for level in _levels(name))
    ]
    if not unsure:
        return []
    return [
        f"taken for titles, not for validation or test: {name_some(unsure)}; where that is wrong, "
        f"put them into a folder called validation or test"
    ]
