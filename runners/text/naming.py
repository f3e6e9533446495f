"""How are many files named in one line?"""

from __future__ import annotations

from collections.abc import Sequence

MOST_NAMED = 3


def name_some(names: Sequence[str]) -> str:
    """The names, or how many there are and the first ones."""
    if len(names) <= MOST_NAMED:
        return ", ".join(names)
    return f"{len(names)} files ({', '.join(names[:MOST_NAMED])}, ...)"
