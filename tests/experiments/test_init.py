"""``isoflop init``: the file that it writes is an experiment whose plan is sensible at once."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from experiments.cli import run
from experiments.first_experiment import Asked, budgets, toml_text, total_flops, widths
from search.asked.experiment import load_experiment
from search.asked.settings import Settings

SOON = Asked(text=None, device="cpu", hours=1.0, workers=2)


@pytest.mark.parametrize("hours", [0.05, 1.0, 24.0, 500.0])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_answer_gives_an_experiment_that_costs_what_was_said(
    hours: float, device: str, tmp_path: Path
) -> None:
    asked = Asked(text=None, device=device, hours=hours, workers=1)  # type: ignore[arg-type]
    path = tmp_path / "mine.toml"
    path.write_text(toml_text("mine", asked))
    experiment = load_experiment(str(path))
    each = experiment.trials / len(experiment.budget.train_flops)
    assert each * sum(experiment.budget.train_flops) == pytest.approx(total_flops(asked), rel=0.05)
    assert len(experiment.axes.d_model or ()) >= 3


def test_sizes_reach_from_a_quarter_to_four_times_the_best() -> None:
    best = [math.sqrt(flops / 120) for flops in budgets(SOON)]
    first, *_, last = (48 * width**2 for width in widths(SOON))
    assert first <= best[0] / 4 or widths(SOON)[0] == 8
    assert last == pytest.approx(4 * best[-1], rel=0.2)


def test_the_file_is_planned_at_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, schema = tmp_path / "mine.toml", tmp_path / "schema.json"
    words = ["init", str(file), "--hours", "0.1", "--device", "cpu", "--schema", str(schema)]
    assert run([*words, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["written"] == [str(schema), str(file)]
    assert file.read_text().startswith("#:schema schema.json\n")
    assert set(json.loads(schema.read_text())["properties"]) == set(
        load_experiment(str(file)).model_dump()
    )
    assert run(["plan", str(file), "--home", str(tmp_path / "home")]) == 0
    assert "trials to run" in capfd.readouterr().out
    assert run(words) == 2
    assert "exists and is left as it is" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mine.txt", "--hours", "1"], "NAME.toml"),
        (["My file.toml", "--hours", "1"], "small letters"),
        (["mine.toml"], "nobody is there to ask"),
        (["mine.toml", "--hours", "0"], "above 0"),
        (["mine.toml", "--hours", "1", "--text", "nowhere"], "does not exist"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    words: list[str],
    said: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", *words]) == 2
    assert said in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


def test_questions_are_asked_where_a_person_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "books").mkdir()
    answers = iter([str(tmp_path / "books"), "cpu", "2"])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert run(["init", str(tmp_path / "mine.toml")]) == 0
    experiment = load_experiment(str(tmp_path / "mine.toml"))
    assert experiment.text.source == tmp_path / "books"
    assert isinstance(experiment, Settings)


def test_no_answer_and_a_schema_that_exists_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def ended(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", ended)
    assert run(["init", str(tmp_path / "mine.toml")]) == 2
    schema = tmp_path / "schema.json"
    schema.write_text("mine")
    words = ["init", str(tmp_path / "mine.toml"), "--hours", "1", "--schema", str(schema)]
    assert run(words) == 2
    assert "exists and is left as it is" in capfd.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["schema.json"]
    assert schema.read_text() == "mine"
