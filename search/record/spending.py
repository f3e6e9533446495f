"""Where did FLOPs and time go? Every attempt counts once; the parts sum to what was spent."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from search.record.ledger import Attempt, TrialRecord
from search.record.trial import FAILED_STATES

SpentOn = Literal["search", "tuning", "replicates", "pruned", "failed", "lost"]


def spending(records: Iterable[TrialRecord]) -> dict[SpentOn, float]:
    """Training FLOPs by purpose, in the sweep's convention.

    ``search`` holds baselines and what the sampler proposed; ``failed`` what failed tries took,
    though a later one succeeded; ``lost`` what died with a worker and was not resumed from; what
    another sweep of the home paid costs nothing here.
    """
    parts: dict[SpentOn, float] = dict.fromkeys(get_args(SpentOn), 0.0)
    for record in records:
        for attempt in record.own_attempts:
            parts[_part(record, attempt)] += attempt.spent_flops
    return parts


def busy_seconds(records: Iterable[TrialRecord], *, now: float | None = None) -> float:
    """Seconds that workers were on the sweep's own attempts, from hand-over to end.

    Attempts that a worker had side by side count once. Those that run end ``now`` (Unix seconds);
    without it they count nothing.
    """
    spans: dict[object, list[tuple[float, float]]] = {}
    for record in records:
        for attempt in record.own_attempts:
            ended = now if attempt.ended_at is None else attempt.ended_at
            if ended is not None:
                worker = attempt.id if attempt.pid is None else (attempt.node, attempt.pid)
                spans.setdefault(worker, []).append((attempt.started_at, ended))
    return sum(_covered(each) for each in spans.values())


def _covered(spans: list[tuple[float, float]]) -> float:
    """Length of the union of spans."""
    total, reached = 0.0, -math.inf
    for began, ended in sorted(spans):
        total += max(0.0, ended - max(began, reached))
        reached = max(reached, ended)
    return total


def worker_seconds(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Seconds that workers spent, from hand-over to the end of each attempt, by what they did.

    ``other`` is what outcomes do not tell apart: saving, reporting, attempts without an outcome.
    """
    parts = {"training": 0.0, "setup": 0.0, "measuring": 0.0}
    for record in records:
        if record.outcome is not None and record.is_own_outcome:
            own = 1 - record.outcome.trunk_tokens / max(1, record.outcome.tokens)
            parts["training"] += own * (record.outcome.wall_seconds or 0.0)
            parts["setup"] += record.outcome.setup_seconds or 0.0
            parts["measuring"] += record.outcome.measuring_seconds or 0.0
    return parts | {"other": max(0.0, busy_seconds(records) - sum(parts.values()))}


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast a sweep's own results came."""

    trials_per_worker_hour: float | None
    """Results over the hours that workers spent, failures and all; None without any."""
    median_utilization: float | None
    """Median share of the devices' bfloat16 peak while training, `full` FLOPs; None where no peak
    is known (every CPU)."""
    utilization_by_width: dict[int, float]
    """The same of each width's trials; empty where no peak is known."""


def speed(records: Sequence[TrialRecord]) -> Speed:
    """Of the trials that this sweep ran itself, set aside or not."""
    hours = sum(worker_seconds(records).values()) / 3600
    outcomes = [record.outcome for record in records if record.state == "complete"]
    shares: dict[int, list[float]] = {}
    for record in records:
        share = record.outcome.model_flops_utilization if record.outcome else None
        if record.state == "complete" and share is not None:
            shares.setdefault(record.proposal.config.architecture.d_model, []).append(share)
    known = [share for each in shares.values() for share in each]
    return Speed(
        trials_per_worker_hour=len(outcomes) / hours if hours and outcomes else None,
        median_utilization=statistics.median(known) if known else None,
        utilization_by_width={
            width: statistics.median(each) for width, each in sorted(shares.items())
        },
    )


def _part(record: TrialRecord, attempt: Attempt) -> SpentOn:
    if attempt.state == "lost":
        return "lost"
    if "pruned" in (attempt.state, record.state):
        return "pruned"
    if attempt.state == "failed" or record.state in FAILED_STATES:
        return "failed"
    if record.proposal.purpose == "replicate":
        return "replicates"
    return "tuning" if record.proposal.purpose == "tuning" else "search"
