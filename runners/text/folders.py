"""Which files of a folder are read as text, and which are not?

Read are ``.txt`` and ``.jsonl`` files (also ``.bz2`` and ``.gz``). Only where a folder has none of
them, other spellings are (`_OTHER_SPELLINGS`): a folder that was read before is read as before.
Linked files are read, linked folders are not gone into.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from runners.text.naming import name_some
from spaces.errors import RequestError

_READABLE = re.compile(r"\.(txt|jsonl)(\.bz2|\.gz)?$")
_OTHER_SPELLINGS = re.compile(
    r"\.(txt|text|jsonl|ndjson|jsonlines|json)(\.bz2|\.gz)?$", flags=re.IGNORECASE
)
_PACKED = {".gz", ".bz2"}
MOST_KINDS_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class FolderListing:
    """The files of a folder by what becomes of them; names are relative, with forward slashes."""

    readable: tuple[str, ...]
    """Read, in sorted order."""
    unread: tuple[str, ...]
    """Not read, for their names or because they are no files."""
    closed_folders: tuple[str, ...]
    """Not gone into, being links or not permitted."""

    def notes(self) -> Iterator[str]:
        """What was not read, for a person."""
        if self.unread:
            total = len(self.readable) + len(self.unread)
            yield (
                f"not read: {len(self.unread)} of {total} files ({_by_kind(self.unread)}); read "
                f"are {_by_kind(self.readable)} (rename others to have them read)"
            )
        if self.closed_folders:
            yield (
                f"not read: linked or closed folders: {name_some(self.closed_folders)}; name where "
                f"they lead as a source, or link their files"
            )


def list_folder(folder: Path) -> FolderListing:
    """What is in a folder and its folders; `RequestError` where nothing is to be read."""
    files: list[str] = []
    others: list[str] = []
    closed: list[str] = []
    for path in sorted(_walk(folder)):
        name = path.relative_to(folder).as_posix()
        if path.is_dir():
            closed.append(name)
        elif path.is_file() and not path.name.startswith("."):
            files.append(name)
        else:
            others.append(name)
    readable = [name for name in files if _READABLE.search(name)]
    readable = readable or [name for name in files if _OTHER_SPELLINGS.search(name)]
    read = set(readable)
    unread = [name for name in [*files, *others] if name not in read and not _is_hidden(name)]
    if not readable:
        seen = _by_kind(unread) if unread else "nothing"
        links = f"; linked or closed folders are not gone into: {name_some(closed)}"
        raise RequestError(
            f"folder {folder} holds no text: looked for .txt and .jsonl (also .bz2 and .gz), found "
            f"{seen}{links if closed else ''}"
        )
    return FolderListing(
        readable=tuple(sorted(readable)), unread=tuple(unread), closed_folders=tuple(closed)
    )


def _walk(folder: Path) -> Iterator[Path]:
    """All that is not gone into: files, devices, linked folders and those that may not be read."""

    for place, folders, files in os.walk(folder):
        for name in files:
            yield Path(place, name)
        for name in folders:
            path = Path(place, name)
            if path.is_symlink() or not os.access(path, os.R_OK | os.X_OK):
                yield path


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _by_kind(names: tuple[str, ...] | list[str]) -> str:
    """How many files there are of each ending, with the first of each."""
    counts = Counter(map(_ending, names))
    shown = []
    for ending, count in counts.most_common(MOST_KINDS_NAMED):
        first = next(name for name in names if _ending(name) == ending)
        shown.append(f"{count} {ending}: {first}" + (", ..." if count > 1 else ""))
    if len(counts) > MOST_KINDS_NAMED:
        shown.append("others")
    return "; ".join(shown)


def _ending(name: str) -> str:
    suffixes = PurePosixPath(name).suffixes
    if not suffixes:
        return "without ending"
    return "".join(suffixes[-2:] if suffixes[-1].lower() in _PACKED else suffixes[-1:])
