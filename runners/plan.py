"""What would a sweep run, before anything does? Its own proposer is asked, nothing is written.

`isoflop.plan` is `plan`; ``isoflop plan`` prints what it returns.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from runners.ground import most_side_by_side, prepare_ground, resolve_device
from runners.machine.disk import find_shortage, sweep_bytes
from runners.own_arms import require_certified
from runners.trial.branching import shared_tokens
from search.asked.experiment import Experiment
from search.belief.rates import RATE
from search.design.question import Question
from search.limits.caps import SECONDS_PER_HOUR, hours_cap_reached, spent_hours
from search.limits.feasibility import predicted_memory_bytes
from search.limits.forecast import predicted_seconds
from search.propose.ablation import base_point, varied
from search.propose.cells import Ground, cell_axes
from search.propose.contract import Capped, Done, Proposed
from search.propose.proposer import SweepProposer
from search.propose.set_aside import set_aside_in_words
from search.propose.tuning import STEP_SCALE
from search.record.homes import require_plain
from search.record.ledger import FILE_NAME, Ledger, Throughput, TrialRecord
from search.record.trial import Outcome, Proposal
from search.record.trial_records import is_pending, planned_record
from spaces.arms.contract import shape_in_words
from spaces.errors import RequestError
from spaces.shown import Block, Shown, Table

if TYPE_CHECKING:
    from runners.text.corpus import Corpus

Fate = Literal["done", "reused", "waiting", "new", "open"]

LARGEST_PRICE = 1e12
"""Of an hour, in any currency."""

TO_RUN: tuple[Fate, ...] = ("waiting", "new", "open")


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
class PlanTotals:
    """What a plan comes to."""

    trials: int
    to_run: int
    reused: int
    train_flops_to_run: int
    """In the budget's convention; trials that share a trunk count whole."""
    train_flops_shared: int
    """Of these, what trunks save: stretches that a shorter trial pays for."""
    tokens_to_run: int
    largest_memory_bytes: float
    disk_bytes: int
    worker_hours_to_run: float | None
    """None where this device has measured nothing."""
    worker_hours_spent: float
    cost: float | None
    """Of the hours to run, in the currency of the price; None without either."""


@dataclass(frozen=True, kw_only=True)
class Plan(Shown):
    """All that a sweep would run and reuse."""

    experiment: Experiment
    trials: tuple[PlannedTrial, ...]
    stopped_by: str | None
    """What ends the plan before all its trials: a cap, or that no more configurations fit."""
    spent_hours: float
    """Worker-hours that the sweep has spent."""
    price: float | None
    """Of one worker-hour."""
    corpus: Corpus
    """The prepared text: sizes of training and validation."""
    ground: Ground
    """What its proposals rest on."""
    notes: tuple[str, ...] = ()
    """What a person should know: of the text, what is set aside, what the disk lacks."""

    @property
    def totals(self) -> PlanTotals:
        """Sums over its trials."""
        to_run = [each for each in self.trials if each.fate in TO_RUN]
        seconds = [each.seconds for each in to_run if each.seconds is not None]
        hours = sum(seconds) / SECONDS_PER_HOUR if len(seconds) == len(to_run) else None
        return PlanTotals(
            trials=len(self.trials),
            to_run=len(to_run),
            reused=sum(each.fate == "reused" for each in self.trials),
            train_flops_to_run=sum(each.record.proposal.train_flops for each in to_run),
            train_flops_shared=self._shared_flops(),
            tokens_to_run=sum(each.record.proposal.config.tokens for each in to_run),
            largest_memory_bytes=max((each.memory_bytes for each in to_run), default=0.0),
            disk_bytes=sweep_bytes(
                [each.record.proposal.config for each in to_run],
                num_workers=(self.experiment.workers.count or os.cpu_count() or 1)
                * most_side_by_side(self.experiment),
                keep_weights=self.experiment.training.save_weights,
            ),
            worker_hours_to_run=hours,
            worker_hours_spent=self.spent_hours,
            cost=None if hours is None or self.price is None else hours * self.price,
        )

    def blocks(self) -> list[Block]:
        """What is to run and why, its sums, and the notes."""
        totals, budget = self.totals, self.experiment.budget
        return [
            f"{self.experiment.name}: {totals.to_run} of {totals.trials} trials to run "
            f"({totals.reused} reused), {totals.train_flops_to_run:.3g} training FLOPs "
            f"({budget.convention}), {totals.tokens_to_run:,} tokens",
            Table(
                caption="trials",
                columns=("fate", "why", "arm", "budget (FLOPs)", "shape", "tokens", "seconds"),
                rows=tuple(
                    (
                        each.fate,
                        each.why,
                        each.record.proposal.arm,
                        each.record.proposal.budget.train_flops,
                        shape_in_words(each.record.proposal.config.architecture),
                        each.record.proposal.config.tokens,
                        each.seconds,
                    )
                    for each in self.trials
                ),
            ),
            *([f"stops in order: {self.stopped_by}"] if self.stopped_by else []),
            *self.notes,
        ]

    def _shared_flops(self) -> int:
        """What trunks save of the trials to run; those that are done serve as trunks too."""
        if not self.experiment.budget.trunk:
            return 0
        proposals = {each.record.config_hash: each.record.proposal for each in self.trials}
        shared = shared_tokens(each.config for each in proposals.values())
        to_run = [each.record for each in self.trials if each.fate in TO_RUN]
        return round(
            sum(
                shared.get(each.config_hash, 0) * each.proposal.train_flops_per_token
                for each in to_run
            )
        )


