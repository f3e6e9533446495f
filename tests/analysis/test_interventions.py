"""Are controls like the class, and are effects covered by their intervals?"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analysis.routing.controls import choose_tokens
from analysis.routing.effects import Effect, intervention_effects
from spaces.errors import RequestError


def tokens_of(seed: int = 0, count: int = 4000) -> pl.DataFrame:
    """Tokens of kinds as frequent as 1 / rank; every sixth kind is punctuation."""
    rng = np.random.default_rng(seed)
    kind = (np.exp(rng.uniform(0, np.log(200), size=count))).astype(np.int64)
    return pl.DataFrame(
        {
            "word": np.arange(count),
            "form": ["x"] * count,
            "tag": np.where(kind % 6 == 2, "PUNCT", np.where(kind % 6 == 3, "DET", "NOUN")),
            "token": kind,
            "position": np.arange(count) % 31 + 1,
        }
    )


def profile(tokens: pl.DataFrame, mask: np.ndarray) -> dict[int, int]:
    places = tokens.filter(mask)["position"].log(2).floor().cast(pl.Int64)
    return dict(places.value_counts().sort("position").iter_rows())


def test_a_control_is_as_large_placed_alike_and_holds_none_of_the_class() -> None:
    tokens = tokens_of()
    chosen = choose_tokens(tokens, "punctuation", draws=4)
    assert chosen.class_tokens == int(chosen.is_forced.sum())
    assert len(chosen.controls) == 4
    frequency = tokens.select(pl.len().over("token").log())["len"].to_numpy()
    for control in chosen.controls:
        assert not (control & chosen.is_forced).any()
        assert profile(tokens, control) == profile(tokens, chosen.is_forced)
        apart = frequency[control].mean() - frequency[chosen.is_forced].mean()
        assert abs(apart) < 0.2 * frequency.std()
    assert not np.array_equal(chosen.controls[0], chosen.controls[1])
    assert 0.4 < chosen.matched_share < 1
    again = choose_tokens(tokens, "PUNCT", draws=4, seed=0)
    assert np.array_equal(again.is_forced, chosen.is_forced)


def test_of_a_class_that_is_most_of_the_text_a_part_is_forced() -> None:
    tokens = tokens_of()
    chosen = choose_tokens(tokens, "NOUN", draws=2)
    others = int((tokens["tag"] != "NOUN").sum())
    assert chosen.class_tokens > others
    assert int(chosen.is_forced.sum()) == others == int(chosen.controls[0].sum())


def test_all_tokens_have_no_control_and_an_empty_class_is_refused() -> None:
    tokens = tokens_of()
    assert choose_tokens(tokens, "all", draws=3).controls == ()
    for name in ("digits", "SYM", "no such class"):
        with pytest.raises(RequestError, match="has the classes punctuation, function words"):
            choose_tokens(tokens, name, draws=3)


def rows_of(
    effect: float, control: float, *, seed: int, noise: float = 0.5, documents: int = 40
) -> pl.DataFrame:
    """A class and four controls, with noise of documents and tokens."""
    rng = np.random.default_rng(seed)
    frames = []
    for draw in (None, 0, 1, 2, 3):
        document = np.repeat(np.arange(documents), 30)
        is_forced = rng.random(len(document)) < 0.3
        change = np.where(is_forced, effect if draw is None else control, 0.0)
        change += noise * (rng.normal(size=documents)[document] + rng.normal(size=len(document)))
        frames.append(
            pl.DataFrame(
                {
                    "force": "deep",
                    "on": "punctuation",
                    "draw": pl.Series([draw] * len(document), dtype=pl.Int32),
                    "document": [f"d{each}" for each in document],
                    "sentence": np.arange(len(document)) // 10,
                    "is_forced": is_forced,
                    "follows_forced": np.ones(len(document), dtype=bool),
                    "change_nats": change,
                }
            )
        )
    return pl.concat(frames)


def at_forced(rows: pl.DataFrame) -> Effect:
    found = intervention_effects(rows, resamples=400)
    assert [each.where for each in found.effects] == ["at", "later"]
    return found.effects[0]


def test_a_planted_difference_lies_in_its_interval() -> None:
    covered = []
    for seed in range(30):
        each = at_forced(rows_of(0.6, 0.2, seed=seed))
        assert each.difference_interval is not None
        covered.append(each.difference_interval[0] < 0.4 < each.difference_interval[1])
    assert sum(covered) >= 25
    assert at_forced(rows_of(1.2, 0.2, seed=1)).differs


def test_an_effect_that_the_control_has_too_is_not_the_class_s_own() -> None:
    """Both forces harm by 2.1 nats: 5 % of such differences would be told, 40 have at most 5."""
    told = sum(bool(at_forced(rows_of(2.1, 2.1, seed=100 + s)).differs) for s in range(40))
    assert told <= 5


def test_a_force_that_changes_nothing_is_exactly_nothing() -> None:
    each = at_forced(rows_of(0, 0, seed=1, noise=0))
    assert (each.effect, each.difference, each.difference_interval) == (0, 0, (0, 0))
    assert each.differs is False
    assert each.p_adjusted == 1


def test_without_a_control_there_is_no_difference_and_with_few_units_no_interval() -> None:
    rows = rows_of(0.6, 0.2, seed=1)
    alone = at_forced(rows.filter(pl.col("draw").is_null()))
    assert (alone.control, alone.difference, alone.differs) == (None, None, None)
    assert alone.effect_interval is not None
    few = at_forced(rows.filter(pl.col("document") == "d1", pl.col("sentence") < 5))
    assert (few.effect_interval, few.difference_interval, few.differs) == (None, None, None)
