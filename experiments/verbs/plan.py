"""``isoflop plan``: what would run, before anything does."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.command import print_json, talk
from experiments.setup import (
    ExperimentOptions,
    json_number,
    parse_experiment_options,
    prepare_ground,
    report_set_aside,
)
from search.experiment import Experiment
from search.ledger import FILE_NAME, Ledger, TrialRecord
from search.proposer import Ground, Proposer
from search.results import configuration_numbers
from search.trial import Proposal


@dataclass(frozen=True)
class PlanOptions(ExperimentOptions):
    """What an experiment would run."""


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One line of a plan."""

    record: TrialRecord
    """The trial as the ledger has it, or would have it."""
    fate: str
    """done, reused, waiting, new, or open (its axes depend on results)."""


def run(argv: list[str]) -> int:
    """Print the plan."""
    options, experiment = parse_experiment_options(PlanOptions, argv, verb="plan")
    with tempfile.TemporaryDirectory() as scratch:
        home = options.home if (options.home / FILE_NAME).exists() else Path(scratch)
        _, ground = prepare_ground(experiment, options.home)
        planned = plan(experiment, ground, home)
    if options.json:
        print_json(plan_document(experiment, planned))
    else:
        print_plan(experiment, planned)
    return 0


def plan(experiment: Experiment, ground: Ground, home: Path) -> list[PlannedTrial]:
    """Recorded trials, then those the proposer would add if no result changed its mind."""
    ledger = Ledger(home, create=True)
    recorded = ledger.trials(experiment.name) if ledger.find_sweep(experiment.name) else []
    proposer = Proposer(experiment, ground)
    reasons = {record.config_hash: proposer.why_set_aside(record) for record in recorded}
    report_set_aside(reasons)
    records = [record for record in recorded if reasons[record.config_hash] is None]
    planned = [PlannedTrial(record=record, fate=_fate(record)) for record in records]
    while (proposal := proposer.next(records)) is not None:
        reused = ledger.has_result(proposal.config_hash)
        fate = "open" if proposer.depends_on_results(proposal, records) else "new"
        record = _imagined(proposal, number=len(records), reused=reused)
        records.append(record)
        planned.append(PlannedTrial(record=record, fate="reused" if reused else fate))
    ledger.close()
    return planned


def _fate(record: TrialRecord) -> str:
    if record.state == "reused":
        return "reused"
    return "waiting" if record.state in ("queued", "running", "preempted") else "done"


def _imagined(proposal: Proposal, *, number: int, reused: bool) -> TrialRecord:
    return TrialRecord(
        number=number,
        proposal=proposal,
        state="reused" if reused else "queued",
        set_aside=None,
        attempts=(),
        outcome=None,
        accepted_at=None,
        mlflow_run_id=None,
    )


def plan_document(experiment: Experiment, planned: list[PlannedTrial]) -> dict[str, Any]:
    """The plan as JSON."""
    trials = [
        {
            "config_hash": each.record.config_hash,
            "arm": each.record.proposal.arm,
            "purpose": each.record.proposal.purpose,
            "fate": each.fate,
            **{
                name: json_number(value)
                for name, value in configuration_numbers(each.record).items()
            },
        }
        for each in planned
    ]
    return {
        "experiment": experiment.name,
        "convention": experiment.budget.convention,
        "trials": trials,
        "totals": _totals(planned),
    }


def _totals(planned: list[PlannedTrial]) -> dict[str, Any]:
    to_run = [each for each in planned if each.fate in ("waiting", "new", "open")]
    return {
        "trials": len(planned),
        "to_run": len(to_run),
        "train_flops_to_run": sum(each.record.proposal.train_flops for each in to_run),
        "tokens_to_run": sum(each.record.proposal.config.tokens for each in to_run),
    }


def print_plan(experiment: Experiment, planned: list[PlannedTrial]) -> None:
    """The plan as a table and its totals."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{experiment.name}: FLOPs in the {experiment.budget.convention} convention"
    )
    columns = ("fate", "arm", "budget", "layers", "K", "width", "deep", "wide", "params", "tokens")
    for column in (*columns, "tok/param", "steps", "batch", "lr", "delivered"):
        table.add_column(column, justify="left" if column in ("fate", "arm") else "right")
    for each in planned:
        table.add_row(*_row(each))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    totals = _totals(planned)
    print(
        f"{totals['to_run']} of {totals['trials']} trials to run: "
        f"{totals['train_flops_to_run']:.3g} training FLOPs, {totals['tokens_to_run']:,} tokens"
    )
    if any(each.fate == "open" for each in planned):
        talk("open: shown as the sampler would choose without the results still to come")


def _row(each: PlannedTrial) -> list[str]:
    proposal = each.record.proposal
    config, a = proposal.config, proposal.config.architecture
    numbers = configuration_numbers(each.record)
    target = numbers["target_train_flops"]
    return [
        each.fate,
        proposal.arm,
        f"{target:.3g}",
        str(a.num_layers),
        str(a.num_loops),
        str(a.d_model),
        str(a.deep_ffn or "-"),
        str(a.wide_ffn or "-"),
        f"{numbers['parameters'] / 1e6:.3f}M",
        f"{config.tokens:,}",
        f"{numbers['tokens_per_parameter']:.1f}",
        str(config.num_steps),
        str(config.training.batch_sequences),
        f"{config.training.learning_rate:.3g}",
        f"{proposal.train_flops / target - 1:+.3%}",
    ]
