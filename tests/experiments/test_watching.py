"""The live table: right at 80 and at 160 columns, with a thousand trials, four updates a second."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import pytest
from rich.console import Console
from rich.text import Text

from experiments import watching
from experiments.watching import Watcher
from runners.driver import SweepEvent
from tests.search.records import attempt_of, record_of
from tests.sweeps import toy_proposals

HEIGHT = 24


@pytest.fixture
def events(tmp_path):
    """A thousand trials that run."""
    proposals = itertools.cycle(toy_proposals(tmp_path, 4))
    running = (attempt_of("running", spent=0.0),)
    return [
        SweepEvent(
            record=replace(
                record_of(proposal, 2.5, number=number),
                proposal=replace(proposal, config=replace(proposal.config, init_seed=number)),
                state="running",
                outcome=None,
                attempts=running,
            ),
            kind="progress",
            steps=12345,
        )
        for number, proposal in zip(range(1000), proposals, strict=False)
    ]


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, height=HEIGHT)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_thousand_trials_fit_a_screen(width, events):
    console = terminal(width)
    watcher = Watcher(trials=1000, console=console)
    for event in events:
        watcher(event)
    with console.capture() as captured:
        console.print(watcher.table())
    lines = Text.from_ansi(captured.get()).plain.splitlines()
    shown = [line for line in lines if "#" in line]
    assert len(lines) < HEIGHT
    assert len(shown) == HEIGHT - 4
    assert all(len(line.rstrip()) <= width for line in lines)
    assert all(
        "/12345" in line and event.record.proposal.arm in line
        for line, event in zip(shown, events, strict=False)
    )
    assert f"and {1000 - len(shown)} more that run" in lines[-1]
    assert "1000 running of 1000" in lines[0]


def test_ends_are_printed_together_not_one_by_one(events, monkeypatch):
    now = 100.0
    monkeypatch.setattr(watching.time, "monotonic", lambda: now)
    console = terminal(160)
    prints = []
    monkeypatch.setattr(console, "print", lambda text, **_: prints.append(text))
    with Watcher(trials=1000, console=console) as watcher:
        for event in events:
            now += 0.001
            watcher(replace(event, kind="finished"))
    assert len(prints) <= 2 + watching.UPDATES_PER_SECOND / 2
    assert sum(text.count("finished") for text in prints) == 1000


def test_a_users_brackets_are_no_markup(events):
    console = terminal(80)
    with Watcher(trials=1000, console=console) as watcher:
        watcher(replace(events[0], kind="lost", note="[bold]gone[/bold]"))
    assert "[bold]gone" in console.file.getvalue().replace("\n", " ")
