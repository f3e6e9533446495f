"""The driver over a scripted pool: what it hands out, writes down and gives up on."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.driver import Driver, SweepEvent, SweepSummary
from runners.machine.disk import Shortage
from runners.pools.contract import Assignment, Report, StopReason, WorkerLost
from runners.sweep import driver_settings
from search.asked.experiment import Experiment
from search.propose.proposer import SweepProposer
from search.record.ledger import Ledger
from search.record.ledger_errors import DiskFull
from search.record.trial import Outcome, Progress, TrialConfig
from tests.sweeps import GROUND, open_ledger, toy_experiment, toy_proposals


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

    def has_place(self, assignment: Assignment | None = None) -> bool:
        return len({report.attempt_id for report in self._pending}) < self.num_workers

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

    @property
    def outage(self) -> str | None:
        """None is ever simulated."""
        return None

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
    say: Callable[[str], None] = lambda _: None,
    pool_class: type[ScriptedPool] | None = None,
) -> tuple[SweepSummary, Ledger, ScriptedPool, list[SweepEvent]]:
    ledger = open_ledger(home, experiment)
    pool, events = (pool_class or ScriptedPool)(script), list[SweepEvent]()
    driver = Driver(
        sweep=experiment.name,
        ledger=ledger,
        proposer=SweepProposer(experiment, GROUND),
        pool=pool,
        settings=driver_settings(experiment),
        folder=home / "sweeps",
        watch=events.append,
        say=say,
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


def test_machines_that_go_are_not_charged_to_a_trial(tmp_path: Path) -> None:
    lost = [[WorkerLost(reason="its node died", with_its_machine=True)]] * 5
    scripts = iter(lost)
    summary, ledger, _, _ = drive(
        tmp_path, toy_experiment(trials=1), lambda each: next(scripts, None) or finish(each.config)
    )
    (record,) = ledger.trials("toy")
    assert [each.state for each in record.attempts] == ["preempted"] * 5 + ["complete"]
    assert (summary.num_failed, summary.num_lost) == (0, 5)


def test_without_machines_a_sweep_ends_and_says_why(tmp_path: Path) -> None:
    class Deserted(ScriptedPool):
        num_looks = 0

        @property
        def num_workers(self) -> int:
            return 0

        @property
        def outage(self) -> str | None:
            self.num_looks += 1
            return "no machine left" if self.num_looks > 3 else None

    summary, ledger, pool, _ = drive(
        tmp_path, toy_experiment(trials=1), lambda _: [], pool_class=Deserted
    )
    assert summary.notes == ["no machine left"]
    assert pool.assignments == []
    assert all(not record.attempts for record in ledger.trials("toy"))


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


def test_the_same_error_five_times_in_a_row_ends_the_sweep(tmp_path: Path) -> None:
    def failing(assignment: Assignment) -> list[object]:
        return [Outcome(status="failed", reason="no such operator")]

    experiment = toy_experiment(trials=12)
    summary, ledger, _, _ = drive(tmp_path, experiment, failing)
    ledger.close()
    assert summary.num_run in (5, 6)  # a second worker was at it already
    assert "5 trials in a row failed" in summary.notes[0]
    assert "no such operator" in summary.notes[0]
    again, ledger, _, _ = drive(tmp_path, experiment, lambda each: finish(each.config))
    assert again.num_run == 12 - summary.num_run
    assert not again.notes
    assert ledger.reopen("toy", "failed") == summary.num_run
    ledger.close()
    retried, ledger, _, _ = drive(tmp_path, experiment, lambda each: finish(each.config))
    assert retried.num_run == summary.num_run
    assert [record.state for record in ledger.trials("toy")] == ["complete"] * 12


def test_another_try_has_all_its_attempts_again(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=1)
    for count in (3, 6):
        summary, ledger, _, _ = drive(
            tmp_path, experiment, lambda _: [WorkerLost(reason="the node was taken back")]
        )
        assert summary.num_lost == 3
        assert len(ledger.trials("toy")[0].attempts) == count
        assert ledger.reopen("toy", "failed") == 1
        ledger.close()


def test_a_trial_that_another_sweep_finished_meanwhile_is_not_run_again(tmp_path: Path) -> None:
    asked = iter([False, True])
    experiment = toy_experiment(trials=4)
    other = experiment.model_copy(update={"name": "other"})
    _, ledger, _, _ = drive(
        tmp_path,
        experiment,
        lambda each: finish(each.config),
        should_stop=lambda: next(asked, True),
    )
    ledger.close()
    finished, ledger, _, _ = drive(tmp_path, other, lambda each: finish(each.config))
    ledger.close()
    assert finished.num_run == 4
    summary, ledger, _, _ = drive(tmp_path, experiment, lambda each: finish(each.config))
    assert (summary.num_run, summary.num_reused) == (0, 2)  # two were proposed before the stop
    assert [record.state for record in ledger.trials("toy")] == ["reused"] * 4


def test_a_silent_worker_is_given_up_and_what_it_says_late_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.driver.POLL_SECONDS", 0.01)
    monkeypatch.setattr("runners.driver.START_SECONDS", 0.3)
    experiment = toy_experiment(
        trials=1, workers={"pool": "inline", "device": "cpu", "silence_seconds": 0.2}
    )
    pools: list[ScriptedPool] = []

    class Sleepy(ScriptedPool):
        """The first attempt says nothing until it is given up, then everything at once."""

        def has_place(self, assignment: Assignment | None = None) -> bool:
            pools[:] = [self]
            return len(self.assignments) == len(self.abandoned)

        def assign(self, assignment: Assignment) -> None:
            self.assignments.append(assignment)
            if len(self.assignments) > 1:
                for attempt in self.assignments:
                    for content in finish(attempt.config, loss_nats=float(attempt.attempt_id)):
                        self._pending.append(
                            Report(attempt_id=attempt.attempt_id, node="n", pid=1, content=content)  # type: ignore[arg-type]
                        )

        def reports(self, *, timeout_seconds: float) -> list[Report]:
            time.sleep(timeout_seconds)
            return super().reports(timeout_seconds=timeout_seconds)

    summary, ledger, _, events = drive(tmp_path, experiment, lambda _: [], pool_class=Sleepy)
    (record,) = ledger.trials("toy")
    assert [each.state for each in record.attempts] == ["lost", "complete"]
    assert record.attempts[0].reason == "its worker said nothing for 0.3 s"
    assert record.outcome is not None
    assert record.outcome.loss_nats == record.attempts[1].id
    (late,) = ledger.stale_outcomes()
    assert (late.attempt_number, late.conflict) == (1, False)
    assert [event.kind for event in events].count("stale") == 1
    assert summary.num_lost == 1
    assert pools[0].abandoned == [record.attempts[0].id]


def test_without_room_the_sweep_pauses_with_a_number_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.driver.POLL_SECONDS", 0.01)
    lacking = iter([True, True, True])

    def find(folder: Path, needed_bytes: int) -> Shortage | None:
        short = Shortage(folder=folder, needed_bytes=needed_bytes, free_bytes=12_000)
        return short if next(lacking, False) else None

    monkeypatch.setattr("runners.driver.find_shortage", find)
    said: list[str] = []
    summary, ledger, _, _ = drive(
        tmp_path, toy_experiment(trials=2), lambda each: finish(each.config), say=said.append
    )
    assert summary.num_run == 2
    assert len(said) == 1
    assert re.fullmatch(r"paused: .*/sweeps needs [\d.]+ MB and has 0.0 MB free; .*", said[0])
    assert all(record.is_result for record in ledger.trials("toy"))


def test_a_write_without_room_is_made_when_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.driver.POLL_SECONDS", 0.01)
    accept, failures = Ledger.accept, iter([True, True])

    def full(self: Ledger, *words: object, **named: object) -> object:
        if next(failures, False):
            raise DiskFull("the ledger needs up to 1 MB")
        return accept(self, *words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Ledger, "accept", full)
    said: list[str] = []
    _, ledger, _, _ = drive(
        tmp_path, toy_experiment(trials=1), lambda each: finish(each.config), say=said.append
    )
    assert said == ["paused: the ledger needs up to 1 MB"]
    assert [record.state for record in ledger.trials("toy")] == ["complete"]


def test_drivers_that_die_do_not_count_against_a_trial(tmp_path: Path) -> None:
    experiment = toy_experiment(trials=1)
    ledger = open_ledger(tmp_path, experiment)
    (proposal,) = toy_proposals(tmp_path, 1)
    ledger.add_trial("toy", proposal)
    for _ in range(5):
        ledger.start_attempt("toy", proposal.config_hash)
        assert ledger.fence_all(reason="its driver is gone") == 1
    ledger.close()
    scripts = iter([[WorkerLost(reason="killed")]])
    _, ledger, _, _ = drive(
        tmp_path, experiment, lambda each: next(scripts, None) or finish(each.config)
    )
    (record,) = ledger.trials("toy")
    assert [each.state for each in record.attempts] == ["preempted"] * 5 + ["lost", "complete"]


def test_a_lost_trial_keeps_its_curve_and_its_flops(tmp_path: Path) -> None:
    def script(assignment: Assignment) -> list[object]:
        progress = finish(assignment.config)[0]
        return [progress, WorkerLost(reason="killed")]

    _, ledger, _, _ = drive(tmp_path, toy_experiment(trials=1), script)
    (record,) = ledger.trials("toy")
    assert record.state == "failed"
    assert record.reason is not None
    half = record.proposal.config.tokens // 2 * record.proposal.train_flops_per_token
    assert [each.spent_flops for each in record.attempts] == [half] * 3


def test_an_edit_that_changes_no_configuration_keeps_its_results(tmp_path: Path) -> None:
    def asks(deep_multiplier: float) -> Experiment:
        axes = {"num_layers": [1, 2], "d_model": [16], "deep_multiplier": [deep_multiplier]}
        return toy_experiment(trials=4, arms=["standard"], axes=axes)

    first, second = asks(8 / 3), asks(2.6)  # both round to the same feed-forward
    summary, ledger, _, _ = drive(tmp_path, first, lambda each: finish(each.config))
    assert summary.num_run == 4
    proposer = SweepProposer(second, GROUND)
    reasons = {each.config_hash: proposer.why_set_aside(each) for each in ledger.trials("toy")}
    assert all(reasons.values())
    ledger.set_aside("toy", reasons)
    ledger.close()
    summary, ledger, _, _ = drive(tmp_path, second, lambda each: finish(each.config))
    assert summary.num_run == 0
    assert [each.is_result for each in ledger.trials("toy")] == [True] * 4


def test_other_seeds_set_trials_aside(tmp_path: Path) -> None:
    _, ledger, _, _ = drive(tmp_path, toy_experiment(trials=1), lambda each: finish(each.config))
    changed = toy_experiment(trials=1, seeds={"init": 5})
    why = SweepProposer(changed, GROUND).why_set_aside(ledger.trials("toy")[0])
    assert why == "changed since: init_seed"
