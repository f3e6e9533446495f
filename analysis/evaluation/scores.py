"""How good are the answers, how sure is that, and which of two runs answers better?

Standard errors are over items. Two runs are compared on the same items, by the mean of their
differences: items that are hard for both add nothing to its error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from analysis.evaluation.rules import FORMS, Values, chance_of, credits_of, headline_rule
from search.record.evaluations import Score
from spaces.errors import RequestError

SIGNIFICANT = 0.05
"""A probability at chance above this is no evidence of knowledge."""
BITS = "bits_per_byte"


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two runs on the same items by one rule."""

    rule: str
    difference: float
    """The first run's score less the second's."""
    standard_error: float | None
    """Of the difference; None for a single item."""
    p_value: float | None
    """Two-sided, of no difference."""
    num_items: int


def scores_of(items: pl.DataFrame) -> tuple[Score, ...]:
    """Every score that the items of a task allow (`runners.probes.items`)."""
    if "label" not in items.columns:
        value, error = _ratio(*_bits(items))
        return (Score(rule=BITS, value=value, standard_error=error),)
    found = []
    credits = credits_of(items)
    chances = None if "greedy" in credits else chance_of(items)
    for rule, values in credits.items():
        found.append(
            Score(
                rule=rule,
                value=float(values.mean()),
                standard_error=_error(values),
                chance=None if chances is None else float(chances.mean()),
                p_chance=None if chances is None else p_at_chance(values, chances),
            )
        )
    value, error = _ratio(*_bits(items))
    return (*found, Score(rule=f"answer_{BITS}", value=value, standard_error=error))


def headline_of(task: str, items: pl.DataFrame) -> str:
    """The rule that a task is best read by."""
    return headline_rule(task, credits_of(items))


@dataclass(frozen=True, kw_only=True)
class BetterForm:
    """What OLMES takes of a task that is asked by letters and by words: the form that is better."""

    task: str
    form: str
    """The task of that form."""
    rule: str
    value: float
    """Mean over groups (subjects) of their shares of right answers."""
    num_groups: int
    others: Mapping[str, float]
    """The same of the other forms."""


def better_forms(items_by_task: Mapping[str, pl.DataFrame]) -> tuple[BetterForm, ...]:
    """Of every task that is there in two forms (`FORMS`) the better one, as OLMES (arXiv
    2406.08446) reads it. The better of two is no fair sample: no chance is tested."""
    forms: dict[str, list[str]] = {}
    for name in items_by_task:
        base = name
        for ending in FORMS:
            base = base.removesuffix(ending)
        forms.setdefault(base, []).append(name)
    return tuple(
        _better(base, {name: items_by_task[name] for name in sorted(names)})
        for base, names in sorted(forms.items())
        if len(names) > 1
    )


def _better(base: str, forms: Mapping[str, pl.DataFrame]) -> BetterForm:
    values = {name: _mean_of_groups(name, items) for name, items in forms.items()}
    form = max(values, key=lambda name: values[name])
    return BetterForm(
        task=base,
        form=form,
        rule=headline_of(form, forms[form]),
        value=values.pop(form),
        num_groups=forms[form]["group"].n_unique(),
        others=values,
    )


def _mean_of_groups(task: str, items: pl.DataFrame) -> float:
    credit = pl.Series("credit", credits_of(items)[headline_of(task, items)])
    means = items.select("group", credit).group_by("group").agg(pl.col("credit").mean())
    mean = means["credit"].mean()
    assert isinstance(mean, float)
    return mean


def p_at_chance(values: Values, chances: Values) -> float:
    """Probability of so many right answers or more where each is right with its chance: exact
    where all chances are equal, else by the normal law of the sum."""
    total = float(values.sum())
    if np.ptp(chances) == 0:
        return float(stats.binom.sf(math.ceil(total - 1e-9) - 1, len(values), chances[0]))
    spread = math.sqrt(float((chances * (1 - chances)).sum()))
    return float(stats.norm.sf((total - 0.5 - float(chances.sum())) / spread))


def compare(one: pl.DataFrame, other: pl.DataFrame) -> tuple[Paired, ...]:
    """Two runs' items of one task, paired. Raises `RequestError` where they are not the same."""
    if not one["item"].equals(other["item"]):
        raise RequestError(
            "two runs are compared on the same items, but these differ; evaluate both again with "
            "the same tasks"
        )
    found = []
    if "label" in one.columns:
        ours, theirs = credits_of(one), credits_of(other)
        for rule in ours.keys() & theirs.keys():
            gaps = ours[rule] - theirs[rule]
            found.append(_paired(rule, float(gaps.mean()), _error(gaps), len(gaps)))
    (bits, sizes), (their_bits, _) = _bits(one), _bits(other)
    name = f"answer_{BITS}" if "label" in one.columns else BITS
    difference, error = _ratio(bits - their_bits, sizes)
    found.append(_paired(name, difference, error, len(bits)))
    return tuple(sorted(found, key=lambda each: each.rule))


def _paired(rule: str, difference: float, error: float | None, count: int) -> Paired:
    if error is None:
        p_value = None
    elif error == 0:
        p_value = 1.0 if difference == 0 else 0.0
    else:
        p_value = float(2 * stats.t.sf(abs(difference) / error, count - 1))
    return Paired(
        rule=rule, difference=difference, standard_error=error, p_value=p_value, num_items=count
    )


def _bits(items: pl.DataFrame) -> tuple[Values, Values]:
    """Bits of each document, or right answer with its delimiter, and its bytes."""
    if "label" not in items.columns:
        nats, sizes = items["nats"].to_numpy(), items["num_bytes"].to_numpy()
        return np.asarray(nats / math.log(2)), sizes.astype(np.float64)
    rows = items.select("label", "answer", "log_likelihood").to_dicts()
    bits = [-row["log_likelihood"][row["label"]] / math.log(2) for row in rows]
    return np.array(bits), np.array([float(len(r["answer"][r["label"]].encode())) for r in rows])


def _ratio(totals: Values, sizes: Values) -> tuple[float, float | None]:
    """Sum over sum, and its standard error over items (the delta method)."""
    ratio = float(totals.sum() / sizes.sum())
    residuals = totals - ratio * sizes
    error = _error(residuals)
    return ratio, None if error is None else error / float(sizes.mean())


def _error(values: Values) -> float | None:
    """Standard error of a mean; None of a single value."""
    if len(values) < 2:
        return None
    return float(values.std(ddof=1) / math.sqrt(len(values)))
