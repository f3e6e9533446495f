"""Does a model route each class of tokens as was published: same, opposite, or not resolved?

The paper's claim: function words and lexical content go wide, punctuation, symbols and arithmetic
deep. Of digits, other words and whitespace it claims nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analysis.routing.class_means import ClassMeans

Direction = Literal["deep", "wide"]
Verdict = Literal["same", "opposite", "not resolved"]

PUBLISHED: dict[str, Direction] = {
    "function words": "wide",
    "lexical words": "wide",
    "punctuation": "deep",
    "arithmetic": "deep",
}
"""Where a class goes, against all other tokens."""


@dataclass(frozen=True, kw_only=True)
class PublishedVerdict:
    """One class against the published direction."""

    name: str
    """The class."""
    published: Direction
    """Where it goes in the paper."""
    verdict: Verdict
    """Not resolved: the difference is within chance, or too few units (or none) hold the class."""


def against_published(found: ClassMeans) -> tuple[PublishedVerdict, ...]:
    """Each published class; empty unless deep shares were compared by class."""
    if (found.by, found.measure) != ("class", "deep_share"):
        return ()
    directions = {
        each.name: each.difference for each in found.classes if each.differs and each.difference
    }
    return tuple(
        PublishedVerdict(
            name=name, published=published, verdict=verdict_of(published, directions.get(name))
        )
        for name, published in PUBLISHED.items()
    )


def verdict_of(published: Direction, difference: float | None) -> Verdict:
    """A class that is so much deeper than all others; None where that is within chance."""
    if difference is None:
        return "not resolved"
    return "same" if (difference > 0) == (published == "deep") else "opposite"
