"""Do scores, errors and comparisons say what they should, where that is known?"""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from scipy import stats

from analysis.evaluation.scores import better_forms, compare, headline_of, p_at_chance, scores_of
from search.record.evaluations import Score
from spaces.errors import RequestError


def questions(
    log_likelihoods: list[list[float]],
    labels: list[int],
    *,
    answers: list[list[str]] | None = None,
    unconditional: list[list[float]] | None = None,
) -> pl.DataFrame:
    count = len(labels)
    return pl.DataFrame(
        {
            "item": [str(n) for n in range(count)],
            "group": [""] * count,
            "label": labels,
            "is_cut": [False] * count,
            "answer": answers or [[" a", " b"] for _ in labels],
            "log_likelihood": log_likelihoods,
            "unconditional": unconditional or [None] * count,
            "is_greedy": [[False] * len(row) for row in log_likelihoods],
        },
        schema_overrides={"unconditional": pl.List(pl.Float64)},
    )


def by_rule(items: pl.DataFrame) -> dict[str, Score]:
    return {score.rule: score for score in scores_of(items)}


def test_each_rule_is_its_own_column() -> None:
    """Four characters of eight bytes, and their delimiter; sums, quotients and differences."""
    items = questions(
        [[-4.0, -6.0]],
        [1],
        answers=[[" ab", " éééé"]],
        unconditional=[[-1.0, -5.0]],
    )
    found = {rule: score.value for rule, score in by_rule(items).items()}
    assert found.pop("answer_bits_per_byte") == pytest.approx(6 / math.log(2) / 9)
    # -4 > -6; -4/2 < -6/4; -4/2 < -6/8; -3 < -1
    assert found == {"acc": 0.0, "acc_norm": 1.0, "acc_bytes": 1.0, "acc_pmi": 1.0}
    long = questions([[-4.0, -8.1]], [1], answers=[[" ab", " éééé"]])
    assert by_rule(long)["acc_norm"].value == 0.0
    assert by_rule(long)["acc_bytes"].value == 1.0
    assert "acc_pmi" not in by_rule(long)


def test_ties_count_their_share() -> None:
    items = questions([[0.0] * 4, [0.0, 0.0, -1.0]], [3, 1], answers=[list("abcd"), list("abc")])
    assert by_rule(items)["acc"].value == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_errors_and_chance_are_those_of_the_books() -> None:
    generator = np.random.default_rng(0)
    right = generator.random(400) < 0.6
    labels = generator.integers(0, 2, 400).tolist()
    answers = [[f" a{n}", f" b{n}"] for n in range(400)]
    chosen = [label if hit else 1 - label for label, hit in zip(labels, right, strict=True)]
    values = [[float(each == 0), float(each == 1)] for each in chosen]
    score = by_rule(questions(values, labels, answers=answers))["acc"]
    share = right.mean()
    assert score.value == share
    assert score.standard_error == pytest.approx(math.sqrt(share * (1 - share) / 399))
    assert score.chance == 0.5
    assert score.p_chance == pytest.approx(
        stats.binomtest(int(right.sum()), 400, 0.5, alternative="greater").pvalue
    )


def test_a_fixed_answer_is_no_knowledge() -> None:
    """Always yes is right as often as yes is, and that is chance."""
    labels = [1] * 62 + [0] * 38
    items = questions([[0.0, 1.0]] * 100, labels, answers=[[" no", " yes"]] * 100)
    score = by_rule(items)["acc"]
    assert (score.value, score.chance) == pytest.approx((0.62, 0.62))
    assert score.p_chance is not None
    assert score.p_chance > 0.5


def test_chance_of_unequal_questions_is_near_what_guessing_gives() -> None:
    generator = np.random.default_rng(1)
    chances = np.array([1 / 3, 1 / 4, 1 / 5] * 100)
    sums = (generator.random((20_000, 300)) < chances).sum(axis=1)
    for total in (85, 95, 100):
        values = np.zeros(300)
        values[:total] = 1
        simulated = (sums >= total).mean()
        assert p_at_chance(values, chances) == pytest.approx(simulated, abs=0.015)


