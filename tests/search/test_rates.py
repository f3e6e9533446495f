"""A planted rate surface is found, its interval holds it, and little else moves the rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import numpy as np
import pytest

from search.belief.rate_standing import rate_standings
from search.belief.rates import RateModel, log_multiplier, multiplier_of, rate_model
from search.propose.cells import at_rate
from search.propose.rate_trials import next_rate_trial
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord
from tests.search.records import play, record_of
from tests.sweeps import toy_experiment

EXPERIMENT = toy_experiment(trials=24, arms=["dual"], search={"replicates_per_budget": 0})
SHAPES = [record.proposal for record in play(EXPERIMENT, lambda proposal: 3.0)]
OCTAVE = math.log(2)
NOISE = 0.005

Optimum = Callable[[Proposal], float]


def tried(
    shape: Proposal, optimum: float, *, us: tuple[float, ...], luck: Random
) -> list[tuple[Proposal, float]]:
    """A shape at several rates, on a parabola with noise."""
    proposals = [at_rate(EXPERIMENT, shape, multiplier_of(u)) for u in us]
    base = luck.uniform(2, 4)
    return [
        (each, base + 0.05 * (log_multiplier(each) - optimum) ** 2 + luck.gauss(0, NOISE))
        for each in proposals
    ]


def model_of(trials: list[tuple[Proposal, float]]) -> RateModel:
    return rate_model("dual", [record_of(p, loss, number=i) for i, (p, loss) in enumerate(trials)])


def test_without_results_the_rule_is_kept_and_nothing_is_claimed() -> None:
    best = model_of([]).at(SHAPES[0])
    assert best.multiplier == 1.0
    low, high = best.interval()
    assert low < 0.3
    assert high > 3
    (standing, *_) = rate_standings([record_of(SHAPES[0], 3.0)])
    assert (standing.examined, standing.may_cost_nats) == ("nowhere", None)


def test_a_win_below_the_noise_moves_nothing() -> None:
    us = (-OCTAVE, 0.0, OCTAVE)
    losses = (3.03, 3.0, 3.026)
    shape = SHAPES[0]
    trials = [
        (at_rate(EXPERIMENT, shape, multiplier_of(u)), x) for u, x in zip(us, losses, strict=True)
    ]
    assert model_of(trials).at(shape).multiplier == 1.0


def test_a_rate_that_wins_by_far_is_taken_and_one_that_diverged_is_not() -> None:
    shape, luck = SHAPES[0], Random(0)
    trials = tried(shape, OCTAVE, us=(-OCTAVE, 0.0, OCTAVE, 2 * OCTAVE), luck=luck)
    best = model_of(trials).at(shape)
    assert best.multiplier == pytest.approx(2, rel=0.3)
    assert best.interval()[0] < 2 < best.interval()[1]
    records = [record_of(p, loss, number=i) for i, (p, loss) in enumerate(trials[:3])]
    high = at_rate(EXPERIMENT, shape, 4.0)
    diverged = rate_model("dual", [*records, record_of(high, "diverged", number=9)])
    assert diverged.at(shape).multiplier < 3


def test_a_trend_over_shapes_is_found_and_the_interval_holds_the_optimum() -> None:
    held, costs = [], []
    for seed in range(60):
        luck = Random(seed)
        slope, at_mean = luck.gauss(0, 0.5), luck.gauss(0, 0.8)

        def optimum(proposal: Proposal, slope: float = slope, at_mean: float = at_mean) -> float:
            return at_mean + slope * math.log(proposal.config.architecture.d_model / 32)

        shapes = luck.sample(SHAPES, 5)
        trials = [
            pair
            for shape in shapes[:4]
            for pair in tried(
                shape, optimum(shape), us=(-OCTAVE, 0.0, OCTAVE, 2 * OCTAVE), luck=luck
            )
        ]
        best = model_of(trials).at(shapes[4])
        low, high = best.interval()
        held.append(low <= math.exp(optimum(shapes[4])) <= high)
        costs.append(0.05 * (best.chosen - optimum(shapes[4])) ** 2)
    assert sum(held) >= 54
    assert float(np.median(costs)) < NOISE


def test_rates_are_asked_for_until_they_no_longer_matter() -> None:
    luck, shape = Random(1), SHAPES[0]
    optimum = -OCTAVE
    known = tried(shape, optimum, us=(0.0,), luck=luck)
    base = known[0][1] - 0.05 * optimum**2

    def at(proposal: Proposal, multiplier: float) -> Proposal | None:
        found = at_rate(EXPERIMENT, proposal, multiplier)
        return None if any(found.config_hash == p.config_hash for p, _ in known) else found

    def mine() -> list[TrialRecord]:
        return [record_of(p, loss, number=i) for i, (p, loss) in enumerate(known)]

    while (asked := next_rate_trial(rate_model("dual", mine()), mine(), at)) is not None:
        loss = base + 0.05 * (log_multiplier(asked) - optimum) ** 2 + luck.gauss(0, NOISE)
        known.append((asked, loss))
        assert len(known) < 8
    best = rate_model("dual", mine()).at(shape)
    assert len(known) >= 3
    assert best.multiplier == pytest.approx(0.5, rel=0.35)
    assert best.expected_cost(best.chosen) <= NOISE
