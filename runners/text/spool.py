"""Where do a source's documents lie while they are split and tokenised?"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from runners.text.blocks import cut_into_blocks
from runners.text.documents import TextSource, format_of, read_documents
from runners.text.json_text import TEXT_KEY, is_named_json_lines
from runners.text.naming import name_some
from runners.text.split_names import Side
from spaces.errors import RequestError

SECONDS_OF_SILENCE = 3.0
"""Work that takes longer says how far it is, this often."""

Say = Callable[[str], None]


class Progress:
    """Says at most one line per `SECONDS_OF_SILENCE`, and nothing at all where work is short."""

    def __init__(self, say: Say) -> None:
        self.say = say
        self._next = time.monotonic() + SECONDS_OF_SILENCE

    def maybe(self, message: str) -> None:
        """Say the message if it is time for one."""
        if time.monotonic() >= self._next:
            self.say(message)
            self._next = time.monotonic() + SECONDS_OF_SILENCE


class SpooledDocuments:
    """All documents of a source in one unnamed temporary file, with lengths, hashes and sides.

    The file has no name, so that a killed process leaves nothing behind. Use as a context manager.
    """

    def __init__(
        self, source: TextSource, folder: Path, progress: Progress, *, key: str = TEXT_KEY
    ) -> None:
        self.digests: list[bytes] = []
        self.lengths: list[int] = []
        self.asked_sides: list[Side | None] = []
        self._starts: list[int] = []
        self._json_by_content: list[str] = []
        self._key = key
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        try:
            self._spool(source, progress)
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException:
            self._file.close()
            raise

    def _spool(self, source: TextSource, progress: Progress) -> None:
        for number, file in enumerate(source.files, start=1):
            found = format_of(file)
            if found != "text" and not is_named_json_lines(file.name):
                self._json_by_content.append(file.name)
            for document in read_documents(
                file, in_blocks=source.in_blocks, key=self._key, text_format=found
            ):
                self._append(self._file.tell(), document, side=file.side)
                self._file.write(document)
            megabytes = self._file.tell() / 1e6
            progress.maybe(f"text: {number} of {len(source.files)} files, {megabytes:.0f} MB read")
        if not self.lengths:
            raise RequestError(f"{source.description} holds no text; name a source that does")
        self._file.flush()

    def _append(self, start: int, document: bytes, *, side: Side | None) -> None:
        self._starts.append(start)
        self.digests.append(hashlib.sha256(document).digest())
        self.lengths.append(len(document))
        self.asked_sides.append(side)

    def __enter__(self) -> SpooledDocuments:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._file.close()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> bytes:
        start = self._starts[index]
        return self._map[start : start + self.lengths[index]]

    def part(self, index: int, offset: int, num_bytes: int) -> bytes:
        """At most so many bytes of a document, from an offset on."""
        start = self._starts[index] + offset
        return self._map[start : min(start + num_bytes, self._starts[index] + self.lengths[index])]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed of the files' contents, for a person."""
        if not self._json_by_content:
            return ()
        names = name_some(self._json_by_content)
        return (f"JSON by its content, the text under the key {self._key!r}: {names}",)

    def cut(self, *, longer_than: int, target: int) -> int:
        """Cut longer documents into blocks, each a document of its own; returns how many were."""
        old = [*zip(self._starts, self.lengths, self.digests, self.asked_sides, strict=True)]
        num_cut = sum(length > longer_than for _, length, _, _ in old)
        if num_cut == 0:
            return 0
        self._starts, self.lengths, self.digests, self.asked_sides = [], [], [], []
        for start, length, digest, side in old:
            if length > longer_than:
                for block in cut_into_blocks(self._map[start : start + length], target=target):
                    if block.strip():
                        self._append(start, block, side=side)
                    start += len(block)
            else:
                self._starts.append(start)
                self.lengths.append(length)
                self.digests.append(digest)
                self.asked_sides.append(side)
        return num_cut

    def batches(self, indices: list[int], *, batch_bytes: int) -> Iterator[list[bytes]]:
        """The named documents in lists of about ``batch_bytes``."""
        batch: list[bytes] = []
        num_bytes = 0
        for index in indices:
            batch.append(self[index])
            num_bytes += self.lengths[index]
            if num_bytes >= batch_bytes:
                yield batch
                batch, num_bytes = [], 0
        if batch:
            yield batch
