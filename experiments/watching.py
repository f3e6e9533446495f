"""What does a person see while a sweep runs? A live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

from search.record.trial_records import TrialRecord
from spaces.arms.contract import shape_in_words

if TYPE_CHECKING:
    from runners.driver import SweepEvent

LINE_SECONDS = 5.0
"""At most one progress line per trial in this time, where there is no terminal."""


class Watcher:
    """Shows the events of one sweep on standard error."""

    def __init__(self, *, trials: int) -> None:
        """``trials``: how many the sweep asks for in all."""
        self._asked = trials
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=True)
        self._on_terminal = self._console.is_terminal
        self._running: dict[str, SweepEvent] = {}
        self._states: dict[str, TrialRecord] = {}
        self._said: dict[str, float] = {}
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._on_terminal:
            self._live.stop()

    def begin(self, records: list[TrialRecord]) -> None:
        """Start showing, from what was there before this run."""
        self._states = {record.config_hash: record for record in records}
        if self._on_terminal:
            self._live.start()

    def __call__(self, event: SweepEvent) -> None:
        """Show one event."""
        key = event.record.config_hash
        self._states[key] = event.record
        if event.kind in ("started", "progress"):
            self._running[key] = event
        else:
            self._running.pop(key, None)
        if self._on_terminal:
            self._live.update(self._table())
        if event.kind in ("finished", "lost", "reused") or (
            not self._on_terminal and self._is_due(key)
        ):
            self._print(describe_event(event))

    def _is_due(self, key: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(key, -LINE_SECONDS) < LINE_SECONDS:
            return False
        self._said[key] = now
        return True

    def _print(self, line: str) -> None:
        done = sum(record.is_result for record in self._states.values())
        text = f"[{time.monotonic() - self._started:6.1f} s, {done}/{self._asked}] {line}"
        if self._on_terminal:
            self._console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _table(self) -> RenderableType:
        table = Table(box=None)
        for column in ("trial", "step", "loss (nats)"):
            table.add_column(column, justify="left" if column == "trial" else "right")
        for event in self._running.values():
            step = event.record.attempts[-1].step if event.record.attempts else 0
            table.add_row(
                describe_trial(event.record), f"{step}/{event.steps}", _latest_loss(event.record)
            )
        counts = Counter(record.state for record in self._states.values())
        summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        return Group(f"{summary} of {self._asked}", table)


def describe_event(event: SweepEvent) -> str:
    """One line: what happened to which trial."""
    record = event.record
    line = f"{event.kind:<8} {describe_trial(record)}"
    if event.kind == "finished" or (event.kind == "reused" and not record.is_result):
        line += f": {record.state}"
    if event.kind == "progress":
        line += f": step {record.attempts[-1].step}/{event.steps}"
    loss = _latest_loss(record)
    if loss:
        line += f", loss {loss} nats"
    return line + (f" ({event.note})" if event.note else "")


def describe_trial(record: TrialRecord) -> str:
    """Number, arm, budget and shape of a trial in a few words."""
    proposal, a = record.proposal, record.proposal.config.architecture
    budget = f"{proposal.budget.train_flops:.2g} FLOPs"
    return f"#{record.number:<3} {proposal.arm:<8} {budget} ({shape_in_words(a)})"


def _latest_loss(record: TrialRecord) -> str:
    if record.outcome is not None and record.outcome.loss_nats is not None:
        return f"{record.outcome.loss_nats:.4f}"
    for point in reversed(record.curve):
        if point.val_loss_nats is not None:
            return f"{point.val_loss_nats:.4f}"
    return ""
