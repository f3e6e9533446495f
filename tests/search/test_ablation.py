"""Is an ablation one choice at a time, on the same seeds, and set beside its base by them?"""

from __future__ import annotations

import math

import pytest
import torch

from analysis.sweep.ablation import ablation_of
from search.asked.experiment import Experiment
from search.propose.ablation import AS_IT_IS, base_point, varied
from search.propose.cells import cell_axes
from search.propose.contract import Done, Proposed
from search.propose.proposer import SweepProposer
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError
from spaces.parts.gate import deep_share_entropy, imbalance
from tests.search.records import record_of
from tests.sweeps import GROUND, toy_experiment

AXES = {
    "num_loops": [2],
    "wide_multiplier": [2],
    "num_layers": [2],
    "d_model": [32],
    "gate_mode": ["independent", "convex"],
    "gate_entropy_penalty": [-0.1, 0, 0.1],
    "gate_balance_penalty": [0, 1],
    "gate_bias_init": [-2, 0],
}
VARIANTS = 6


def asked(**changes: object) -> Experiment:
    fields: dict[str, object] = {
        "trials": 4 * VARIANTS,
        "arms": ["dual"],
        "budget": {"train_flops": [2e11]},
        "axes": AXES,
        "search": {"goal": "ablation"},
        "tuning": {},
    }
    return toy_experiment(**(fields | changes))


def played(experiment: Experiment, loss=lambda proposal: 2.0) -> list[TrialRecord]:
    proposer, records = SweepProposer(experiment, GROUND), []
    while isinstance(found := proposer.next(records), Proposed):
        (proposal,) = found.proposals
        assert not proposer.depends_on_results(proposal, records)
        records.append(record_of(proposal, loss(proposal), number=len(records)))
    assert isinstance(found, Done)
    return records


def choice_of(experiment: Experiment, proposal: Proposal) -> str:
    return varied(proposal.axes, base_point("dual", cell_axes(experiment, "dual")))


def test_every_choice_runs_alone_and_on_every_seed() -> None:
    experiment = asked()
    records = played(experiment)
    choices = [choice_of(experiment, each.proposal) for each in records]
    assert len(set(choices[:VARIANTS])) == VARIANTS
    assert choices == choices[:VARIANTS] * 4
    assert choices[0] == AS_IT_IS
    assert all("," not in each for each in choices)
    seeds = [each.proposal.config.data_seed for each in records]
    assert seeds == [seed for seed in range(4) for _ in range(VARIANTS)]


def test_penalties_and_starts_reach_the_configuration() -> None:
    experiment = asked(trials=VARIANTS)
    by_choice = {choice_of(experiment, r.proposal): r.proposal.config for r in played(experiment)}
    assert by_choice["gate_entropy_penalty = 0.1"].training.gate_entropy_penalty == 0.1
    assert by_choice["gate_entropy_penalty = -0.1"].training.gate_entropy_penalty == -0.1
    assert by_choice["gate_balance_penalty = 1"].training.gate_balance_penalty == 1
    assert by_choice["gate_bias_init = -2"].architecture.gate_bias_init == -2
    assert by_choice[AS_IT_IS].training.gate_balance_penalty == 0
    assert len({config.config_hash for config in by_choice.values()}) == VARIANTS


def test_an_axis_that_is_not_named_is_in_no_point() -> None:
    assert "gate_balance_penalty" not in cell_axes(toy_experiment(), "dual")
    set_as_a_whole = toy_experiment(training={"gate_balance_penalty": 0.5, "eval_sequences": 8})
    proposer = SweepProposer(set_as_a_whole, GROUND)
    found = proposer.next([])
    assert isinstance(found, Proposed)
    assert found.proposals[0].config.training.gate_balance_penalty == 0.5


def test_differences_are_by_seed() -> None:
    experiment = asked()

    def loss(proposal: Proposal) -> float:
        seed = proposal.config.data_seed
        what = choice_of(experiment, proposal)
        luck = math.sin(7 * seed)  # of the seed: large, and the same for all
        own = 0.001 * math.cos(3 * seed + len(what))
        return 2 + luck + own + (0.05 if what == "gate_bias_init = -2" else 0)

    rows = {
        each.varied: each for each in ablation_of(experiment, played(experiment, loss)).variants
    }
    assert rows[AS_IT_IS].difference_nats is None
    moved = rows["gate_bias_init = -2"]
    assert moved.differs
    assert moved.interval is not None
    assert moved.interval[0] < 0.05 < moved.interval[1]
    assert moved.num_pairs == 4
    assert not rows["gate_mode = convex"].differs


def test_a_single_seed_tells_no_interval() -> None:
    experiment = asked(trials=VARIANTS)
    rows = ablation_of(experiment, played(experiment)).variants
    assert all(each.interval is None for each in rows)
    assert all(each.differs is None for each in rows)


def test_what_is_no_ablation_is_refused() -> None:
    experiment = asked()
    with pytest.raises(RequestError, match="no result of the base"):
        ablation_of(experiment, [])
    with pytest.raises(RequestError, match=r'search.goal = "ablation"'):
        ablation_of(asked(search={"goal": "best"}), played(experiment))
    with pytest.raises(ValueError, match=r"leave \[tuning\] out"):
        asked(tuning={"learning_rate_multipliers": [0.5, 1.0]})


def test_imbalance_is_that_of_a_sequence() -> None:
    gates = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]]])
    assert imbalance(gates).tolist() == [[0.0, 0.25]]


def test_the_entropy_of_decided_gates_has_a_slope() -> None:
    logits = torch.tensor([[[[40.0, -200.0], [-200.0, 40.0]]]], requires_grad=True)
    deep_share_entropy(torch.sigmoid(logits)).sum().backward()
    assert torch.isfinite(logits.grad).all()
