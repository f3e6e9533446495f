"""What does a prepared corpus depend on, so that it is made again where that changed?"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from runners.text.documents import TextSource
from runners.text.tokenizers import definition_of
from spaces.errors import RequestError

FORMAT_VERSION = 1
"""Raised when the same text would give other streams; part of the fingerprint."""
READING_VERSION = 2
"""Raised when a source would be read or split in another way, or more is said of it; makes streams
that were kept be made again, and leaves fingerprints as they are."""


@dataclass(frozen=True, kw_only=True)
class ReadingRules:
    """How a source is read."""

    tokenizer: str
    """``bytes``, ``bpe:N`` or ``file:PATH``."""
    validation_fraction: float
    """Share of the bytes."""
    key: str
    """Where an object of JSON has its text."""


def preparation_key(source: TextSource, rules: ReadingRules) -> str:
    """What a preparation depends on, known without reading text: the files' hashes and the rules.

    A package of the index would do with its version, but its files may have been edited.
    """
    files = []
    for item in source.files:
        try:
            with item.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                files.append([item.name, item.side, digest])
        except OSError as error:
            raise RequestError(f"{item.path} cannot be read: {error}") from error
    asked = [definition_of(rules.tokenizer), rules.validation_fraction, rules.key]
    parts = [FORMAT_VERSION, READING_VERSION, *asked, source.in_blocks, files]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
