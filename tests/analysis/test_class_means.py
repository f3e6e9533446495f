"""Do class means find planted differences, and none where there are none?"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.routing.class_means import ClassMeans, class_means
from spaces.errors import RequestError

SHARES = {"NOUN": 0.40, "VERB": 0.42, "DET": 0.55, "PUNCT": 0.70}


def probe_of(
    shares: dict[str, float], *, seed: int, noise: float = 0.05, documents: int = 30
) -> pl.DataFrame:
    """A probe of two layers: documents of 40 words with shares by tag, and noise of documents,
    words and layers."""
    rng = np.random.default_rng(seed)
    words = 40 * documents
    document, word = np.divmod(np.arange(words), 40)
    tags = rng.choice(list(shares), size=words)
    share = np.array([shares[tag] for tag in tags])
    share += noise * (rng.normal(size=documents)[document] + rng.normal(size=words))
    layers = [
        pl.DataFrame(
            {
                "document": [f"d{each}" for each in document],
                "sentence": word // 10,
                "word": word,
                "form": ["x"] * words,
                "tag": tags,
                "is_last_piece": [True] * words,
                "position": word + 1,
                "token": np.where(word < 20, 7, 100 + word),  # half of all are one token
                "layer": [layer] * words,
                "deep_share": share + noise * rng.normal(size=words),
                "expected_loops": pl.Series([None] * words, dtype=pl.Float32),
            }
        )
        for layer in range(2)
    ]
    return pl.concat(layers)


def means_by_tag(probe: pl.DataFrame) -> ClassMeans:
    return class_means(probe, by="tag", resamples=300)


def test_planted_shares_come_back_within_their_intervals() -> None:
    covered = told = 0
    for seed in range(20):
        found = means_by_tag(probe_of(SHARES, seed=seed))
        assert found.classes[0].name == "PUNCT"
        for each in found.classes:
            assert each.interval is not None
            covered += each.interval[0] < SHARES[each.name] < each.interval[1]
            told += 1
        assert all(each.differs for each in found.classes if each.name in ("PUNCT", "NOUN"))
    assert covered / told > 0.85


def test_equal_gates_show_a_class_in_about_5_percent_of_200_probes() -> None:
    """Of 2,000, 5.1 % do; 200 of a true 5 % have at most 16 in 98 of 100 cases."""
    equal = dict.fromkeys(SHARES, 0.5)
    found = [means_by_tag(probe_of(equal, seed=1000 + seed)) for seed in range(200)]
    assert sum(any(each.differs for each in one.classes) for one in found) <= 16


def test_constant_gates_differ_nowhere() -> None:
    found = means_by_tag(probe_of(dict.fromkeys(SHARES, 0.5), seed=1, noise=0))
    assert all(each.differs is False for each in found.classes)
    assert all(each.p_adjusted == 1 for each in found.classes)


def test_a_word_counts_once_and_so_does_a_space() -> None:
    probe = probe_of(SHARES, seed=2)
    spaces = probe.with_columns(word=pl.lit(None, dtype=pl.Int64), form=None, tag=None)
    found = class_means(pl.concat([probe, spaces]), resamples=50)
    words = {each.name: each.words for each in found.classes}
    assert sum(words.values()) == 2 * 1200
    assert words["whitespace"] == 1200


def test_a_class_of_few_documents_is_not_judged() -> None:
    probe = probe_of(SHARES, seed=3)
    few = pl.col("document").is_in(["d0", "d1"]) & (pl.col("tag") == "DET")
    found = means_by_tag(probe.with_columns(tag=pl.when(few).then(pl.lit("SYM")).otherwise("tag")))
    symbol = next(each for each in found.classes if each.name == "SYM")
    assert (symbol.units, symbol.interval, symbol.differs) == (2, None, None)


def test_sentences_are_drawn_where_documents_are_few() -> None:
    found = means_by_tag(probe_of(SHARES, seed=4, documents=5))
    assert (found.unit, found.num_units) == ("sentence", 20)


def test_layers_and_positions_come_in_order() -> None:
    probe = probe_of(SHARES, seed=5)
    layers = class_means(probe, by="layer", resamples=50)
    assert [each.name for each in layers.classes] == ["0", "1"]
    places = class_means(probe, by="position", resamples=50)
    assert [each.name for each in places.classes] == ["2^0", "2^1", "2^2", "2^3", "2^4", "2^5"]
    counts = class_means(probe, by="frequency", resamples=50)
    assert [(each.name, each.words) for each in counts.classes] == [("2^4", 600), ("2^9", 600)]
    many = class_means(probe_of(SHARES, seed=5, documents=120), by="frequency", resamples=50)
    assert [each.name for each in many.classes] == ["2^6", "2^11"]


def test_a_measure_that_a_model_lacks_is_refused() -> None:
    with pytest.raises(RequestError, match="no expected_loops"):
        class_means(probe_of(SHARES, seed=6), measure="expected_loops")
