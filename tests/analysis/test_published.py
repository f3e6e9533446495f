"""Is each class set against the published direction?"""

from __future__ import annotations

import polars as pl

from analysis.routing.class_means import class_means
from analysis.routing.published import PUBLISHED, against_published
from analysis.routing.token_classes import CLASSES
from tests.analysis.test_class_means import probe_of

SHARES = {"NOUN": 0.30, "DET": 0.70, "PUNCT": 0.70}


def verdicts(shares: dict[str, float], *, documents: int = 30) -> dict[str, str]:
    found = class_means(probe_of(shares, seed=1, documents=documents), resamples=300)
    return {each.name: each.verdict for each in against_published(found)}


def test_planted_directions_are_same_opposite_or_not_resolved() -> None:
    assert verdicts(SHARES) == {
        "function words": "opposite",
        "lexical words": "same",
        "punctuation": "same",
        "arithmetic": "not resolved",
    }


def test_a_class_without_a_difference_or_without_units_is_not_resolved() -> None:
    assert set(verdicts(dict.fromkeys(SHARES, 0.5)).values()) == {"not resolved"}
    one_sentence = probe_of(SHARES, seed=1, documents=1).with_columns(sentence=pl.lit(0))
    found = class_means(one_sentence, resamples=300)
    assert {each.verdict for each in against_published(found)} == {"not resolved"}


def test_only_deep_shares_by_class_have_a_published_direction() -> None:
    assert against_published(class_means(probe_of(SHARES, seed=1), by="tag", resamples=50)) == ()
    assert set(PUBLISHED) < set(CLASSES)
