"""How much has a sweep spent, and may it spend more? FLOPs and worker-hours, counted from records.

What another sweep of the home paid costs this one nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from search.asked.settings import LimitSettings
from search.record.ledger import TrialRecord
from search.record.spending import busy_seconds
from search.record.trial import Proposal
from search.record.trial_records import is_pending

SECONDS_PER_HOUR = 3600.0


def spent_flops(record: TrialRecord) -> float:
    """Training FLOPs that the sweep's attempts at a trial spent, lost ones included."""
    return sum(attempt.spent_flops for attempt in record.own_attempts)


def committed_flops(records: Iterable[TrialRecord]) -> float:
    """Spent, plus what the trials that wait or run will have spent at most when they end."""
    total = 0.0
    for record in records:
        if is_pending(record):
            # a trial that starts again pays in full, besides what earlier attempts spent
            ended = [each for each in record.own_attempts if each.state != "running"]
            total += sum(each.spent_flops for each in ended) + record.proposal.train_flops
        else:
            total += spent_flops(record)
    return total


def spent_hours(records: Iterable[TrialRecord], *, now: float) -> float:
    """Worker-hours of all attempts; ``now`` (Unix seconds) ends those that run."""
    return busy_seconds(records, now=now) / SECONDS_PER_HOUR


def caps_in_words(
    limits: LimitSettings, records: Sequence[TrialRecord], budgets: Sequence[float], *, now: float
) -> list[str]:
    """How much of each cap is gone, and which of the ``budgets`` (FLOPs of trials that may be still
    to come) it no longer pays for."""
    words = []
    if limits.max_flops is not None:
        committed = committed_flops(records)
        text = (
            f"{committed:.4g} of limits.max_flops = {limits.max_flops:.4g} are spent or committed"
        )
        unpaid = [budget for budget in budgets if committed + budget > limits.max_flops]
        if unpaid:
            text += (
                f", which pays for no further trial of {min(unpaid):.3g}: the same command with a "
                f"higher cap goes on"
            )
        words.append(text)
    if limits.max_hours is not None:
        hours = spent_hours(records, now=now)
        words.append(
            f"{hours:.3g} of limits.max_hours = {limits.max_hours:g} worker-hours are spent"
        )
    return words


def why_not_start(
    limits: LimitSettings, records: Iterable[TrialRecord], proposal: Proposal
) -> str | None:
    """Why a trial that waits may not start, given what is spent and what runs; None if it may."""
    if limits.max_flops is None:
        return None
    started = 0.0
    for record in records:
        started += committed_flops([record]) if record.state == "running" else spent_flops(record)
    return flops_cap_reached(limits, started, float(proposal.train_flops))


def flops_cap_reached(limits: LimitSettings, committed: float, next_flops: float) -> str | None:
    """Why no trial of that cost may start; None where it may."""
    if limits.max_flops is None or committed + next_flops <= limits.max_flops:
        return None
    return (
        f"limits.max_flops is {limits.max_flops:.4g}: {committed:.4g} are spent or committed, and "
        f"the next trial costs {next_flops:.4g}"
    )


def hours_cap_reached(limits: LimitSettings, hours: float) -> str | None:
    """Why the sweep must stop now; None while it may go on."""
    if limits.max_hours is None or hours < limits.max_hours:
        return None
    return f"limits.max_hours is {limits.max_hours:g}, and {hours:.3g} worker-hours are spent"
