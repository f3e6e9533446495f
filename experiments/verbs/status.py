"""``isoflop status``: what runs, what waits, what failed and why, and where the FLOPs went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from analysis.sweep.sweep_status import SweepStatus, status
from experiments.cli import EXIT_DONE
from experiments.command import print_json
from experiments.setup import SweepOptions, json_number, parse_sweep_options
from search.record.ledger import Ledger
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError

WATCH_SECONDS = 1.0
"""Between two looks at the ledger."""


@dataclass(frozen=True)
class StatusOptions(SweepOptions):
    """What a sweep has done and is doing."""

    watch: bool = False
    """Go on showing it until its driver has ended; on no terminal a line for every change."""


def run(argv: list[str]) -> int:
    """Print the status."""
    options, name = parse_sweep_options(StatusOptions, argv, verb="status")
    if options.watch:
        if options.json:
            raise RequestError("--watch is for a person and --json for a program; use one of both")
        watch(name, options.home)
        return EXIT_DONE
    found = status(name, options.home)
    if options.json:
        print_json(status_document(found))
    else:
        print_status(found)
    return EXIT_DONE


def watch(name: str, home: Path, *, seconds: float = WATCH_SECONDS) -> None:
    """Show a sweep again and again until no driver works on the home; reads alone.

    Raises `RequestError` where there is none.
    """
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console, said = Console(), ""
    display = Live(console=console, auto_refresh=False, transient=True)
    with display if console.is_terminal else nullcontext() as live:
        while True:
            is_driven = _is_driven(home)  # asked first: what it then reads is the last word
            found = status(name, home)
            if live is not None:
                shown = "\n".join(lines_of(found, most=console.height - 2))
                live.update(Text(shown, no_wrap=True, overflow="ellipsis"), refresh=True)
            elif (line := counts_in_words(found)) != said:
                print(line, flush=True)
                said = line
            if not is_driven:
                break
            time.sleep(seconds)
    if console.is_terminal:
        print("\n".join(lines_of(found, most=console.height - 2)))


def _is_driven(home: Path) -> bool:
    with closing(Ledger(home)) as ledger:
        holder = ledger.holder()
    return holder is not None and not holder.process.is_gone and not holder.has_ended


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
    print("\n".join(lines_of(found)))


def counts_in_words(found: SweepStatus) -> str:
    """How many trials stand how."""
    states: dict[str, int] = {}
    for record in found.trials:
        state = "set aside" if record.set_aside else record.state
        states[state] = states.get(state, 0) + 1
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    number, asked = len(found.trials), found.trials_asked
    return f"{found.sweep.name}: {number} of {asked} trials: {counts or 'none yet'}"


def lines_of(found: SweepStatus, *, most: int | None = None) -> list[str]:
    """The status line by line; of the trials no more than ``most`` lines leave room for, those that
    run first."""
    rest = [*_spending(found), *(f"cap: {cap}" for cap in found.caps)]
    open_trials = [
        record
        for record in found.trials
        if record.state not in ("complete", "reused") or record.set_aside
    ]
    open_trials.sort(key=lambda record: record.state != "running")
    room = len(open_trials) if most is None else max(1, most - len(rest) - 2)
    lines = ["  " + _line(record) for record in open_trials[:room]]
    if len(open_trials) > room:
        lines.append(f"  and {len(open_trials) - room} more")
    return [counts_in_words(found), *lines, *rest]


def _spending(found: SweepStatus) -> Iterator[str]:
    spent, behind = found.train_flops_spent, found.train_flops_behind_results
    yield f"training FLOPs: {spent:.4g} spent, {behind:.4g} behind results"
    by_purpose = found.train_flops_by_purpose.items()
    parts = [f"{purpose} {flops:.4g}" for purpose, flops in by_purpose if flops]
    if parts:
        yield (f"spent on: {', '.join(parts)}")
    total = sum(found.worker_seconds.values())
    if total:
        seconds = found.worker_seconds.items()
        shares = ", ".join(f"{what} {part / total:.0%}" for what, part in seconds)
        yield (f"worker time: {total / 60:.1f} min ({shares})")
    if found.speed.trials_per_worker_hour is not None:
        share = found.speed.median_utilization
        where = "of the bfloat16 peak while training (median, full FLOPs)"
        used = "" if share is None else f", {share:.1%} {where}"
        yield (f"speed: {found.speed.trials_per_worker_hour:.0f} trials a worker-hour{used}")
        by_width = found.speed.utilization_by_width.items()
        if by_width:
            yield (f"by width: {', '.join(f'{width}: {each:.1%}' for width, each in by_width)}")


def _line(record: TrialRecord) -> str:
    trial = _trial(record)
    where = f" on {trial['node']} (process {trial['pid']})" if trial["pid"] else ""
    reason = record.set_aside or trial["reason"]
    return (
        f"{trial['config_hash']} {trial['arm']}: {trial['state']}, step {trial['step']} of "
        f"{trial['steps']}, attempt {trial['attempts']}{where}" + (f": {reason}" if reason else "")
    )
