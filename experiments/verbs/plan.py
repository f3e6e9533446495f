"""``isoflop plan``: what would run, before anything does."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from experiments.command import print_json, talk
from experiments.setup import (
    ExperimentOptions,
    json_number,
    parse_experiment_options,
    prepare_ground,
    report_set_aside,
    resolve_device,
)
from runners.machine.disk import find_shortage, sweep_bytes
from search.asked.experiment import Experiment
from search.limits.caps import SECONDS_PER_HOUR, hours_cap_reached, spent_hours
from search.limits.feasibility import predicted_memory_bytes
from search.limits.forecast import predicted_seconds
from search.propose.proposer import Ground, Proposer
from search.propose.pruning import may_prune
from search.propose.tuning import RATE, STEP_SCALE
from search.record.ledger import FILE_NAME, Ledger, Throughput, TrialRecord
from search.record.ledger_schema import require_plain
from search.record.numbers import configuration_numbers
from search.record.trial import Outcome, Proposal, TrialState
from spaces.errors import RequestError

Fate = Literal["done", "reused", "waiting", "new", "open"]

TO_RUN: tuple[Fate, ...] = ("waiting", "new", "open")


@dataclass(frozen=True)
class PlanOptions(ExperimentOptions):
    """What an experiment would run, why, how large, how long and for how much."""

    price: float | None = None
    """Cost of one worker-hour, in your currency."""


@dataclass(frozen=True, kw_only=True)
class PlannedTrial:
    """One line of a plan."""

    record: TrialRecord
    """The trial as the ledger has it, or would have it."""
    fate: Fate
    """done, reused, waiting, new, or open (results still to come decide its axes)."""
    why: str
    """Why it is there, or why it is not run."""
    memory_bytes: float
    """Predicted."""
    seconds: float | None
    """Predicted training time; None where this device has measured nothing."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that a sweep would run and reuse."""

    experiment: Experiment
    trials: tuple[PlannedTrial, ...]
    stopped_by: str | None
    """The cap that ends the plan before all its trials; None where none does."""
    spent_hours: float
    """Worker-hours that the sweep has spent."""
    price: float | None
    """Of one worker-hour."""


def run(argv: list[str]) -> int:
    """Print the plan."""
    options, experiment = parse_experiment_options(PlanOptions, argv, verb="plan")
    if options.price is not None and options.price < 0:
        raise RequestError(f"--price must not be negative, got {options.price:g}")
    require_plain(options.home)
    with tempfile.TemporaryDirectory() as scratch:
        home = options.home if (options.home / FILE_NAME).exists() else Path(scratch)
        corpus, ground = prepare_ground(experiment, options.home)
        found = replace(plan(experiment, ground, home), price=options.price)
    shortage = find_shortage(options.home.resolve(), _totals(found)["disk_bytes"])
    if shortage is not None:
        talk(f"{shortage}: the sweep would pause until there is room")
    if options.json:
        print_json(plan_document(found) | {"text": corpus.sizes()})
    else:
        print_plan(found)
        print(corpus.describe_sizes())
    return 0


def plan(experiment: Experiment, ground: Ground, home: Path) -> Plan:
    """Recorded trials, then those the proposer would add if no result changed its mind."""
    ledger = Ledger(home, create=True)
    recorded = ledger.trials(experiment.name) if ledger.find_sweep(experiment.name) else []
    measured = _measured_here(experiment, ledger.throughputs())
    proposer = Proposer(experiment, ground)
    reasons = {record.config_hash: proposer.why_set_aside(record) for record in recorded}
    report_set_aside(reasons)
    records = [replace(record, set_aside=reasons[record.config_hash]) for record in recorded]
    if experiment.pruning.rule == "none":  # what was pruned will be trained whole
        records = [
            replace(record, state="preempted", outcome=None) if record.state == "pruned" else record
            for record in records
        ]
    trials = [
        _planned(experiment, record, *_fate(record), measured)
        for record in records
        if record.set_aside is None
    ]
    while (proposal := proposer.next(records, foresee=True)) is not None:
        known = ledger.accepted(proposal.config_hash)
        if known is not None and known.status == "pruned" and not may_prune(experiment, proposal):
            known = None
        record = _imagined(proposal, known, number=len(records))
        fate: Fate = "open" if proposer.depends_on_results(proposal, records) else "new"
        why = _why(proposal, experiment)
        if known is not None:
            fate, why = "reused", "this home has its result"
        records.append(record)
        trials.append(_planned(experiment, record, fate, why, measured))
    ledger.close()
    hours = spent_hours(recorded, now=time.time())
    return Plan(
        experiment=experiment,
        trials=tuple(trials),
        stopped_by=proposer.stopped_by or _hours_cap(experiment, trials, hours),
        spent_hours=hours,
        price=None,
    )


