"""Does a sweep for the gap of two arms run only what tells it, and end once it is told?"""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.isoflop.frontier_gap import gap_at
from analysis.points.sweep_frame import frame_of
from analysis.sweep.answer import Answer, answer
from analysis.sweep.sweep_fit import fit_sweep
from search.asked.experiment import Experiment
from search.design.gap_runs import GapBelief, GapRuns, believed, half_width, next_run
from search.design.question import GapQuestion, parse_question
from search.propose.contract import Done, Proposed
from search.propose.coverage import log_size
from search.propose.proposer import SweepProposer, run_design
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError
from tests.analysis.test_arm_trends import planted_runs
from tests.search.records import record_of
from tests.search.test_coverage import AXES, BUDGETS, experiment
from tests.sweeps import GROUND

GAP = 0.03
ASKED = f"gap(dual, standard)@{BUDGETS[1]:g} +- 0.01"


def of_three_arms(trials: int = 120, **changes: object) -> Experiment:
    return experiment("law", arms=["standard", "dual", "loop"], trials=trials, axes=AXES, **changes)


def played(
    asked: Experiment, words: str, *, noise: float = 0.004
) -> tuple[list[TrialRecord], str | None]:
    """Every trial of a sweep for a question, and why it ended; dual is better by `GAP`."""
    chance = np.random.default_rng(3)
    orders: dict[int, float] = {}
    proposer = SweepProposer(asked, GROUND, question=parse_question(words))
    records: list[TrialRecord] = []

    def loss(proposal: Proposal) -> float:
        order = orders.setdefault(proposal.config.data_seed, 0.01 * chance.normal())
        curve = 3 + 0.05 * (log_size(proposal) - 0.1) ** 2
        return float(curve + GAP * (proposal.arm != "dual") + order + noise * chance.normal())

    while isinstance(found := proposer.next(records), Proposed):
        (proposal,) = found.proposals
        records.append(record_of(proposal, loss(proposal), number=len(records)))
    assert isinstance(found, Done)
    return records, found.why


def told(records: list[TrialRecord], words: str) -> Answer:
    return answer(parse_question(words), fit_sweep(frame_of(records)))


@pytest.fixture(scope="module")
def sweep() -> tuple[list[TrialRecord], str | None]:
    return played(of_three_arms(), ASKED)


def test_only_both_arms_at_the_budget_are_trained(sweep) -> None:
    records, why = sweep
    assert why is not None
    assert ASKED.replace("+-", "±") in why
    assert {each.proposal.arm for each in records} == {"standard", "dual"}
    assert {each.proposal.budget.train_flops for each in records} == {BUDGETS[1]}
    assert len(records) < 60


def test_the_answer_is_that_of_the_fitted_minima(sweep) -> None:
    found = told(sweep[0], ASKED)
    assert found.interval is not None
    assert found.interval[0] < GAP < found.interval[1]
    assert found.half_width < 2 * 0.01
    turned = told(sweep[0], f"gap(standard, dual)@{BUDGETS[1]:g} +- 0.01")
    assert turned.value == pytest.approx(-found.value)
    assert turned.interval == pytest.approx(tuple(-end for end in reversed(found.interval)))


def test_a_gap_that_was_not_measured_is_no_answer(sweep) -> None:
    found = told(sweep[0], f"gap(dual, standard)@{BUDGETS[2]:g} +- 0.01")
    assert (found.value, found.is_enough) == (None, False)
    assert "both arms need results at this budget" in str(found)


@pytest.mark.parametrize("seed", range(5))
def test_expected_intervals_are_those_of_the_analysis(seed: int) -> None:
    chance = np.random.default_rng(seed)
    arms = planted_runs(chance, 1e13, gap=0.02, place=0.1, noise=0.004, order=0.02)
    measured = gap_at(*arms, 1e13)
    runs = GapRuns(
        places=np.concatenate([np.log(each.sizes) for each in arms]) - math.log(1e13) / 2,
        of_other=np.repeat([False, True], [len(each.sizes) for each in arms]),
        orders=np.concatenate([each.data_seeds for each in arms]),
    )
    belief = believed(runs, np.concatenate([each.losses for each in arms]))
    assert measured.interval is not None
    low, high = measured.interval
    assert half_width(runs, belief) == pytest.approx((high - low) / 2)


def test_chosen_runs_tell_more_than_random_ones_of_their_cost() -> None:
    candidates = GapRuns(
        places=np.tile(np.linspace(-1.4, 1.4, 9), 4),
        of_other=np.repeat([False, True], 18),
        orders=np.tile(np.repeat([0, 1], 9), 2),
    )
    costs, belief, nothing = [1.0] * 36, GapBelief(), np.zeros(0)
    chosen = GapRuns(places=nothing, of_other=nothing.astype(bool), orders=nothing.astype(int))
    for _ in range(20):
        chosen = chosen.joined(candidates.only(next_run(chosen, candidates, costs, belief)))
    chance = np.random.default_rng(0)
    others = []
    for _ in range(40):
        some = chance.choice(36, size=20, replace=False)
        others.append(
            half_width(
                GapRuns(
                    places=candidates.places[some],
                    of_other=candidates.of_other[some],
                    orders=candidates.orders[some],
                ),
                belief,
            )
        )
    assert half_width(chosen, belief) < 0.85 * float(np.median(others))


def test_what_further_runs_tell_of_a_gap_is_foreseen(sweep) -> None:
    records, _ = sweep
    design = run_design(of_three_arms(), GROUND, parse_question(ASKED))
    widths = [
        each[design.question.quantity]
        for each in design.foreseen(records[:9], [each.proposal for each in records[9:]])
    ]
    assert len(widths) == len(records) - 8
    assert widths[-1] < 0.02
    assert math.isinf(design.half_width([]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"gap(dual, wide)@{BUDGETS[1]:g} +- 0.1", "ask about two of these, or add one"),
        ("gap(dual, standard)@1e15 +- 0.1", "or add it to budget.train_flops"),
        ("gap(dual, dual)@1e11 +- 0.1", "two arms at a budget"),
        ("gap(dual, standard) +- 0.1", "a question has the form"),
        ("gap(dual, standard)@1e11 +- 0", "two arms at a budget"),
    ],
)
def test_a_gap_that_no_run_can_tell_is_refused(words: str, message: str) -> None:
    with pytest.raises(RequestError, match=message.replace(".", r"\.")):
        run_design(of_three_arms(), GROUND, parse_question(words))


def test_a_gap_is_written_as_it_is_read() -> None:
    asked = parse_question("gap( dual,standard )@1e15 ± 0.01")
    assert isinstance(asked, GapQuestion)
    assert str(asked) == "gap(dual, standard)@1e+15 ± 0.01"
    assert parse_question(str(asked)) == asked
