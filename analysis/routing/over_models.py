"""How does each class of tokens route over several models? Models are what is drawn, not documents.

Of each model the difference of a class to all others is one number; its mean over models has
Student's interval, and whether it is told apart from 0 is corrected over all classes (Holm 1979).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from analysis.routing.class_means import ClassMeans
from analysis.routing.published import PUBLISHED, Direction, Verdict, against_published, verdict_of
from analysis.solve.told_apart import Mean, mean_of, told_apart


@dataclass(frozen=True, kw_only=True)
class ClassOverModels:
    """One class over models."""

    name: str
    num_models: int
    """That hold it."""
    mean: float
    """Mean of the models' means."""
    difference: float
    """Mean of the models' differences to all other words."""
    interval: tuple[float, float] | None
    """95 %, over models; None with fewer than two."""
    differs: bool | None
    """Whether it is told apart from 0, corrected over all classes."""
    published: Direction | None
    """Where it goes in the paper."""
    verdict: Verdict | None
    """Over models; None of what the paper claims nothing about."""
    of_models: Mapping[str, int]
    """How many models say same, opposite or not resolved by themselves."""


def over_models(found: Sequence[ClassMeans]) -> tuple[ClassOverModels, ...]:
    """Every class that a model holds, the deepest first."""
    means: dict[str, list[float]] = {}
    differences: dict[str, list[float]] = {}
    for each in found:
        for one in each.classes:
            if one.difference is not None:
                means.setdefault(one.name, []).append(one.mean)
                differences.setdefault(one.name, []).append(one.difference)
    alone: dict[str, Counter[str]] = {}
    for each in found:
        for claim in against_published(each):
            alone.setdefault(claim.name, Counter())[claim.verdict] += 1
    sure = {name: mean_of(values) for name, values in differences.items()}
    told = told_apart(list(sure.values()))
    rows = [
        _row(name, means[name], sure[name], differs, alone.get(name, Counter()))
        for name, differs in zip(sure, told, strict=True)
    ]
    return tuple(sorted(rows, key=lambda each: -each.mean))


def _row(
    name: str,
    means: Sequence[float],
    difference: Mean,
    differs: bool | None,
    of_models: Mapping[str, int],
) -> ClassOverModels:
    published = PUBLISHED.get(name) if of_models else None
    return ClassOverModels(
        name=name,
        num_models=len(means),
        mean=fmean(means),
        difference=difference.value,
        interval=difference.interval,
        differs=differs,
        published=published,
        verdict=published and verdict_of(published, difference.value if differs else None),
        of_models=dict(of_models),
    )
