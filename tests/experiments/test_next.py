"""``isoflop next`` and ``isoflop sweep --until``: runs for a question, and when it is answered."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from experiments.answering import answers, results_in
from experiments.cli import run
from runners.driver import SweepSummary
from runners.ground import prepare_ground
from search.asked.experiment import load_experiment
from search.design.question import parse_question
from search.propose.contract import Done, Proposed
from search.propose.proposer import Ground
from search.record.ledger import Ledger
from tests.experiments.recorded import run_on_paper, write_experiment
from tests.experiments.toy import TOML, run_json
from tests.search.test_law_design import planted

pytestmark = pytest.mark.filterwarnings("default")  # MLflow's own


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("next")


@pytest.fixture(scope="module")
def file(folder) -> Path:
    path = write_experiment(folder, trials=90, budgets="[1e10, 2e10, 4e10, 8e10]")
    text = path.read_text().replace("learning_rate_multipliers = [0.5, 1, 2, 4]", "")
    path.write_text(text.replace("[search]", '[search]\ngoal = "law"\nsampler = "random"'))
    return path


@pytest.fixture(scope="module")
def ground(file, folder) -> Ground:
    return prepare_ground(load_experiment(str(file)), folder / "home")[1]


def test_the_next_runs_and_what_each_tells(file, folder, ground, capfd) -> None:
    home = str(folder / "home")
    arguments = ("next", str(file), "--home", home, "--runs", "4")
    document = run_json(capfd, *arguments)
    assert len(document["runs"]) == 4
    assert document["now"]["alpha"] is None  # nothing is known yet
    assert document["question"] is None
    asked = run_json(capfd, *arguments, "--question", "a +- 0.5")
    assert list(asked["now"]) == ["a"]
    assert 4 < asked["enough_after_runs"] < 90
    assert asked["enough_after_flops"] > 0
    assert run([*arguments, "--question", "a +- 0.5"]) == 0
    assert "a ± 0.5 is expected after" in capfd.readouterr().out
    assert run([*arguments, "--question", "gamma +- 1"]) == 2
    assert "a question has the form" in capfd.readouterr().err


def test_plan_names_the_cheapest_runs_for_a_question(file, folder, ground, capfd) -> None:
    document = run_json(
        capfd, "plan", str(file), "--home", str(folder / "home"), "--power", "a +- 0.5"
    )
    assert document["power"]["runs"] > 4
    assert document["power"]["train_flops"] > 0


def test_rounds_go_on_until_the_fit_agrees(file, folder, ground) -> None:
    experiment, home = load_experiment(str(file)), folder / "played"
    question, loss = parse_question("a +- 0.06"), planted(0.004)
    rounds = []
    with contextlib.closing(Ledger(home, create=True)) as ledger:
        ledger.record_sweep(
            experiment.name,
            experiment_json=experiment.model_dump_json(),
            text_fingerprint=ground.text_fingerprint,
            code_version="test",
        )

        def train(make_proposer) -> SweepSummary:
            proposer, count = make_proposer(experiment, ground), 0
            while isinstance(found := proposer.next(ledger.trials(experiment.name)), Proposed):
                run_on_paper(ledger, experiment.name, found.proposals[0], loss)
                count += 1
            assert isinstance(found, Done)
            return summary(count, found.why)

        rounds = list(answers(question, train=train, results=results_in(home, experiment.name)))
    *before, last = rounds
    assert not any(each.answer.is_enough for each in before)
    assert last.answer.is_enough or len(rounds) > 1
    assert last.answer.value == pytest.approx(0.4, abs=0.2)


def summary(count: int, why: str | None) -> SweepSummary:
    return SweepSummary(num_run=count, stopped_by=why)


def test_a_question_that_stays_open_is_no_success(tmp_path, capfd) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        TOML.replace("trials = 6", 'trials = 3\narms = ["standard"]').replace("[1e9, 2e9]", "[1e9]")
    )
    arguments = ["sweep", str(path), "--home", str(tmp_path / "home"), "--until", "a +- 0.01"]
    assert run(arguments) == 1
    captured = capfd.readouterr()
    assert "a is refused by chinchilla" in captured.out
    assert "not answered; `isoflop next" in captured.err
    assert run([*arguments, "--json"]) == 1
    assert json.loads(capfd.readouterr().out)["is_enough"] is False
    assert run([*arguments, "--confirm", "1e10"]) == 2


def test_a_round_that_was_stopped_at_once_has_no_answer(file, tmp_path) -> None:
    def train(_make_proposer) -> SweepSummary:
        with contextlib.closing(Ledger(tmp_path, create=True)):
            return SweepSummary(interrupted=True)

    question = parse_question("a +- 0.1")
    results = results_in(tmp_path, load_experiment(str(file)).name)
    (only,) = answers(question, train=train, results=results)
    assert only.answer is None
    assert only.summary.interrupted