def _measured_here(experiment: Experiment, measured: list[Throughput]) -> list[Throughput]:
    """What the device that trials would run on has measured."""
    if not measured:
        return []
    if resolve_device(experiment) == "cpu":
        from runners.machine.cpu import cpu_name

        name = cpu_name()
    else:
        from runners.machine.device import device_name, find_device

        name = device_name(find_device("cuda"))
    return [each for each in measured if each.device == name]


def _planned(
    experiment: Experiment,
    record: TrialRecord,
    fate: Fate,
    why: str,
    measured: Sequence[Throughput],
) -> PlannedTrial:
    return PlannedTrial(
        record=record,
        fate=fate,
        why=why,
        memory_bytes=predicted_memory_bytes(experiment.limits, record.proposal.config),
        seconds=predicted_seconds(record.proposal, measured),
    )


def _fate(record: TrialRecord) -> tuple[Fate, str]:
    if record.state == "reused":
        return "reused", "this home has its result from another sweep"
    if record.state in ("queued", "running", "preempted"):
        return "waiting", f"{record.state}, attempt {len(record.attempts)}"
    reason = record.outcome.reason if record.outcome else None
    return "done", record.state + (f": {reason}" if reason else "")


def _why(proposal: Proposal, experiment: Experiment) -> str:
    """What a new trial is for."""
    if proposal.purpose == "baseline":
        return "baseline of its arm"
    if proposal.purpose == "tuning":
        return _why_tuning(proposal, experiment)
    if proposal.purpose == "replicate":
        return "repeats a leader with other seeds"
    return f"search by {experiment.search.sampler}"


def _why_tuning(proposal: Proposal, experiment: Experiment) -> str:
    tried = f"{proposal.axes[RATE]:g} x the rate"
    budgets = experiment.budget.train_flops
    if len(budgets) > 1 and proposal.budget.train_flops == max(budgets):
        return f"checks {proposal.arm}: {tried}"
    start = proposal.axes.get(STEP_SCALE)
    if start is not None and start not in experiment.axes.step_scale_init:
        tried += f", steps from {start:g}"
    return f"tunes {proposal.arm}: {tried}"


def _hours_cap(experiment: Experiment, trials: list[PlannedTrial], spent: float) -> str | None:
    """Whether the predicted time reaches the cap of worker-hours."""
    seconds = [each.seconds or 0.0 for each in trials if each.fate in TO_RUN]
    return hours_cap_reached(experiment.limits, spent + sum(seconds) / SECONDS_PER_HOUR)


def _imagined(proposal: Proposal, known: Outcome | None, *, number: int) -> TrialRecord:
    """The record that a sweep would begin with, given what this home knows of the identity."""
    state: TrialState = "queued"
    if known is not None:
        state = "reused" if known.status == "complete" else cast(TrialState, known.status)
    return TrialRecord(
        number=number,
        proposal=proposal,
        state=state,
        set_aside=None,
        attempts=(),
        outcome=known,
        accepted_at=None,
        mlflow_run_id=None,
    )


