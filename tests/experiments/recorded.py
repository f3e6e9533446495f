"""A home whose sweep ran on paper: recorded outcomes of the toy experiment, no training."""

from __future__ import annotations

from pathlib import Path

from search.asked.experiment import Experiment, load_experiment
from search.propose.contract import first_of
from search.propose.proposer import Ground, SweepProposer
from search.record.ledger import Ledger, TrialRecord
from search.record.trial import Proposal
from spaces.flops import forward_flops_per_token
from spaces.parameters import count_parameters
from tests.experiments.toy import TOML
from tests.search.records import Judge, bowl, record_of

EXTRA = """
[search]
replicates_per_budget = 3

[tuning]
learning_rate_multipliers = [0.5, 1, 2, 4]
check_largest = false
"""


def write_experiment(folder: Path, *, trials: int, budgets: str = "[1e10, 2e10, 4e10]") -> Path:
    """The toy experiment with tuning and replicates."""
    text = TOML.replace("trials = 6", f"trials = {trials}").replace("[1e9, 2e9]", budgets)
    text = text.replace('name = "toy"', 'name = "toy"\narms = ["dual", "standard"]')
    path = folder / "toy.toml"
    path.write_text(text + EXTRA)
    return path


def record_sweep(
    path: Path, home: Path, ground: Ground, *, judge: Judge = bowl, limit: int = 1000
) -> tuple[Experiment, list[TrialRecord]]:
    """Play the sweep of a file into the ledger of a home."""
    experiment = load_experiment(str(path))
    proposer, ledger = SweepProposer(experiment, ground), Ledger(home, create=True)
    ledger.record_sweep(
        experiment.name,
        experiment_json=experiment.model_dump_json(),
        text_fingerprint=ground.text_fingerprint,
        code_version="test",
    )
    while (records := ledger.trials(experiment.name)) is not None and len(records) < limit:
        proposal = first_of(proposer.next(records))
        if proposal is None:
            break
        run_on_paper(ledger, experiment.name, proposal, judge)
    records = ledger.trials(experiment.name)
    ledger.close()
    return experiment, records


def run_on_paper(ledger: Ledger, sweep: str, proposal: Proposal, judge: Judge) -> None:
    """A trial of a sweep with the outcome that a judge gives it."""
    from dataclasses import replace

    from runners.machine.cpu import cpu_name

    ledger.add_trial(sweep, proposal)
    attempt = ledger.start_attempt(sweep, proposal.config_hash)
    outcome = record_of(proposal, judge(proposal)).outcome
    assert outcome is not None
    a = proposal.config.architecture
    measured = replace(
        outcome,
        device=cpu_name(),
        parameters=count_parameters(a).as_dict(),
        forward_flops_per_token=forward_flops_per_token(a).as_dict(),
        tokens_per_second=1e9 / (3 * forward_flops_per_token(a)["full"]),
        wall_seconds=1.0,
    )
    ledger.accept(attempt.id, measured, spent_flops=float(proposal.train_flops))
