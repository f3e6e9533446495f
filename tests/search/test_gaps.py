"""Arms that cannot be told apart are a tie; without replicates nothing is said."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from experiments.benchmarks.search.planted_ties import simulate_gap
from experiments.benchmarks.search.rate_choice import RATE_TRUTH, simulate_rates, summarise
from experiments.benchmarks.search.truth import load_truth
from search.belief.gaps import arm_gaps
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord
from tests.search.records import play, record_of
from tests.sweeps import toy_experiment

NOISE = 0.004


def leaders() -> dict[str, Proposal]:
    experiment = toy_experiment(trials=4, arms=["loop", "wide"], budget={"train_flops": [2e9]})
    found: dict[str, Proposal] = {}
    for record in play(experiment, lambda proposal: 3.0):
        found.setdefault(record.proposal.arm, record.proposal)
    return found


def runs(gap: float, *, seeds: int) -> list[TrialRecord]:
    """Both arms on the same data orders, which move both alike by far more than luck does."""
    luck = Random(0)
    orders = [luck.gauss(0, 10 * NOISE) for _ in range(seeds)]
    records = []
    for arm, proposal in leaders().items():
        for seed in range(seeds):
            config = replace(proposal.config, init_seed=seed, data_seed=seed)
            loss = 3 + gap * (arm == "wide") + orders[seed] + luck.gauss(0, NOISE)
            again = replace(proposal, config=config, purpose="replicate" if seed else "baseline")
            records.append(record_of(again, loss, number=len(records)))
    return records


@pytest.mark.parametrize(("gap", "verdict"), [(0.0, "tie"), (0.03, "better")])
def test_gaps_are_paired_by_data_order(gap: float, verdict: str) -> None:
    (found,) = arm_gaps(runs(gap, seeds=6))
    assert found.verdict == verdict
    assert found.half_width_nats is not None
    assert found.half_width_nats < 0.012
    if gap:
        assert (found.better, found.worse) == ("loop", "wide")
    assert found.rate_nats is None  # no other rate was tried


def test_without_replicates_nothing_is_said() -> None:
    (found,) = arm_gaps(runs(0.5, seeds=1))
    assert (found.verdict, found.half_width_nats) == ("unknown", None)


def test_a_simulated_sweep_ends_in_a_verdict_and_in_rates_that_cost_little() -> None:
    truth = load_truth(RATE_TRUTH)
    gap = simulate_gap(truth, 12.0, seed=0, trials=10, shared=0.5)
    assert gap is not None
    assert (gap.verdict, gap.better) == ("better", "standard")
    rows = summarise(simulate_rates(truth, ("standard",), seed=0, trials=(8,)))
    costs = {row["choice"]: row["median"] for row in rows if row["where"] == "all"}
    assert float(costs["trained"]) < 1.25 < float(costs["rule"])