def plan(
    experiment: Experiment,
    home: Path | str = "runs",
    *,
    price: float | None = None,
    question: Question | None = None,
) -> Plan:
    """Recorded trials, then those the proposer would add if no result changed its mind.

    ``price`` is that of one worker-hour; with a ``question`` the plan is for it and ends where it
    is expected to be answered. Raises `RequestError` as `run_sweep` would.
    """
    home = Path(home)
    if price is not None and not 0 <= price <= LARGEST_PRICE:
        raise RequestError(
            f"the price of an hour (--price) must lie between 0 and {LARGEST_PRICE:g}, got "
            f"{price:g}"
        )
    require_plain(home)
    notes: list[str] = []
    corpus, ground = prepare_ground(experiment, home, say=notes.append)
    proposer = SweepProposer(experiment, ground, question=question)
    require_certified(proposer)
    if (home / FILE_NAME).exists():
        with contextlib.closing(Ledger(home)) as ledger:
            recorded = ledger.trials(experiment.name) if ledger.find_sweep(experiment.name) else []
            known = _Known(recorded, ledger.throughputs(), ledger.accepted)
            found = _plan(proposer, known, corpus)
    else:
        found = _plan(proposer, _Known(), corpus)
    shortage = find_shortage(home.resolve(), found.totals.disk_bytes)
    if shortage is not None:
        notes.append(f"{shortage}: the sweep would pause until there is room")
    return replace(found, price=price, notes=(*found.notes, *notes))


def _nothing_accepted(_config_hash: str) -> Outcome | None:
    return None


@dataclass(frozen=True)
class _Known:
    """What a home knows."""

    recorded: Sequence[TrialRecord] = ()
    measured: Sequence[Throughput] = ()
    accepted: Callable[[str], Outcome | None] = _nothing_accepted


def _plan(proposer: SweepProposer, known: _Known, corpus: Corpus) -> Plan:
    experiment = proposer.experiment
    measured = _measured_here(experiment, known.measured)
    reasons = {record.config_hash: proposer.why_set_aside(record) for record in known.recorded}
    records = [_as_begun(experiment, each, reasons[each.config_hash]) for each in known.recorded]
    trials = [
        _planned(experiment, record, *_fate(record), measured)
        for record in records
        if record.set_aside is None
    ]
    while isinstance(answer := proposer.next(records, foresee=True), Proposed):
        for proposal in answer.proposals:
            outcome = _usable(known.accepted(proposal.config_hash), proposer, proposal)
            record = planned_record(proposal, number=len(records), known=outcome)
            fate: Fate = "open" if proposer.depends_on_results(proposal, records) else "new"
            why = _why(proposal, experiment)
            if outcome is not None:
                fate, why = "reused", "this home has its result"
            records.append(record)
            trials.append(_planned(experiment, record, fate, why, measured))
    hours = spent_hours(known.recorded, now=time.time())
    ended = answer.why if isinstance(answer, Capped | Done) else _fewer(experiment, records)
    return Plan(
        experiment=experiment,
        trials=tuple(trials),
        stopped_by=ended or _hours_cap(experiment, trials, hours),
        spent_hours=hours,
        price=None,
        corpus=corpus,
        ground=proposer.ground,
        notes=tuple(set_aside_in_words(reasons)),
    )


def _fewer(experiment: Experiment, records: Sequence[TrialRecord]) -> str | None:
    """Why nothing more is foreseen although trials are asked for."""
    counted = sum(record.set_aside is None for record in records)
    if counted >= experiment.trials:
        return None
    return (
        f"{counted} of {experiment.trials} trials: what comes then is decided by results, or no "
        f"further configuration of these axes fits"
    )


def _as_begun(experiment: Experiment, record: TrialRecord, reason: str | None) -> TrialRecord:
    """A record as a sweep that begins now would have it."""
    if record.state == "pruned" and experiment.pruning.rule == "none":  # will be trained whole
        return replace(record, set_aside=reason, state="preempted", outcome=None)
    return replace(record, set_aside=reason)


def _usable(outcome: Outcome | None, proposer: SweepProposer, proposal: Proposal) -> Outcome | None:
    """An outcome of the home, unless it is an early end that will not do for this trial."""
    if outcome is not None and outcome.status == "pruned" and not proposer.may_prune(proposal):
        return None
    return outcome


def _measured_here(experiment: Experiment, measured: Sequence[Throughput]) -> list[Throughput]:
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
    if is_pending(record):
        return "waiting", f"{record.state}, attempt {len(record.attempts)}"
    reason = record.outcome.reason if record.outcome else None
    return "done", record.state + (f": {reason}" if reason else "")


def _why(proposal: Proposal, experiment: Experiment) -> str:
    """What a new trial is for."""
    if experiment.search.goal == "ablation":
        base = base_point(proposal.arm, cell_axes(experiment, proposal.arm))
        seed = proposal.config.data_seed
        return f"ablation: {varied(proposal.axes, base)}, data seed {seed}"
    if proposal.purpose == "baseline":
        return "baseline of its arm"
    if proposal.purpose == "tuning":
        return _why_tuning(proposal, experiment)
    if proposal.purpose == "replicate":
        return "repeats a trial with other seeds"
    if experiment.search.goal == "law":
        return "for the law"
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
