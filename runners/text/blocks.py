"""Where is a long text cut, so that parts of it can be held out?"""

from __future__ import annotations

import re

MAXIMUM_BLOCK_BYTES = 8_192
"""Blocks of a single text file are about this long at most ..."""
MINIMUM_NUM_BLOCKS = 20
"""... and short enough that there are about this many of them."""

_BLOCK_BOUNDARIES = [re.compile(end) for end in (rb"\n[ \t\r]*\n\s*", rb"\n", rb"\s")]


def cut_into_blocks(text: bytes, *, target: int | None = None) -> list[bytes]:
    """Cut one text into blocks whose concatenation is the text.

    The target length is by default `MAXIMUM_BLOCK_BYTES`, or a twentieth of a short text. A block
    ends after the first blank line between one and two targets, else the first line, word or
    character there.
    """
    if target is None:
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
