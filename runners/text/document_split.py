"""Which documents of a source train a model, and which measure it?

- Exact duplicates land on the same side.
- Documents are ranked by their SHA-256, and the first ones are taken for validation until they
  hold ``validation_fraction`` of the bytes; one distinct document at least stays for training.
- Where a few long documents make that miss the share grossly (`misses_grossly`), the documents
  that are longer than the share are cut at paragraphs or lines first.
- Where the files' names say what is validation (`runners.text.split_names`), they decide; training
  documents that occur in the validation set as well are dropped.

Both sides keep the source's order.
"""

from __future__ import annotations

from dataclasses import dataclass

from runners.text.blocks import MAXIMUM_BLOCK_BYTES
from runners.text.spool import SpooledDocuments
from spaces.errors import RequestError

LARGEST_EXCESS = 0.2
"""Validation that takes more of the text than was asked by this much is cut smaller: a fifth of
the text was meant for training. Below it, where streams were made before, they stay as they are."""
LARGEST_SHORTFALL = 3.0
"""A side that gets less than the asked share by this factor is mended too."""
SAID_FACTOR = 2.0
"""A share that is off by more than this factor is said."""
BLOCKS_PER_SHARE = 5
"""Of a document that is cut, so that the share is met within a fifth or two."""
SHORTEST_BLOCK_BYTES = 128
"""About a sentence; what is shorter than two of them is never cut."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Indices of the documents of each side, and the rule that chose them."""

    train: list[int]
    """Training documents, in the source's order."""
    validation: list[int]
    """Validation documents, in the source's order."""
    rule: str
    """``by file names`` or ``by hash, FRACTION of the bytes``, and whether documents were cut."""
    notes: tuple[str, ...]
    """Copies, cuts and a share that is not what was asked, for a person."""


def split_documents(
    documents: SpooledDocuments, *, by_name: bool, validation_fraction: float
) -> Split:
    """Split by the files' names or by content hash; raises `RequestError` where a side is empty.

    Documents may be cut, and have other indices afterwards.
    """
    if by_name:
        return _split_by_name(documents)
    return _split_by_hash(documents, validation_fraction)


def misses_grossly(share: float, wanted: float) -> bool:
    """Whether validation holds a share of the bytes that cannot be what was meant."""
    return (
        share - wanted > LARGEST_EXCESS
        or share * LARGEST_SHORTFALL < wanted
        or (1 - share) * LARGEST_SHORTFALL < 1 - wanted
    )


def _split_by_name(documents: SpooledDocuments) -> Split:
    indices = range(len(documents))
    validation = [i for i in indices if documents.asked_sides[i] == "validation"]
    held_out = {documents.digests[i] for i in validation}
    asked = [i for i in indices if documents.asked_sides[i] != "validation"]
    train = [i for i in asked if documents.digests[i] not in held_out]
    rule = "by file names"
    _check_sides(documents, train, validation, rule=rule)
    notes = []
    if len(train) < len(asked):
        notes.append(
            f"{len(asked) - len(train):,} of {len(asked):,} training documents are validation "
            f"documents as well: left out of training"
        )
    return Split(train=train, validation=validation, rule=rule, notes=tuple(notes))


def _split_by_hash(documents: SpooledDocuments, fraction: float) -> Split:
    rule = f"by hash, {fraction:g} of the bytes"
    notes = []
    chosen = _lowest_digests(documents, fraction)
    before = _share(documents, chosen)
    if misses_grossly(before, fraction) and (num_cut := _cut_long(documents, fraction)):
        chosen = _lowest_digests(documents, fraction)
        rule += ", long documents cut"
        notes.append(
            f"{num_cut:,} long documents are cut at paragraphs or lines: whole, validation would "
            f"hold {before:.1%} of the bytes, {fraction:.1%} was asked"
        )
    indices = range(len(documents))
    validation = [i for i in indices if documents.digests[i] in chosen]
    train = [i for i in indices if documents.digests[i] not in chosen]
    _check_sides(documents, train, validation, rule=rule)
    notes += _notes_on_copies(documents) + _notes_on_share(_share(documents, chosen), fraction)
    return Split(train=train, validation=validation, rule=rule, notes=tuple(notes))


def _cut_long(documents: SpooledDocuments, fraction: float) -> int:
    """Cut the documents that are longer than the validation share; returns how many were."""
    wanted = min(fraction, 1 - fraction) * sum(documents.lengths)
    target = max(SHORTEST_BLOCK_BYTES, min(MAXIMUM_BLOCK_BYTES, int(wanted) // BLOCKS_PER_SHARE))
    return documents.cut(longer_than=max(int(wanted), 2 * target), target=target)


def _notes_on_copies(documents: SpooledDocuments) -> list[str]:
    num_copies = len(documents) - len(set(documents.digests))
    if num_copies == 0:
        return []
    return [
        f"{num_copies:,} of {len(documents):,} documents are copies of others, kept on the side of "
        f"the first"
    ]


def _notes_on_share(share: float, fraction: float) -> list[str]:
    if max(share / fraction, fraction / share) <= SAID_FACTOR:
        return []
    return [
        f"warning: validation holds {share:.1%} of the bytes, {fraction:.1%} was asked: the text "
        f"has few distinct documents"
    ]


def _check_sides(
    documents: SpooledDocuments, train: list[int], validation: list[int], *, rule: str
) -> None:
    for name, side in (("training", train), ("validation", validation)):
        if not side:
            raise RequestError(
                f"the text leaves no {name} document, split {rule}: a split needs at least two "
                f"distinct ones, got {len(set(documents.digests))}"
            )


def _share(documents: SpooledDocuments, chosen: set[bytes]) -> float:
    """The share of the bytes that documents of these hashes hold."""
    pairs = zip(documents.digests, documents.lengths, strict=True)
    return sum(length for digest, length in pairs if digest in chosen) / sum(documents.lengths)


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
