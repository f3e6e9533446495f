"""Which recorded trials are no part of an experiment any more? In words, a line for each reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


def set_aside_in_words(reasons: Mapping[str, str | None]) -> list[str]:
    """Of reasons by configuration hash (None: it belongs), how many trials each sets aside."""
    counts = Counter(reason for reason in reasons.values() if reason is not None)
    return [
        f"set aside: {count} recorded trial{'s' * (count > 1)} of this sweep "
        f"({reason}); kept in the ledger, not ranked, not fitted"
        for reason, count in counts.items()
    ]
