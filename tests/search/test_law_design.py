"""Does a sweep for a law choose the runs that tell it, and end once its question is answered?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from analysis.points.sweep_frame import frame_of
from analysis.sweep.answer import answer
from analysis.sweep.sweep_fit import fit_sweep
from search.asked.experiment import Experiment
from search.belief.seed_noise import configuration_key
from search.design.law_model import LawModel
from search.design.question import Question, parse_question
from search.design.sweep_runs import law_runs
from search.limits.law_rows import why_no_law_uses
from search.limits.packs import FEWEST_STEPS, share_in_pack
from search.propose.candidates import MOST_REPEATS
from search.propose.contract import Done, Proposed
from search.propose.law_design import LawDesign
from search.propose.proposer import SweepProposer
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError
from tests.search.records import record_of
from tests.search.test_coverage import AXES, experiment
from tests.sweeps import GROUND

TRUTH = {"alpha": 0.45, "beta": 0.3, "phi": 0.5, "omega": 0.7}


def planted(noise: float = 0.002, *, seed: int = 0) -> Callable[[Proposal], float]:
    """Losses of a compute-capacity law with relative noise."""
    law = LawModel(
        log_size=math.log(1e5),
        log_tokens=math.log(3e5),
        values={"E": 2.0, "A": 0.7, "B": 0.9, **TRUTH},
    )
    chance = np.random.default_rng(seed)

    def loss(proposal: Proposal) -> float:
        (exact,) = law.losses(law_runs([proposal], across_arms=True))
        return float(exact * np.exp(noise * chance.normal()))

    return loss


def sweep(
    asked: Experiment, question: Question | None = None, **law: Any
) -> tuple[list[TrialRecord], Any]:
    """Every trial of a sweep, and how it ended."""
    loss, proposer = planted(**law), SweepProposer(asked, GROUND, question=question)
    records: list[TrialRecord] = []
    while isinstance(found := proposer.next(records), Proposed):
        (proposal,) = found.proposals
        records.append(record_of(proposal, loss(proposal), number=len(records)))
    return records, found


def for_law(**changes: Any) -> Experiment:
    return experiment("law", axes=AXES | {"num_loops": [1, 2, 4]}, **changes)


@pytest.fixture(scope="module")
def whole() -> list[TrialRecord]:
    return sweep(for_law(trials=110))[0]


def test_after_its_sizes_a_sweep_for_a_law_runs_what_tells_most(whole) -> None:
    repeated = Counter(configuration_key(each.proposal) for each in whole)
    assert max(repeated.values()) > 1
    assert max(repeated.values()) <= MOST_REPEATS + 1
    assert len({each.proposal.config.data_seed for each in whole}) > 2
    for each in whole:
        assert (
            each.proposal.purpose == "baseline"
            or why_no_law_uses(each.proposal.config, num_train_tokens=None) is None
        )


def test_chosen_runs_recover_the_planted_law(whole) -> None:
    fitted = fit_sweep(frame_of(whole)).capacity
    assert fitted is not None
    assert fitted.status in ("ok", "warn")
    for name, value in TRUTH.items():
        assert fitted.optimum[name] == pytest.approx(value, rel=0.15), name


def test_a_sweep_ends_once_its_question_is_answered() -> None:
    question = parse_question("phi +- 0.06")
    records, end = sweep(for_law(trials=200), question)
    assert isinstance(end, Done)
    assert end.why is not None
    assert str(question) in end.why
    assert len(records) < 200
    told = answer(question, fit_sweep(frame_of(records)))
    assert told.interval is not None
    assert told.interval[0] < TRUTH["phi"] < told.interval[1]
    assert told.half_width < 3 * question.half_width


def test_a_harder_question_takes_more_runs() -> None:
    easy, hard = (sweep(for_law(trials=200), parse_question(f"a +- {w}"))[0] for w in (0.06, 0.03))
    assert len(easy) < len(hard)


def test_what_further_runs_tell_is_foreseen(whole) -> None:
    asked = for_law(trials=110)
    design = LawDesign(asked, GROUND)
    proposals = [each.proposal for each in whole]
    widths = design.foreseen(whole[:60], proposals[60:])
    assert len(widths) == len(whole) - 60 + 1
    assert set(widths[0]) == {"alpha", "beta", "phi", "omega", "a"}
    for name in widths[0]:
        assert widths[-1][name] < widths[0][name]
    before_any = design.foreseen([], proposals)
    assert not math.isfinite(before_any[0]["phi"])
    assert math.isfinite(before_any[-1]["phi"])


def test_one_family_has_no_law_across_arms() -> None:
    asked = experiment("law", arms=["standard"])
    with pytest.raises(RequestError, match=r"phi is told by a law across arms, .* one family"):
        SweepProposer(asked, GROUND, question=parse_question("phi +- 0.1"))
    records, _ = sweep(experiment("law", arms=["standard"], trials=30), parse_question("a +- 0.2"))
    told = answer(parse_question("a +- 0.2"), fit_sweep(frame_of(records)))
    assert told.law == "chinchilla"


def test_an_answer_about_a_loss_is_that_of_the_best_size(whole) -> None:
    found = fit_sweep(frame_of(whole))
    told = answer(parse_question("loss@1e13 +- 0.1"), found)
    assert told.value is not None
    assert 2.0 < told.value < 3.0
    assert told.interval is not None
    assert told.interval[0] < told.value < told.interval[1]
    assert "loss@1e+13 = " in str(told)


def test_a_pack_makes_small_runs_cheap() -> None:
    config = sweep(for_law(trials=3))[0][0].proposal.config
    long = replace(config, tokens=FEWEST_STEPS * 2 * config.tokens // config.num_steps)
    assert share_in_pack(long, most=8) == pytest.approx(1 / 3)
    assert share_in_pack(long, most=1) == 1


def test_a_design_begins_where_no_run_is_one_that_a_law_uses(whole) -> None:
    design = LawDesign(for_law(), GROUND)
    offered = [each.proposal for each in whole[:20]]
    assert design.choose([], offered) in offered
    assert design.choose([], []) is None
