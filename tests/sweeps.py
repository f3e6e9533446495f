"""A toy experiment and values of its trials, for tests that need a sweep but no training."""

from __future__ import annotations

from pathlib import Path

from search.asked.experiment import Experiment
from search.propose.contract import first_of
from search.propose.proposer import Ground, SweepProposer
from search.record.ledger import Ledger
from search.record.trial import CurvePoint, Outcome, Proposal

GROUND = Ground(
    text_fingerprint="0" * 64,
    vocab_size=256,
    num_validation_sequences=1000,
    precision="float32",
)


def toy_experiment(**changes: object) -> Experiment:
    """Two budgets of a fraction of a second each, all arms."""
    fields: dict[str, object] = {
        "name": "toy",
        "trials": 6,
        "budget": {"train_flops": [2e9, 4e9]},
        "axes": {
            "num_loops": [1, 2],
            "wide_multiplier": [2, 4],
            "num_layers": [1, 2],
            "d_model": [16, 32],
        },
        "architecture": {"head_dim": 16, "context_length": 32},
        "training": {"batch_tokens": 256, "batch_reference_flops": 2e9, "eval_sequences": 8},
        "workers": {"pool": "inline", "device": "cpu"},
    }
    return Experiment.model_validate(fields | changes)


def toy_proposals(home: Path, count: int) -> list[Proposal]:
    """The first proposals of the toy experiment, none of which has a result."""
    experiment = toy_experiment(trials=count)
    proposer, ledger = SweepProposer(experiment, GROUND), open_ledger(home / "imagined", experiment)
    proposals = []
    while (proposal := first_of(proposer.next(ledger.trials(experiment.name)))) is not None:
        ledger.add_trial(experiment.name, proposal)
        proposals.append(proposal)
    ledger.close()
    return proposals


OPENED: list[Ledger] = []
"""Ledgers that a test was given here; they are closed once it is over (`tests.conftest`)."""


def reopened(home: Path, *, create: bool = False) -> Ledger:
    """The ledger of a home, closed with the test."""
    ledger = Ledger(home, create=create)
    OPENED.append(ledger)
    return ledger


def open_ledger(home: Path, experiment: Experiment) -> Ledger:
    """A ledger that knows the experiment's sweep."""
    ledger = reopened(home, create=True)
    ledger.record_sweep(
        experiment.name,
        experiment_json=experiment.model_dump_json(),
        text_fingerprint=GROUND.text_fingerprint,
        code_version="0.1.0 fedcba987654+",
    )
    return ledger


def complete_outcome(proposal: Proposal, *, loss_nats: float = 3.0) -> Outcome:
    """What a trial that went well leaves."""
    config = proposal.config
    curve = tuple(
        CurvePoint(
            step=step,
            tokens=config.tokens * step // config.num_steps,
            train_flops=proposal.train_flops * step // config.num_steps,
            train_loss_nats=loss_nats + 1 / step,
            val_loss_nats=loss_nats + 1 / step,
            learning_rate=1e-3,
            wall_seconds=step / 10,
        )
        for step in (config.num_steps // 2, config.num_steps)
    )
    return Outcome(
        status="complete",
        loss_nats=loss_nats,
        bits_per_byte=loss_nats / 0.6931471805599453,
        train_loss_nats=loss_nats - 0.01,
        generalization_gap_nats=0.01,
        steps=config.num_steps,
        tokens=config.tokens,
        epochs=0.5,
        wall_seconds=1.5,
        tokens_per_second=config.tokens / 1.5,
        curve=curve,
    )
