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
from rich.text import Text

from search.record.trial_records import TrialRecord
from spaces.arms.contract import shape_in_words

if TYPE_CHECKING:
    from runners.driver import SweepEvent

LINE_SECONDS = 5.0
"""At most one progress line per trial in this time, where there is no terminal."""

UPDATES_PER_SECOND = 4
"""What a terminal is given at most; half are the table's own, half come with lines above it."""


class Watcher:
    """Shows the events of one sweep on standard error."""

    def __init__(self, *, trials: int, console: Console | None = None) -> None:
        """``trials``: how many the sweep asks for in all."""
        self._asked = trials
        self._console = console or Console(stderr=True)
        self._on_terminal = self._console.is_terminal
        self._running: dict[str, SweepEvent] = {}
        self._states: dict[str, TrialRecord] = {}
        self._said: dict[str, float] = {}
        self._waiting: list[str] = []
        self._printed = 0.0
        self._started = time.monotonic()
        self._live = Live(
            console=self._console,
            get_renderable=self.table,
            refresh_per_second=UPDATES_PER_SECOND / 2,
            transient=True,
        )

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
            self._print_waiting()

    def begin(self, records: list[TrialRecord]) -> None:
        """Start showing, from what was there before this run."""
        self._states = {record.config_hash: record for record in records}
        if self._on_terminal:
            self._live.start()

    def __call__(self, event: SweepEvent) -> None:
        """Show one event; on a terminal with those that came shortly before it."""
        key = event.record.config_hash
        self._states[key] = event.record
        if event.kind in ("started", "progress"):
            self._running[key] = event
        else:
            self._running.pop(key, None)
        if event.kind in ("finished", "lost", "reused") or (
            not self._on_terminal and self._is_due(key)
        ):
            self._say(describe_event(event))
        if time.monotonic() - self._printed >= 2 / UPDATES_PER_SECOND:
            self._print_waiting()

    def _is_due(self, key: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(key, -LINE_SECONDS) < LINE_SECONDS:
            return False
        self._said[key] = now
        return True

    def _say(self, line: str) -> None:
        done = sum(record.is_result for record in self._states.values())
        text = f"[{time.monotonic() - self._started:6.1f} s, {done}/{self._asked}] {line}"
        if self._on_terminal:
            self._waiting.append(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _print_waiting(self) -> None:
        if self._waiting:
            self._console.print("\n".join(self._waiting), highlight=False, markup=False)
            self._waiting.clear()
            self._printed = time.monotonic()

    def table(self) -> RenderableType:
        """How trials stand, and those that run: a line each, as many as the terminal is high."""
        counts = Counter(record.state for record in list(self._states.values()))
        summary = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        running = list(self._running.values())  # at once: the display's thread reads it too
        room = max(1, self._console.height - 4)
        table = Table(box=None, padding=(0, 1, 0, 0))
        for column in ("trial", "arm", "FLOPs"):
            table.add_column(column, no_wrap=True)
        table.add_column("shape")
        for column in ("step", "nats"):
            table.add_column(column, justify="right", no_wrap=True)
        for event in running[:room]:
            table.add_row(*_cells(event))
        hidden = [f"and {len(running) - room} more that run"] if len(running) > room else []
        return Group(_line(f"{summary} of {self._asked}"), table, *map(_line, hidden))


def _cells(event: SweepEvent) -> list[RenderableType]:
    """A running trial's row; only its shape gives way where the terminal is narrow."""
    record, proposal = event.record, event.record.proposal
    step = record.attempts[-1].step if record.attempts else 0
    return [
        f"#{record.number}",
        proposal.arm,
        f"{proposal.budget.train_flops:.2g}",
        _line(shape_in_words(proposal.config.architecture)),
        f"{step}/{event.steps}",
        _latest_loss(record),
    ]


def _line(text: str) -> Text:
    """Text that is cut where it would take a second line."""
    return Text(text, no_wrap=True, overflow="ellipsis")


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
