"""``isoflop status``: what runs, what waits, what failed and why, and where the FLOPs went."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from analysis.sweep.sweep_status import SweepStatus, status
from experiments.command import parse_options, print_json
from experiments.setup import SweepOptions, json_number, sweep_name
from search.record.trial_records import TrialRecord


@dataclass(frozen=True)
class StatusOptions(SweepOptions):
    """What a sweep has done and is doing."""


def run(argv: list[str]) -> int:
    """Print the status."""
    options = parse_options(StatusOptions, argv, verb="status")
    found = status(sweep_name(options.experiment), options.home)
    if options.json:
        print_json(status_document(found))
    else:
        print_status(found)
    return 0


def status_document(found: SweepStatus) -> dict[str, Any]:
    """The status as JSON."""
    parts = {name: json_number(flops) for name, flops in found.train_flops_by_purpose.items()}
    return {
        "trials_asked": found.trials_asked,
        "trials": [_trial(record) for record in found.trials],
        "flops": {
            "spent": json_number(found.train_flops_spent),
            "counted": found.train_flops_behind_results,
            "by_purpose": parts,
        },
        "worker_seconds": found.worker_seconds,
        "speed": asdict(found.speed),
        "caps": list(found.caps),
    }


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


def print_status(found: SweepStatus) -> None:
    """The status for a person: counts, every trial that is not simply complete, FLOPs and caps."""
    states: dict[str, int] = {}
    for record in found.trials:
        state = "set aside" if record.set_aside else record.state
        states[state] = states.get(state, 0) + 1
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    number, asked = len(found.trials), found.trials_asked
    print(f"{found.sweep.name}: {number} of {asked} trials: {counts or 'none yet'}")
    for record in found.trials:
        if record.state not in ("complete", "reused") or record.set_aside:
            print("  " + _line(record))
    _print_spending(found)
    for cap in found.caps:
        print(f"cap: {cap}")


def _print_spending(found: SweepStatus) -> None:
    spent, behind = found.train_flops_spent, found.train_flops_behind_results
    print(f"training FLOPs: {spent:.4g} spent, {behind:.4g} behind results")
    by_purpose = found.train_flops_by_purpose.items()
    parts = [f"{purpose} {flops:.4g}" for purpose, flops in by_purpose if flops]
    if parts:
        print(f"spent on: {', '.join(parts)}")
    total = sum(found.worker_seconds.values())
    if total:
        seconds = found.worker_seconds.items()
        shares = ", ".join(f"{what} {part / total:.0%}" for what, part in seconds)
        print(f"worker time: {total / 60:.1f} min ({shares})")
    if found.speed.trials_per_worker_hour is not None:
        share = found.speed.median_utilization
        where = "of the bfloat16 peak while training (median, full FLOPs)"
        used = "" if share is None else f", {share:.1%} {where}"
        print(f"speed: {found.speed.trials_per_worker_hour:.0f} trials a worker-hour{used}")
        by_width = found.speed.utilization_by_width.items()
        if by_width:
            print(f"by width: {', '.join(f'{width}: {each:.1%}' for width, each in by_width)}")


def _line(record: TrialRecord) -> str:
    trial = _trial(record)
    where = f" on {trial['node']} (process {trial['pid']})" if trial["pid"] else ""
    reason = record.set_aside or trial["reason"]
    return (
        f"{trial['config_hash']} {trial['arm']}: {trial['state']}, step {trial['step']} of "
        f"{trial['steps']}, attempt {trial['attempts']}{where}" + (f": {reason}" if reason else "")
    )
