"""How does a sweep stand? What runs, what failed and why, and where FLOPs and time went.

`isoflop.status` is `status`; ``isoflop status`` prints what it returns.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search.asked.settings import LimitSettings
from search.limits.caps import caps_in_words
from search.record.ledger import Ledger
from search.record.spending import Speed, SpentOn, speed, spending, worker_seconds
from search.record.trial_records import SweepRecord, TrialRecord
from spaces.shown import Block, Shown, Table


@dataclass(frozen=True, kw_only=True)
class SweepStatus(Shown):
    """A sweep as its ledger has it."""

    sweep: SweepRecord
    trials_asked: int
    """Of the whole sweep, when it last ran, command line included."""
    trials: tuple[TrialRecord, ...]
    """Every trial, in order of proposal."""
    train_flops_by_purpose: dict[SpentOn, float]
    """Spent by its own attempts, in its convention."""
    train_flops_behind_results: int
    """Of the trials that count."""
    worker_seconds: dict[str, float]
    """Of its workers, by what they did."""
    speed: Speed
    """How fast its results came."""
    caps: tuple[str, ...]
    """How much of each cap is gone, in words."""

    @property
    def train_flops_spent(self) -> float:
        """All that its attempts spent."""
        return sum(self.train_flops_by_purpose.values())

    def blocks(self) -> list[Block]:
        """Counts by state, what was spent, and each trial that has no result."""
        counts = Counter("set aside" if each.set_aside else each.state for each in self.trials)
        states = ", ".join(f"{number} {state}" for state, number in counts.items()) or "none yet"
        return [
            f"{self.sweep.name}: {len(self.trials)} of {self.trials_asked} trials: {states}",
            f"training FLOPs: {self.train_flops_spent:.4g} spent, "
            f"{self.train_flops_behind_results:.4g} behind results",
            *(f"cap: {cap}" for cap in self.caps),
            Table(
                caption="trials without a result",
                columns=("trial", "arm", "state", "why"),
                rows=tuple(
                    (each.config_hash, each.proposal.arm, each.state, each.set_aside or each.reason)
                    for each in self.trials
                    if each.set_aside or not each.is_result
                ),
            ),
        ]


def status(sweep: str, home: Path | str = "runs") -> SweepStatus:
    """The status of a sweep of a home. Raises `RequestError` where there is none."""
    with contextlib.closing(Ledger(Path(home))) as ledger:
        return status_of(ledger.sweep(sweep), ledger.trials(sweep))


def status_of(sweep: SweepRecord, records: Sequence[TrialRecord]) -> SweepStatus:
    """The status that records give."""
    asked = json.loads(sweep.experiment_json)  # another version of the code may have written it
    caps = {name: asked["limits"].get(name) for name in ("max_flops", "max_hours")}
    counted = sum(record.set_aside is None for record in records)
    to_come = tuple(asked["budget"]["train_flops"]) if counted < asked["trials"] else ()
    return SweepStatus(
        sweep=sweep,
        trials_asked=asked["trials"],
        trials=tuple(records),
        train_flops_by_purpose=spending(records),
        train_flops_behind_results=sum(r.proposal.train_flops for r in records if r.is_result),
        worker_seconds=worker_seconds(records),
        speed=speed(records),
        caps=tuple(
            caps_in_words(LimitSettings.model_construct(**caps), records, to_come, now=time.time())
        ),
    )
