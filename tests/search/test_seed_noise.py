"""Seed noise, ties paired by data order, and where FLOPs went."""

from __future__ import annotations

import math
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from search.asked.settings import LimitSettings
from search.belief.seed_noise import _paired, budget_noise, is_better
from search.limits.caps import hours_cap_reached, spent_hours, why_not_start
from search.record.ledger import TrialRecord
from search.record.spending import spending
from tests.search.records import attempt_of, bowl, play, queued, record_of
from tests.sweeps import toy_experiment


def configurations(count: int) -> list[TrialRecord]:
    budget = {"train_flops": [2e9]}
    axes = {"num_layers": [1, 2, 3, 4], "d_model": [16, 32, 48], "wide_multiplier": [2, 4]}
    return play(toy_experiment(trials=count, budget=budget, arms=["wide"], axes=axes), bowl)


def seeded(record: TrialRecord, seed: int, loss: float) -> TrialRecord:
    config = replace(record.proposal.config, init_seed=seed, data_seed=seed)
    proposal = replace(record.proposal, config=config, purpose="replicate" if seed else "search")
    return record_of(proposal, loss, number=seed)


def table(losses: list[list[float]]) -> list[TrialRecord]:
    """One configuration per row, one data order per column."""
    records = configurations(len(losses))
    assert len(records) == len(losses)
    return [
        seeded(record, seed, loss)
        for record, row in zip(records, losses, strict=True)
        for seed, loss in enumerate(row)
    ]


def test_seed_noise_is_pooled_within_configurations():
    noise = budget_noise(table([[3.0, 3.2], [4.0, 4.1, 4.2], [5.0]]))
    assert noise.degrees_of_freedom == 3
    assert noise.seed_noise_nats == pytest.approx(math.sqrt((0.02 + 0.02) / 3))


def test_without_replicates_nothing_is_known():
    noise = budget_noise(table([[3.0], [3.1]]))
    assert noise.seed_noise_nats is None
    assert len(noise.tied) == 1
    assert budget_noise([]).tied == frozenset()


def test_pairing_by_data_order_tells_apart_what_seeds_alone_would_tie():
    orders = [0.0, 0.3, -0.3, 0.2]
    better = [3.00 + order + e for order, e in zip(orders, [0.001, -0.001, 0, 0.001], strict=True)]
    worse = [3.05 + order + e for order, e in zip(orders, [-0.001, 0.001, 0.001, 0], strict=True)]
    records = table([better, worse])
    noise = budget_noise(records)
    assert noise.seed_noise_nats is not None
    assert noise.seed_noise_nats > 0.2
    assert noise.tied == {record.config_hash for record in records[:4]}


def test_a_tie_is_reported_as_a_tie():
    records = table([[3.00, 3.03, 2.98], [3.01, 3.01, 3.00], [3.5, 3.52, 3.49], [3.02], [3.9]])
    tied = budget_noise(records).tied
    assert tied == {r.config_hash for r in [*records[:6], records[9]]}


def test_better_means_lower_by_more_than_a_tie():
    records = table([[3.00, 3.03, 2.98], [3.01, 3.01, 3.00], [3.5, 3.52, 3.49]])
    first, second, third = (records[start].proposal for start in (0, 3, 6))
    assert is_better(first, third, records)
    assert not is_better(third, first, records)
    assert not is_better(first, second, records)
    single = table([[3.00], [3.01]])  # nothing tells the noise
    assert is_better(single[0].proposal, single[1].proposal, single)


def test_the_test_rarely_rejects_what_is_as_good():
    chance = random.Random(1)
    rejected = 0
    records = configurations(2)
    for _ in range(300):
        losses = [[3 + chance.gauss(0, 0.1) for _ in range(3)] for _ in range(2)]
        seeds = [
            seeded(record, seed, loss)
            for record, row in zip(records, losses, strict=True)
            for seed, loss in enumerate(row)
        ]
        rejected += len(budget_noise(seeds).tied) < 6
    assert rejected / 300 < 0.16  # one-sided 5 % either way, as the first is the better of two


