"""``isoflop status``: what runs, what waits, what failed and why, and where the FLOPs went."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from experiments.command import parse_options, print_json
from experiments.setup import SweepOptions, json_number, open_sweep
from search.asked.settings import LimitSettings
from search.limits.caps import caps_in_words
from search.record.ledger import SweepRecord, TrialRecord
from search.record.spending import speed, spending, worker_seconds


@dataclass(frozen=True)
class StatusOptions(SweepOptions):
    """What a sweep has done and is doing."""


def run(argv: list[str]) -> int:
    """Print the status."""
    options = parse_options(StatusOptions, argv, verb="status")
    ledger, name = open_sweep(options)
    asked, records = asked_of(ledger.sweep(name)), ledger.trials(name)
    ledger.close()
    if options.json:
        print_json(status_document(asked, records))
    else:
        print_status(name, asked, records)
    return 0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the sweep was asked for when it last ran, command line included."""

    trials: int
    """Of the whole sweep."""
    budgets: tuple[float, ...]
    """Training FLOPs of each budget."""
    limits: LimitSettings
    """Of these, the caps."""


def asked_of(sweep: SweepRecord) -> Asked:
    """Read from what the ledger keeps, which another version of the code may have written."""
    stored = json.loads(sweep.experiment_json)
    caps = {name: stored["limits"].get(name) for name in ("max_flops", "max_hours")}
    return Asked(
        trials=stored["trials"],
        budgets=tuple(stored["budget"]["train_flops"]),
        limits=LimitSettings(**caps),
    )


def flops_of(records: list[TrialRecord]) -> dict[str, Any]:
    """Training FLOPs of a sweep: spent by its attempts (in all and by purpose), and counted by
    results."""
    parts = spending(records)
    return {
        "spent": json_number(sum(parts.values())),
        "counted": sum(record.proposal.train_flops for record in records if record.is_result),
        "by_purpose": {purpose: json_number(flops) for purpose, flops in parts.items()},
    }


def status_document(asked: Asked, records: list[TrialRecord]) -> dict[str, Any]:
    """The status as JSON."""
    return {
        "trials_asked": asked.trials,
        "trials": [_trial(record) for record in records],
        "flops": flops_of(records),
        "worker_seconds": worker_seconds(records),
        "speed": asdict(speed(records)),
        "caps": _caps(asked, records),
    }


def _caps(asked: Asked, records: list[TrialRecord]) -> list[str]:
    counted = sum(record.set_aside is None for record in records)
    to_come = asked.budgets if counted < asked.trials else ()
    return caps_in_words(asked.limits, records, to_come, now=time.time())


def _trial(record: TrialRecord) -> dict[str, Any]:
    last = record.attempts[-1] if record.attempts else None
    outcome = record.outcome
    return {
        "number": record.number,
        "config_hash": record.config_hash,
        "arm": record.proposal.arm,
        "purpose": record.proposal.purpose,
        "state": record.state,
        "set_aside": record.set_aside,
        "reason": (outcome.reason if outcome else None) or (last.reason if last else None),
        "attempts": len(record.attempts),
        "step": outcome.steps if outcome else (last.step if last else 0),
        "steps": record.proposal.config.num_steps,
        "pid": last.pid if last and last.state == "running" else None,
        "node": last.node if last and last.state == "running" else None,
    }


def print_status(name: str, asked: Asked, records: list[TrialRecord]) -> None:
    """The status for a person: counts, every trial that is not simply complete, FLOPs and caps."""
    states: dict[str, int] = {}
    for record in records:
        state = "set aside" if record.set_aside else record.state
        states[state] = states.get(state, 0) + 1
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    print(f"{name}: {len(records)} of {asked.trials} trials: {counts or 'none yet'}")
    for record in records:
        if record.state not in ("complete", "reused") or record.set_aside:
            print("  " + _line(record))
    flops = flops_of(records)
    print(f"training FLOPs: {flops['spent']:.4g} spent, {flops['counted']:.4g} behind results")
    parts = [f"{purpose} {spent:.4g}" for purpose, spent in flops["by_purpose"].items() if spent]
    if parts:
        print(f"spent on: {', '.join(parts)}")
    seconds = worker_seconds(records)
    total = sum(seconds.values())
    if total:
        shares = ", ".join(f"{what} {part / total:.0%}" for what, part in seconds.items())
        print(f"worker time: {total / 60:.1f} min ({shares})")
    found = speed(records)
    if found.trials_per_worker_hour is not None:
        share = found.median_utilization
        where = "of the bfloat16 peak while training (median, full FLOPs)"
        used = "" if share is None else f", {share:.1%} {where}"
        print(f"speed: {found.trials_per_worker_hour:.0f} trials a worker-hour{used}")
    for cap in _caps(asked, records):
        print(f"cap: {cap}")


def _line(record: TrialRecord) -> str:
    trial = _trial(record)
    where = f" on {trial['node']} (process {trial['pid']})" if trial["pid"] else ""
    reason = record.set_aside or trial["reason"]
    return (
        f"{trial['config_hash']} {trial['arm']}: {trial['state']}, step {trial['step']} of "
        f"{trial['steps']}, attempt {trial['attempts']}{where}" + (f": {reason}" if reason else "")
    )
