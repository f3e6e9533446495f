"""Which documents of a source train a model, and which measure it?

- Exact duplicates land on the same side.
- Documents are ranked by their SHA-256, and the first ones are taken for validation until they
  hold ``validation_fraction`` of the bytes; one distinct document at least stays for training.
- Where the files' names say what is validation (`runners.text.documents`), they decide; training
  documents that occur in the validation set as well are dropped.

Both sides keep the source's order.
"""

from __future__ import annotations

import hashlib
import mmap
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runners.text.documents import Side, TextSource, read_documents
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

    def __init__(self, source: TextSource, folder: Path, progress: Progress) -> None:
        self.digests: list[bytes] = []
        self.lengths: list[int] = []
        self.asked_sides: list[Side | None] = []
        self._starts: list[int] = []
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        try:
            self._spool(source, progress)
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        except BaseException:
            self._file.close()
            raise

    def _spool(self, source: TextSource, progress: Progress) -> None:
        for number, file in enumerate(source.files, start=1):
            for document in read_documents(file, in_blocks=source.in_blocks):
                self._starts.append(self._file.tell())
                self._file.write(document)
                self.digests.append(hashlib.sha256(document).digest())
                self.lengths.append(len(document))
                self.asked_sides.append(file.side)
            megabytes = self._file.tell() / 1e6
            progress.maybe(f"text: {number} of {len(source.files)} files, {megabytes:.0f} MB read")
        if not self.lengths:
            raise RequestError(f"{source.description} holds no text; name a source that does")
        self._file.flush()

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


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of the documents of each side, and the rule that chose them."""

    train: list[int]
    """Training documents, in the source's order."""
    validation: list[int]
    """Validation documents, in the source's order."""
    rule: str
    """``by file names`` or ``by hash, FRACTION of the bytes``."""


def split_documents(
    documents: SpooledDocuments, *, by_name: bool, validation_fraction: float
) -> Split:
    """Split by the files' names or by content hash; raises `RequestError` where a side is empty."""
    indices = range(len(documents))
    if by_name:
        rule = "by file names"
        validation = [i for i in indices if documents.asked_sides[i] == "validation"]
    else:
        rule = f"by hash, {validation_fraction:g} of the bytes"
        chosen = _lowest_digests(documents, validation_fraction)
        validation = [i for i in indices if documents.digests[i] in chosen]
    held_out = {documents.digests[i] for i in validation}
    train = [
        i
        for i in indices
        if documents.digests[i] not in held_out and documents.asked_sides[i] != "validation"
    ]
    for name, side in (("training", train), ("validation", validation)):
        if not side:
            raise RequestError(
                f"the text leaves no {name} document, split {rule}: a split needs at least two "
                f"distinct ones, got {len(set(documents.digests))}"
            )
    return Split(train=train, validation=validation, rule=rule)


def _lowest_digests(documents: SpooledDocuments, fraction: float) -> set[bytes]:
    """The documents of lowest hash that hold ``fraction`` of the bytes, but never all of them."""
    num_bytes: dict[bytes, int] = {}
    for digest, length in zip(documents.digests, documents.lengths, strict=True):
        num_bytes[digest] = num_bytes.get(digest, 0) + length
    wanted = fraction * sum(documents.lengths)
    chosen: set[bytes] = set()
    held = 0
    for digest in sorted(num_bytes)[:-1]:
        if held >= wanted:
            break
        chosen.add(digest)
        held += num_bytes[digest]
    return chosen
