"""Do several models tell a class apart where they agree, and only there?"""

from __future__ import annotations

import numpy as np
import pytest

from analysis.routing.class_means import ClassMean, ClassMeans
from analysis.routing.over_models import over_models

NAMES = ("function words", "lexical words", "punctuation", "digits")


def model(differences: dict[str, float]) -> ClassMeans:
    classes = tuple(
        ClassMean(
            name=name,
            words=100,
            units=20,
            mean=0.5 + difference,
            interval=(0.4, 0.6),
            difference=difference,
            difference_interval=(difference - 0.001, difference + 0.001),
            p_adjusted=1e-6,
        )
        for name, difference in differences.items()
    )
    return ClassMeans(
        measure="deep_share", by="class", unit="document", num_units=20, classes=classes
    )


def test_what_models_agree_on_is_told() -> None:
    chance = np.random.default_rng(0)
    found = over_models(
        [
            model(
                {
                    "function words": -0.02 + 0.001 * chance.normal(),
                    "lexical words": 0.01 * (-1) ** seed,
                    "punctuation": -0.03 + 0.001 * chance.normal(),
                    "digits": 0.02 + 0.001 * chance.normal(),
                }
            )
            for seed in range(6)
        ]
    )
    rows = {row.name: row for row in found}
    assert rows["function words"].verdict == "same"
    assert rows["punctuation"].verdict == "opposite"
    assert rows["lexical words"].verdict == "not resolved"
    assert rows["lexical words"].of_models == {"same": 3, "opposite": 3}
    assert rows["digits"].published is None
    assert rows["digits"].differs
    assert found[0].name == "digits"
    low, high = rows["digits"].interval
    assert low < 0.02 < high


def test_models_without_a_difference_are_told_apart_as_often_as_chance_has_it() -> None:
    chance = np.random.default_rng(1)
    told = 0
    for _ in range(200):
        models = [model({n: 0.01 * chance.normal() for n in NAMES}) for _ in range(5)]
        told += any(row.differs for row in over_models(models))
    assert told / 200 < 0.09


def test_one_model_tells_nothing_of_models() -> None:
    (row,) = over_models([model({"digits": 0.1})])
    assert (row.interval, row.differs) == (None, None)
    assert row.difference == pytest.approx(0.1)
