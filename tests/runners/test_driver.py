"""The driver over a scripted pool: what it hands out, writes down and gives up on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from runners.driver import Driver, SweepEvent, SweepSummary
from runners.pool import Assignment, Report, StopReason, WorkerLost
from search.experiment import Experiment
from search.ledger import Ledger
from search.proposer import Proposer
from search.trial import Outcome, Progress, TrialConfig
from tests.sweeps import GROUND, open_ledger, toy_experiment


class ScriptedPool:
    """Answers every assignment with what a script says."""

    def __init__(self, script: Callable[[Assignment], list[object]]) -> None:
        self._script = script
        self._pending: list[Report] = []
        self.assignments: list[Assignment] = []
        self.stopped: list[int] = []
        self.abandoned: list[int] = []

    @property
    def num_workers(self) -> int:
        return 2

    def num_free(self) -> int:
        return self.num_workers - len({report.attempt_id for report in self._pending})

    def assign(self, assignment: Assignment) -> None:
        self.assignments.append(assignment)
        for content in self._script(assignment):
            self._pending.append(
                Report(attempt_id=assignment.attempt_id, node="n", pid=1, content=content)  # type: ignore[arg-type]
            )

    def reports(self, *, timeout_seconds: float) -> list[Report]:
        return [self._pending.pop(0)] if self._pending else []

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        self.stopped.append(attempt_id)
        self._pending = [
            Report(attempt_id=attempt_id, node="n", pid=1, content=Outcome(status=reason))
            if report.attempt_id == attempt_id
            else report
            for report in self._pending
        ]

    def abandon(self, attempt_id: int) -> None:
        self.abandoned.append(attempt_id)

    def close(self) -> None:
        self._pending = []


def finish(config: TrialConfig, *, loss_nats: float = 3.0) -> list[object]:
    """Progress half-way, then a result."""
    half = Progress(
        step=config.num_steps // 2,
        steps=config.num_steps,
        tokens=config.tokens // 2,
        resumed_tokens=0,
    )
    return [
        half,
        Outcome(
            status="complete", loss_nats=loss_nats, steps=config.num_steps, tokens=config.tokens
        ),
    ]


def drive(
    home: Path,
    experiment: Experiment,
    script: Callable[[Assignment], list[object]],
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[SweepSummary, Ledger, ScriptedPool, list[SweepEvent]]:
    ledger = open_ledger(home, experiment)
    pool, events, said = ScriptedPool(script), list[SweepEvent](), list[str]()
    driver = Driver(
        sweep=experiment.name,
        ledger=ledger,
        proposer=Proposer(experiment, GROUND),
        pool=pool,
        folder=home / "sweeps",
        watch=events.append,
        say=said.append,
        should_stop=should_stop,
    )
    return driver.run(), ledger, pool, events


def test_every_trial_is_run_once_and_none_again(tmp_path: Path) -> None:
    def script(assignment: Assignment) -> list[object]:
        return finish(assignment.config)

    summary, ledger, pool, events = drive(tmp_path, toy_experiment(trials=6), script)
    assert summary.num_run == 6
    records = ledger.trials("toy")
    assert [record.state for record in records] == ["complete"] * 6
    assert len({each.config.config_hash for each in pool.assignments}) == 6
    assert [event.kind for event in events].count("finished") == 6
    summary, _, pool, _ = drive(tmp_path, toy_experiment(trials=6), script)
    assert (summary.num_run, pool.assignments) == (0, [])
    summary, ledger, pool, _ = drive(tmp_path, toy_experiment(trials=9), script)
    assert (summary.num_run, len(pool.assignments)) == (3, 3)
    assert len(ledger.trials("toy")) == 9


def test_flops_of_attempts_add_up(tmp_path: Path) -> None:
    _, ledger, _, _ = drive(
        tmp_path, toy_experiment(trials=4), lambda assignment: finish(assignment.config)
    )
    for record in ledger.trials("toy"):
        (attempt,) = record.attempts
        assert attempt.spent_flops == record.proposal.train_flops


def test_a_lost_worker_costs_an_attempt_and_then_the_trial(tmp_path: Path) -> None:
    tries: dict[str, int] = {}

    def script(assignment: Assignment) -> list[object]:
        key = assignment.config.config_hash
        tries[key] = tries.get(key, 0) + 1
        doomed = key == min(tries)
        if tries[key] == 1 or doomed:
            return [WorkerLost(reason="killed")]
        return finish(assignment.config)

    summary, ledger, _, _ = drive(tmp_path, toy_experiment(trials=1), script)
    (record,) = ledger.trials("toy")
    assert record.state == "failed"
    assert summary.num_lost == 3
    assert record.outcome is not None
    assert "workers.max_attempts is 3" in (record.outcome.reason or "")
    assert [attempt.state for attempt in record.attempts] == ["lost", "lost", "failed"]


def test_a_stop_preempts_what_runs_and_the_next_command_goes_on(tmp_path: Path) -> None:
    asked = iter([False, True])
    summary, ledger, pool, _ = drive(
        tmp_path,
        toy_experiment(trials=4),
        lambda assignment: finish(assignment.config),
        should_stop=lambda: next(asked, True),
    )
    assert summary.interrupted
    assert len(pool.stopped) == 2
    assert [record.state for record in ledger.trials("toy")] == ["preempted"] * 2
    summary, ledger, _, _ = drive(
        tmp_path, toy_experiment(trials=4), lambda assignment: finish(assignment.config)
    )
    assert summary.num_run == 4
    assert all(record.is_result for record in ledger.trials("toy"))


def test_failures_are_kept_with_their_reason_and_not_repeated(tmp_path: Path) -> None:
    def script(assignment: Assignment) -> list[object]:
        return [Outcome(status="diverged", reason="loss rose", steps=3, tokens=96)]

    _, ledger, pool, _ = drive(tmp_path, toy_experiment(trials=3), script)
    records = ledger.trials("toy")
    assert [record.state for record in records] == ["diverged"] * 3
    assert len({each.config.config_hash for each in pool.assignments}) == 3
    assert all(record.outcome and record.outcome.reason == "loss rose" for record in records)
    assert not any(record.is_result for record in records)