def test_a_pair_is_compared_item_by_item() -> None:
    labels = [0] * 50
    answers = [[f" a{n}", f" b{n}"] for n in range(50)]
    one = questions([[1.0, 0.0]] * 40 + [[0.0, 1.0]] * 10, labels, answers=answers)
    other = questions([[1.0, 0.0]] * 35 + [[0.0, 1.0]] * 15, labels, answers=answers)
    found = {each.rule: each for each in compare(one, other)}
    gaps = np.array([0.0] * 35 + [1.0] * 5 + [0.0] * 10)
    assert found["acc"].difference == pytest.approx(0.1)
    assert found["acc"].standard_error == pytest.approx(gaps.std(ddof=1) / math.sqrt(50))
    assert found["acc"].p_value == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    (unpaired,) = {score.standard_error for score in scores_of(one) if score.rule == "acc"}
    assert unpaired is not None
    assert found["acc"].standard_error < unpaired
    assert all((e.difference, e.p_value) == (0.0, 1.0) for e in compare(one, one))
    with pytest.raises(RequestError, match="same items"):
        compare(one, other.head(49))


def test_bits_per_byte_are_a_ratio_of_sums() -> None:
    nats, sizes = [100.0, 30.0, 250.0], [100, 50, 200]
    items = pl.DataFrame(
        {"item": list("abc"), "is_cut": [False] * 3, "nats": nats, "num_bytes": sizes}
    )
    (score,) = scores_of(items)
    assert score.value == pytest.approx(380 / 350 / math.log(2))
    assert score.chance is None
    better = items.with_columns(pl.col("nats") * 0.9)
    (paired,) = compare(better, items)
    assert paired.difference == pytest.approx(-0.1 * score.value)
    assert paired.standard_error is not None
    assert score.standard_error is not None
    assert paired.standard_error == pytest.approx(0.1 * score.standard_error)
    assert headline_of("wiki", items) == "bits_per_byte"


def test_the_error_of_bits_per_byte_covers_the_truth() -> None:
    """Documents of unequal length: 95 % intervals hold the ratio nearly as often as they say."""
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(400):
        sizes = generator.integers(20, 2_000, 80)
        nats = sizes * (1.5 + 0.3 * generator.standard_normal(80))
        items = pl.DataFrame({"item": range(80), "nats": nats, "num_bytes": sizes})
        (score,) = scores_of(items)
        assert score.standard_error is not None
        held += abs(score.value - 1.5 / math.log(2)) < 1.96 * score.standard_error
    assert 0.90 < held / 400 < 0.98


def test_the_headline_is_what_olmes_says() -> None:
    with_pmi = questions([[1.0, 0.0]], [0], unconditional=[[0.0, 0.0]])
    assert headline_of("arc_challenge", with_pmi) == "acc_pmi"
    assert headline_of("hellaswag", with_pmi) == "acc_norm"
    assert headline_of("my_own", with_pmi) == "acc"


def test_olmes_takes_the_better_form_by_the_mean_of_subjects() -> None:
    """Letters: 1 of 3 and 1 of 1. Words, over characters: all of 3 and 0 of 1."""
    groups = pl.Series("group", ["a", "a", "a", "b"])
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    letters = questions([right, wrong, wrong, right], [0] * 4).with_columns(groups)
    long = [[" ab", " abcdefgh"]] * 4
    words = questions(
        [[-2.0, -7.0], [-1.0, -8.0], [-2.0, -8.5], [-3.0, -4.0]], [1, 0, 0, 0], answers=long
    ).with_columns(groups)
    (found,) = better_forms({"mmlu_cloze": words, "mmlu": letters, "blimp": letters})
    assert (found.task, found.form, found.rule) == ("mmlu", "mmlu", "acc")
    assert found.value == pytest.approx((1 / 3 + 1) / 2)
    assert found.num_groups == 2
    assert found.others == {"mmlu_cloze": 0.5}
