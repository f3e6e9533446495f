"""The whole way of the data: an experiment file, a sweep on real text, MLflow, the leaderboard."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from experiments.cli import run
from runners.mlflow.saved_view import local_tracking_uri
from runners.trial.training import run_in_turns
from search.record.ledger import Ledger
from search.record.numbers import configuration_numbers, outcome_numbers
from search.record.trial import Outcome, Progress, TrialConfig
from tests.experiments.toy import run_json, write_toy

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The toy experiment's file, and the home it was swept into."""
    folder = tmp_path_factory.mktemp("toy")
    toy, home = write_toy(folder), folder / "home"
    assert run(["sweep", toy, "--home", str(home)]) == 0
    return toy, home


def test_delivered_flops_are_the_budget(
    swept: tuple[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    toy, home = swept
    best = run_json(capfd, "best", toy, "--home", str(home), "--top", "0")
    entries = [
        (budget["target_train_flops"], entry)
        for budget in best["budgets"]
        for entry in budget["leaderboard"]
    ]
    assert len(entries) == 6
    for target, entry in entries:
        assert abs(entry["train_flops"] / target - 1) <= 1e-3
        assert entry["train_flops"] == 3 * entry["forward_flops_per_token"] * entry["tokens"]
    for budget in best["budgets"]:
        losses = [entry["loss_nats"] for entry in budget["leaderboard"]]
        assert losses == sorted(losses)
        assert max(losses) < 5.6  # better than a uniform guess over bytes


def test_an_architecture_of_the_leaderboard_is_certified_at_its_flops(
    swept: tuple[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    toy, home = swept
    best = run_json(capfd, "best", toy, "--home", str(home), "--top", "1")
    entry = best["budgets"][0]["leaderboard"][0]
    words = [
        word
        for name, value in entry["architecture"].items()
        if value is not None and not isinstance(value, bool)
        for word in (f"--{name.replace('_', '-')}", str(value))
    ]
    certificate = run_json(capfd, "flops", *words)
    assert certificate["agree"]
    assert certificate["forward_flops_per_token"]["full"] == entry["forward_flops_per_token"]
    assert certificate["parameters"]["total"] == entry["parameters"]


def test_the_same_command_runs_nothing_and_more_trials_run_only_those(
    swept: tuple[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    toy, home = swept
    before = run_json(capfd, "status", toy, "--home", str(home))
    assert run(["sweep", toy, "--home", str(home)]) == 0
    assert "0 trials run" in capfd.readouterr().err
    assert run_json(capfd, "status", toy, "--home", str(home)) == before
    assert run(["sweep", toy, "--home", str(home), "--trials", "8"]) == 0
    assert "2 trials run" in capfd.readouterr().err
    after = run_json(capfd, "status", toy, "--home", str(home))
    assert after["trials"][: len(before["trials"])] == before["trials"]
    assert len(after["trials"]) == 8
    assert after["flops"]["spent"] == after["flops"]["counted"]


def test_mlflow_equals_the_ledger_run_by_run(swept: tuple[str, Path]) -> None:
    _, home = swept
    ledger = Ledger(home)
    client = MlflowClient(tracking_uri=local_tracking_uri(home))
    for record in ledger.trials("toy"):
        assert record.mlflow_run_id is not None
        run_ = client.get_run(record.mlflow_run_id)
        numbers = configuration_numbers(record.proposal) | outcome_numbers(record.outcome)
        assert {name: run_.data.metrics[name] for name in numbers} == numbers
        assert run_.info.status == "FINISHED"
        assert run_.data.tags["isoflop.config_hash"] == record.config_hash
    ledger.close()


def test_a_changed_recipe_sets_trials_aside_and_says_so(
    swept: tuple[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    toy, home = swept
    capfd.readouterr()
    words = ["plan", toy, "--home", str(home), "--training.weight-decay", "0.3"]
    assert run(words) == 0
    said = capfd.readouterr().err
    assert "set aside" in said
    assert "training.weight_decay" in said


def fails_where(arm: str) -> Callable[..., Generator[Progress | Outcome | None]]:
    """Training with a bug in one arm."""

    def broken(
        config: TrialConfig, *rest: Any, **options: Any
    ) -> Generator[Progress | Outcome | None]:
        if config.architecture.arm == arm:
            raise RuntimeError(f"a bug in {arm}")
        return (yield from run_in_turns(config, *rest, **options))

    return broken


def test_what_failed_is_said_and_gets_another_try_if_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["sweep", write_toy(tmp_path), "--home", str(tmp_path / "home"), "--trials", "3"]

    monkeypatch.setattr("runners.pools.pack.run_in_turns", fails_where("wide"))
    assert run(words) == 1
    assert "1 failed" in capfd.readouterr().err
    monkeypatch.undo()
    assert run(words) == 0
    assert "0 trials run" in capfd.readouterr().err
    assert run([*words, "--retry-failed"]) == 0
    said = capfd.readouterr().err
    assert "1 failed trial: another try" in said
    assert "1 trials run" in said
    status = run_json(capfd, "status", *words[1:4])
    assert [trial["state"] for trial in status["trials"]] == ["complete"] * 3
    assert run(["doctor", "--home", words[3]]) == 0


def test_what_one_sweep_does_to_another_is_seen_in_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, home = write_toy(tmp_path), str(tmp_path / "home")
    other = tmp_path / "other.toml"
    other.write_text(Path(toy).read_text().replace('name = "toy"', 'name = "other"'))
    with monkeypatch.context() as patched:
        patched.setattr("runners.pools.pack.run_in_turns", fails_where("wide"))
        assert run(["sweep", toy, "--home", home, "--trials", "3"]) == 1
    assert run(["sweep", str(other), "--home", home, "--trials", "3", "--retry-failed"]) == 0
    ledger = Ledger(Path(home))
    wide = next(r.number for r in ledger.trials("toy") if r.proposal.arm == "wide")
    assert ledger.trials("toy")[wide].state == "failed"  # not of this sweep yet
    ledger.close()
    assert run(["sweep", str(other), "--home", home, "--trials", "3", "--retry-failed"]) == 0
    ledger = Ledger(Path(home))
    states = [record.state for record in ledger.trials("toy")]
    assert states.pop(wide) == "reused"
    assert states == ["complete", "complete"]
    ledger.close()
    assert run(["doctor", "--home", home]) == 0
