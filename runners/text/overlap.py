"""How much of the validation text stands in the training text as well?

Copies with small changes, and passages inside other documents, count: every window of
`WINDOW` letters and digits (case, blanks and punctuation do not count, as in the contamination
checks of GPT-3, https://arxiv.org/abs/2005.14165, appendix C) of the validation text is looked up
among those of the training text. Of a large validation set, a fixed part of the windows is
(chosen by their content, so that both sides choose the same ones). Shorter documents are compared
whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runners.text.spool import Progress, SpooledDocuments

WINDOW = 32
"""Letters and digits; about six English words."""
OVERLAPPING = 0.5
"""A document with more than this share of its windows in the training text is counted."""
MOST_WINDOWS = 1 << 18
"""About so many windows of the validation text are looked up at most."""

_CHUNK_BYTES = 4_000_000
_SEPARATOR = b"\0"
_ASCII_TEXT = bytes(range(128))
_IGNORED = bytes(code for code in _ASCII_TEXT if not chr(code).isalnum())
_LOWER_CASE = bytes(range(256)).lower()
_FILTER_BITS = 22
_MULTIPLIERS = tuple(
    np.uint64(odd)
    for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93)
)

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What of the validation set stands in the training text."""

    num_documents: int
    """Validation documents that stand there for the most part."""
    num_bytes: int
    """Their bytes."""


def find_overlap(
    documents: SpooledDocuments, train: list[int], validation: list[int], progress: Progress
) -> Overlap:
    """Count the validation documents that stand in the training text for the most part."""
    num_bytes = sum(documents.lengths[index] for index in validation)
    sampled_bits = max(0, (num_bytes // MOST_WINDOWS).bit_length())
    hashes, owners = _windows_of(documents, validation, sampled_bits=sampled_bits)
    known, places = np.unique(hashes, return_inverse=True)
    seen = np.zeros(len(known), dtype=np.bool_)
    for chunk in _chunks(documents, train, progress=progress):
        _mark_seen(seen, known, _hash_windows(chunk, sampled_bits=sampled_bits)[0])
    counts = np.bincount(owners, minlength=len(validation))
    found = np.bincount(owners, weights=seen[places], minlength=len(validation))
    overlapping = (counts > 0) & (found > OVERLAPPING * counts)
    overlapping |= _short_ones_seen(documents, train, validation)
    lengths = np.array([documents.lengths[index] for index in validation])
    return Overlap(num_documents=int(overlapping.sum()), num_bytes=int(lengths[overlapping].sum()))


def _windows_of(
    documents: SpooledDocuments, indices: list[int], *, sampled_bits: int
) -> tuple[Hashes, npt.NDArray[np.int64]]:
    """Hashes of the sampled windows, and the number of the document that each is from."""
    hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    first = 0
    for chunk in _chunks(documents, indices):
        found, places, ends = _hash_windows(chunk, sampled_bits=sampled_bits)
        hashes.append(found)
        owners.append(first + np.searchsorted(ends, places))
        first += len(ends)
    return np.concatenate(hashes), np.concatenate(owners)


def _chunks(
    documents: SpooledDocuments, indices: list[int], *, progress: Progress | None = None
) -> Iterator[bytes]:
    """The letters of documents, a separator after each, in pieces that overlap by a window."""
    parts: list[bytes] = []
    num_bytes = 0
    for number, index in enumerate(indices):
        for part in _letters_in_parts(documents, index):
            parts.append(part)
            num_bytes += len(part)
            if num_bytes >= _CHUNK_BYTES:
                chunk = b"".join(parts)
                yield chunk
                carried = chunk[1 - WINDOW :].rpartition(_SEPARATOR)[2]
                parts, num_bytes = [carried], 0
        if progress is not None:
            progress.maybe(f"text: {number} of {len(indices)} documents searched for copies")
    yield b"".join(parts)


def _letters_in_parts(documents: SpooledDocuments, index: int) -> Iterator[bytes]:
    for start in range(0, documents.lengths[index], _CHUNK_BYTES):
        yield _letters(documents.part(index, start, _CHUNK_BYTES))
    yield _SEPARATOR


def _letters(text: bytes) -> bytes:
    """Letters in lower case and digits; bytes beyond ASCII as they are."""
    return text.translate(_LOWER_CASE, _IGNORED)


def _hash_windows(
    chunk: bytes, *, sampled_bits: int
) -> tuple[Hashes, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Hashes and places of the windows that hold no separator, and the places of separators."""
    ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 0)
    if len(chunk) < WINDOW:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64), ends
    eight = np.ndarray((len(chunk) - 7,), dtype="<u8", buffer=chunk, strides=(1,))
    places = np.arange(len(chunk) - WINDOW + 1)
    if sampled_bits:
        mixed = eight[: len(places)] * _MULTIPLIERS[0]
        places = np.flatnonzero(mixed >> np.uint64(64 - sampled_bits) == 0)
    borders = np.append(ends, len(chunk) + WINDOW)
    places = places[borders[np.searchsorted(borders, places)] - places >= WINDOW]
    hashes = np.zeros(len(places), np.uint64)
    for offset, odd in zip(range(0, WINDOW, 8), _MULTIPLIERS, strict=True):
        hashes = (hashes ^ eight[places + offset]) * odd
        hashes ^= hashes >> np.uint64(29)
    return hashes, places, ends


def _mark_seen(seen: npt.NDArray[np.bool_], known: Hashes, hashes: Hashes) -> None:
    """Mark the known hashes that are among these; a table of bits spares most of the search."""
    if len(known) == 0:
        return
    mask = np.uint64((1 << _FILTER_BITS) - 1)
    table = np.zeros(1 << _FILTER_BITS, np.bool_)
    table[known & mask] = True
    hashes = hashes[table[hashes & mask]]
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    seen[places[known[places] == hashes]] = True


def _short_ones_seen(
    documents: SpooledDocuments, train: list[int], validation: list[int]
) -> npt.NDArray[np.bool_]:
    """Which validation documents without a whole window are, as letters, training documents."""
    known = set(_short_letters(documents, train))
    return np.array(
        [
            letters is not None and letters in known
            for letters in _short_letters(documents, validation)
        ]
    )


def _short_letters(documents: SpooledDocuments, indices: Iterable[int]) -> Iterator[bytes | None]:
    """The letters of short documents; None for the others and where there are none."""
    for index in indices:
        letters = _letters(documents.part(index, 0, 4 * WINDOW))
        is_short = documents.lengths[index] <= 4 * WINDOW and 0 < len(letters) < WINDOW
        yield letters if is_short else None
