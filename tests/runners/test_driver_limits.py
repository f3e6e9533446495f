"""The driver at its limits: caps of FLOPs and hours stop it in order, pruning ends a trial."""

from __future__ import annotations

from pathlib import Path

from runners.pools.contract import Assignment, Report, StopReason
from search.limits.caps import committed_flops
from search.record.spending import spending
from search.record.trial import CurvePoint, Outcome, Progress
from tests.runners import test_driver
from tests.runners.test_driver import ScriptedPool, drive, finish
from tests.search.test_pruning import TRAINING
from tests.sweeps import toy_experiment


def test_the_flops_cap_stops_in_order_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    def script(assignment: Assignment) -> list[object]:
        return finish(assignment.config)

    capped = toy_experiment(trials=9, limits={"max_flops": 1.5e10})
    summary, ledger, _, _ = drive(tmp_path, capped, script)
    assert "limits.max_flops" in str(summary.stopped_by)
    records = ledger.trials("toy")
    assert 0 < len(records) < 9
    assert {record.state for record in records} == {"complete"}
    assert committed_flops(records) <= 1.5e10
    again, _, pool, _ = drive(tmp_path, capped, script)
    assert (again.num_run, pool.assignments) == (0, [])
    assert again.stopped_by
    free, ledger, _, _ = drive(tmp_path, toy_experiment(trials=9), script)
    assert free.stopped_by is None
    assert len(ledger.trials("toy")) == 9


def test_the_hours_cap_saves_what_runs_and_starts_nothing_more(tmp_path: Path, monkeypatch) -> None:
    experiment = toy_experiment(trials=9, limits={"max_hours": 1.0})
    monkeypatch.setattr(
        "search.propose.proposer.spent_hours", lambda records, now: 2.0 * bool(list(records))
    )
    summary, ledger, pool, _ = drive(tmp_path, experiment, lambda each: finish(each.config))
    assert "limits.max_hours" in str(summary.stopped_by)
    assert not summary.interrupted
    assert len(pool.stopped) == len(pool.assignments) == 2
    assert {record.state for record in ledger.trials("toy")} == {"preempted"}
    free, ledger, _, _ = drive(tmp_path, toy_experiment(trials=9), lambda each: finish(each.config))
    assert free.stopped_by is None
    assert {record.state for record in ledger.trials("toy")} == {"complete"}


class PrunedPool(ScriptedPool):
    """Stops at once, after half of the tokens."""

    def stop(self, attempt_id: int, reason: StopReason) -> None:
        self.stopped.append(attempt_id)
        config = next(a.config for a in self.assignments if a.attempt_id == attempt_id)
        ended = Outcome(status=reason, tokens=config.tokens // 2, steps=config.num_steps // 2)
        rest = [report for report in self._pending if report.attempt_id != attempt_id]
        last = Report(attempt_id=attempt_id, node="n", pid=1, content=ended)
        self._pending = [last, *rest]


def test_a_pruned_trial_is_no_result_and_its_flops_are_spent(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(test_driver, "ScriptedPool", PrunedPool)
    experiment = toy_experiment(
        trials=9,
        arms=["dual"],
        budget={"train_flops": [2e9]},
        training=TRAINING,
        pruning={"rule": "median", "startup_trials": 3},
    )
    order: list[str] = []

    def script(assignment: Assignment) -> list[object]:
        config = assignment.config
        order.append(config.config_hash)
        loss = float(len(order))  # each is worse than all before
        point = CurvePoint(step=1, tokens=config.tokens // 2, train_flops=0, val_loss_nats=loss + 1)
        half = Progress(
            step=config.num_steps // 2,
            steps=config.num_steps,
            tokens=config.tokens // 2,
            resumed_tokens=0,
            curve=(point,),
        )
        done = Outcome(
            status="complete",
            loss_nats=loss,
            steps=config.num_steps,
            tokens=config.tokens,
            curve=(point,),
        )
        return [half, done]

    summary, ledger, pool, _ = drive(tmp_path, experiment, script)
    records = {record.config_hash: record for record in ledger.trials("toy")}
    pruned = [record for record in records.values() if record.state == "pruned"]
    assert summary.num_run == 9
    assert len(pruned) == len(pool.stopped) >= 3
    assert not any(record.is_result for record in pruned)
    assert all(record.outcome and record.outcome.loss_nats is None for record in pruned)
    half = [
        record.proposal.train_flops_per_token * (record.proposal.config.tokens // 2)
        for record in pruned
    ]
    assert spending(records.values())["pruned"] == sum(half)
