"""Which word of a text has which part of speech? Any CoNLL-U file, its text rebuilt.

Multi-word ranges give the text's form; the words inside one have places of their own where their
forms make up the range's, as English contractions do, and none where they do not. Empty nodes are
not text. Format: https://universaldependencies.org/format.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runners.text.opening import open_text
from spaces.errors import RequestError

UNIVERSAL_TAGS = frozenset(
    [
        "ADJ",
        "ADP",
        "ADV",
        "AUX",
        "CCONJ",
        "DET",
        "INTJ",
        "NOUN",
        "NUM",
        "PART",
        "PRON",
        "PROPN",
        "PUNCT",
        "SCONJ",
        "SYM",
        "VERB",
        "X",
    ]
)
_COLUMNS = 10


@dataclass(frozen=True, kw_only=True)
class TaggedWord:
    """A word and its place in a document's text."""

    form: str
    """As written."""
    tag: str
    """Universal part of speech, or ``_``."""
    sentence: int
    """Number of its sentence in the document, from 0."""
    start: int
    """First byte of UTF-8."""
    end: int
    """Byte after its last."""


@dataclass(kw_only=True)
class TaggedDocument:
    """A document's text and its words, in order."""

    name: str
    """As the file names it; ``document N`` where it names none."""
    text: str = ""
    """The whole text, one space between sentences unless the file says otherwise."""
    words: list[TaggedWord] = field(default_factory=list)
    """In order of the text; not every character belongs to one."""


def read_conllu(path: Path) -> list[TaggedDocument]:
    """The documents of a file (``.gz`` and ``.bz2`` are unpacked).

    Raises `RequestError` that names the first line that is none of the format.
    """
    reader = _Reader(path)
    try:
        with open_text(path) as lines:
            for number, line in enumerate(lines, start=1):
                reader.take(number, line)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error}; name a CoNLL-U file") from error
    documents = [each for each in reader.documents if each.words]
    if not documents:
        raise RequestError(f"{path} holds no words; name a CoNLL-U file")
    return documents


class _Reader:
    """Builds documents line by line."""

    def __init__(self, path: Path) -> None:
        self.documents: list[TaggedDocument] = []
        self._path = path
        self._num_bytes = 0
        self._sentence = 0
        self._range: tuple[int, str, str] | None = None
        """Last word of an open range, its form and MISC."""
        self._inside: list[tuple[str, str]] = []
        self._is_in_sentence = False

    def take(self, number: int, raw: bytes) -> None:
        """The next line of the file."""
        try:
            line = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise self._broken(number, f"is not UTF-8 ({error.reason})") from error
        if not line.strip():
            self._end_sentence(number)
        elif line.startswith("#"):
            self._comment(line)
        else:
            self._token(number, line)

    def _comment(self, line: str) -> None:
        if not line[1:].strip().startswith("newdoc"):
            return
        _, _, name = line.partition("=")
        self._start_document(name.strip())

    def _start_document(self, name: str) -> None:
        name = name or f"document {len(self.documents) + 1}"
        self.documents.append(TaggedDocument(name=name))
        self._num_bytes = self._sentence = 0

    def _end_sentence(self, number: int) -> None:
        if self._range is not None:
            raise self._broken(number, f"ends a sentence before word {self._range[0]} of a range")
        self._sentence += self._is_in_sentence
        self._is_in_sentence = False

    def _token(self, number: int, line: str) -> None:
        columns = line.split("\t")
        if len(columns) != _COLUMNS:
            raise self._broken(number, f"has {len(columns)} columns, not {_COLUMNS}, by tabs")
        name, form, tag, misc = columns[0], columns[1], columns[3], columns[9]
        if not form:
            raise self._broken(number, "has no form")
        if not self.documents:
            self._start_document("")
        self._is_in_sentence = True
        first, dash, last = name.partition("-")
        if dash and first.isdecimal() and last.isdecimal():
            self._range = (int(last), form, misc)
        elif name.isdecimal():
            self._word(number, int(name), form=form, tag=tag, misc=misc)
        elif not all(part.isdecimal() for part in name.split(".")):
            raise self._broken(number, f"has the id {name!r}, no word, range or empty node")

    def _word(self, number: int, index: int, *, form: str, tag: str, misc: str) -> None:
        if tag not in UNIVERSAL_TAGS and tag != "_":
            raise self._broken(number, f"has the tag {tag[:20]!r}, none of Universal Dependencies'")
        if self._range is None:
            self._write([(form, tag)], form, misc)
            return
        self._inside.append((form, tag))
        last, whole, misc = self._range
        if index >= last:
            is_made_up = "".join(each for each, _ in self._inside) == whole
            self._write(self._inside if is_made_up else [], whole, misc)
            self._range, self._inside = None, []

    def _write(self, words: list[tuple[str, str]], written: str, misc: str) -> None:
        document, start = self.documents[-1], self._num_bytes
        for form, tag in words:
            end = start + len(form.encode())
            document.words.append(
                TaggedWord(form=form, tag=tag, sentence=self._sentence, start=start, end=end)
            )
            start = end
        space = "" if "SpaceAfter=No" in misc.split("|") else " "
        document.text += written + space
        self._num_bytes += len((written + space).encode())

    def _broken(self, number: int, why: str) -> RequestError:
        return RequestError(
            f"every line of CoNLL-U is a comment, a word or empty, but line {number} of "
            f"{self._path} {why}; mend or remove it"
        )


def words_of_tokens(words: list[TaggedWord], num_bytes: list[int]) -> Iterator[int | None]:
    """Of each token of a document, which word its last byte lies in; None between words.

    ``num_bytes`` are those of its tokens, in order. A piece with a space before a word is the
    word's; a word in which no piece ends (do, where don is one piece) has none.
    """
    place, at = 0, 0
    for count in num_bytes:
        at += count
        while place < len(words) and words[place].end < at:
            place += 1
        inside = place < len(words) and words[place].start < at <= words[place].end
        yield place if inside else None