def test_flops_by_purpose_sum_to_what_was_spent():
    records = play(toy_experiment(trials=10, arms=["dual"]), bowl)
    one, two, three, four, five, six = (record.proposal for record in records[:6])
    lost = replace(record_of(one, 3.0), attempts=(attempt_of("lost", spent=5),))
    cases = [
        replace(lost, attempts=(*lost.attempts, attempt_of("complete", spent=20, number=2))),
        record_of(two, "diverged", spent=100),
        record_of(three, "pruned", spent=200),
        record_of(replace(four, purpose="tuning"), 3.0, spent=400),
        record_of(replace(five, purpose="replicate"), 3.0, spent=800),
        replace(record_of(six, 3.0, spent=10_000), state="reused", sweep="not the one that ran it"),
    ]
    parts = spending(cases)
    assert parts == {
        "search": 20,
        "tuning": 400,
        "replicates": 800,
        "pruned": 200,
        "failed": 100,
        "lost": 5,
    }


def test_caps_count_lost_attempts_and_running_time():
    record = play(toy_experiment(trials=1), bowl)[0]
    flops = float(record.proposal.train_flops)
    waiting = replace(queued(record.proposal), attempts=(attempt_of("lost", spent=flops / 2),))
    limits = LimitSettings(max_flops=1.4 * flops, max_hours=0.02)
    assert "max_flops" in str(why_not_start(limits, [waiting], record.proposal))
    enough = LimitSettings(max_flops=1.6 * flops)
    assert why_not_start(enough, [waiting], record.proposal) is None
    running = replace(waiting, attempts=(attempt_of("running", spent=0),))
    assert spent_hours([waiting, running], now=1060.0) == pytest.approx(1 / 60), "side by side"
    elsewhere = replace(running, attempts=(replace(running.attempts[0], pid=77, node="b"),))
    assert spent_hours([waiting, elsewhere], now=1060.0) == pytest.approx(2 / 60)
    assert "max_hours" in str(hours_cap_reached(limits, 2 / 60))
    assert hours_cap_reached(limits, 0.01) is None


def dense_noise(table: dict[int, dict[int, float]]) -> tuple[float | None, int]:
    """Residuals of loss = configuration + data order by one matrix of all effects."""
    replicated = [row for row in table.values() if len(row) > 1]
    orders = sorted({order for row in replicated for order in row})
    cells = [
        (number, len(replicated) + orders.index(order), loss)
        for number, row in enumerate(replicated)
        for order, loss in row.items()
    ]
    design = np.zeros((len(cells), len(replicated) + len(orders)))
    for line, (row, column, _) in enumerate(cells):
        design[line, row] = design[line, column] = 1.0
    losses = np.array([loss for _, _, loss in cells])
    degrees = len(cells) - int(np.linalg.matrix_rank(design)) if cells else 0
    if degrees < 1:
        return None, 0
    residual = losses - design @ np.linalg.lstsq(design, losses, rcond=None)[0]
    return math.sqrt(float(residual @ residual) / degrees), degrees


@pytest.mark.parametrize("seed", range(40))
def test_the_noise_of_pairs_is_that_of_the_whole_two_way_layout(seed: int) -> None:
    chance = random.Random(seed)
    num_orders = chance.randint(1, 9)
    table = {
        row: {
            order: chance.gauss(3, 0.1)
            for order in range(num_orders)
            if chance.random() < chance.choice((0.2, 0.5, 0.9))
        }
        for row in range(chance.randint(1, 12))
    }
    losses = {("wide", 1.0, str(row)): cells for row, cells in table.items() if cells}
    found, degrees = _paired(losses)
    wanted, wanted_degrees = dense_noise(table)
    assert degrees == wanted_degrees
    assert (found is None) == (wanted is None)
    assert found is None or found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("seeds_of", [lambda row: (0, 1), lambda row: (row, row + 100_000)])
def test_ten_thousand_replicates_are_compared_at_once(seeds_of) -> None:
    chance = random.Random(0)
    losses = {
        ("wide", 1.0, str(row)): {seed: chance.gauss(3, 0.1) for seed in seeds_of(row)}
        for row in range(10_000)
    }
    before = time.process_time()
    noise, degrees = _paired(losses)
    assert time.process_time() - before < 8.0
    if degrees:
        assert degrees == 9_999
        assert noise == pytest.approx(0.1, rel=0.05)