def plan_document(found: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    trials = [
        {
            "config_hash": each.record.config_hash,
            "arm": each.record.proposal.arm,
            "purpose": each.record.proposal.purpose,
            "fate": each.fate,
            "why": each.why,
            **{
                name: json_number(value)
                for name, value in configuration_numbers(each.record).items()
            },
            "predicted_memory_bytes": json_number(each.memory_bytes),
            "predicted_seconds": each.seconds,
        }
        for each in found.trials
    ]
    return {
        "experiment": found.experiment.name,
        "convention": found.experiment.budget.convention,
        "trials": trials,
        "totals": _totals(found),
        "stopped_by": found.stopped_by,
    }


def _totals(found: Plan) -> dict[str, Any]:
    to_run = [each for each in found.trials if each.fate in TO_RUN]
    seconds = [each.seconds for each in to_run if each.seconds is not None]
    hours = sum(seconds) / SECONDS_PER_HOUR if len(seconds) == len(to_run) else None
    return {
        "trials": len(found.trials),
        "to_run": len(to_run),
        "reused": sum(each.fate == "reused" for each in found.trials),
        "train_flops_to_run": sum(each.record.proposal.train_flops for each in to_run),
        "tokens_to_run": sum(each.record.proposal.config.tokens for each in to_run),
        "largest_memory_bytes": json_number(max((e.memory_bytes for e in to_run), default=0.0)),
        "disk_bytes": sweep_bytes(
            [each.record.proposal.config for each in to_run],
            num_workers=found.experiment.workers.count or os.cpu_count() or 1,
            keep_weights=found.experiment.training.save_weights,
        ),
        "worker_hours_to_run": hours,
        "worker_hours_spent": found.spent_hours,
        "cost": None if hours is None or found.price is None else hours * found.price,
    }


def print_plan(found: Plan) -> None:
    """The plan as a table and its totals."""
    from rich.console import Console
    from rich.table import Table

    convention = found.experiment.budget.convention
    table = Table(title=f"{found.experiment.name}: FLOPs in the {convention} convention")
    words = ("fate", "why", "arm")
    shape = ("budget", "layers", "K", "width", "deep", "wide", "params", "deep/wide/shared")
    spent = ("tokens", "tok/par", "steps", "batch", "lr", "memory", "time", "delivered")
    for column in (*words, *shape, *spent):
        table.add_column(column, justify="left" if column in words else "right")
    for each in found.trials:
        table.add_row(*_row(each))
    console = Console(width=None if sys.stdout.isatty() else 220)
    console.print(table)
    _print_totals(found)


def _print_totals(found: Plan) -> None:
    totals = _totals(found)
    print(
        f"{totals['to_run']} of {totals['trials']} trials to run ({totals['reused']} reused): "
        f"{totals['train_flops_to_run']:.3g} training FLOPs, {totals['tokens_to_run']:,} tokens, "
        f"at most {totals['largest_memory_bytes'] / 1e9:.2f} GB each"
    )
    print(f"disk: at most {totals['disk_bytes'] / 1e6:.1f} MB of checkpoints, weights and records")
    if totals["worker_hours_to_run"] is None:
        print("time: not known, since this device has trained nothing in this home yet")
    else:
        cost = (
            "" if totals["cost"] is None else f", {totals['cost']:.2f} at {found.price:g} an hour"
        )
        print(f"time: {totals['worker_hours_to_run']:.3g} worker-hours of training{cost}")
    if found.stopped_by:
        print(f"stops in order: {found.stopped_by}")
    if any(each.fate == "open" for each in found.trials):
        talk("open: results still to come decide its shape; its cost is the budget's all the same")


def _row(each: PlannedTrial) -> list[str]:
    proposal = each.record.proposal
    config, a = proposal.config, proposal.config.architecture
    numbers = configuration_numbers(each.record)
    target = numbers["target_train_flops"]
    parts = [numbers[f"parameters_{part}"] / 1e3 for part in ("deep", "wide", "shared")]
    return [
        each.fate,
        each.why,
        proposal.arm,
        f"{target:.3g}",
        str(a.num_layers),
        str(a.num_loops),
        str(a.d_model),
        str(a.deep_ffn or "-"),
        str(a.wide_ffn or "-"),
        f"{numbers['parameters'] / 1e6:.3f}M",
        "/".join(f"{part:.0f}k" for part in parts),
        f"{config.tokens:,}",
        f"{numbers['tokens_per_parameter']:.3g}",
        str(config.num_steps),
        str(config.training.batch_sequences),
        f"{config.training.learning_rate:.3g}",
        f"{each.memory_bytes / 1e6:.0f} MB",
        "?" if each.seconds is None else f"{each.seconds:.1f} s",
        f"{proposal.train_flops / target - 1:+.3%}",
    ]
