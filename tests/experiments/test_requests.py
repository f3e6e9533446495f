"""A wrong request: one clear message on standard error, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import main, run

GOOD = """
name = "toy"
trials = 4
[budget]
train_flops = [2e9]
[axes]
d_model = [16]
num_layers = [1]
[architecture]
head_dim = 16
context_length = 32
[training]
eval_sequences = 8
[workers]
pool = "inline"
"""


def refuse(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Run a verb that must be refused; what it said."""
    try:
        code = run(list(words))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err
    return captured.err


def experiment_file(folder: Path, text: str) -> str:
    path = folder / "toy.toml"
    path.write_text(text)
    return str(path)


def test_every_error_of_a_file_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace("trials = 4", 'trials = "many"\ntrails = 4').replace("2e9", "-1")
    said = refuse(capsys, "plan", experiment_file(tmp_path, text), "--home", str(tmp_path / "h"))
    assert "3 errors" in said
    assert "trails: no such setting; did you mean trials?" in said
    assert "trials: " in said
    assert "budget.train_flops" in said


def test_broken_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refuse(capsys, "plan", experiment_file(tmp_path, "name = "))
    assert "not valid TOML" in said


def test_an_unknown_experiment_names_those_that_ship(capsys: pytest.CaptureFixture[str]) -> None:
    assert "quickstart" in refuse(capsys, "plan", "nothing_like_it")


def test_a_missing_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = experiment_file(tmp_path, GOOD + '[text]\nsource = "absent.txt"\n')
    said = refuse(capsys, "plan", path, "--home", str(tmp_path / "h"))
    assert str(tmp_path / "absent.txt") in said


def test_an_empty_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.txt").write_text("")
    path = experiment_file(tmp_path, GOOD + '[text]\nsource = "empty.txt"\n')
    assert "empty" in refuse(capsys, "plan", path, "--home", str(tmp_path / "h"))


def test_a_text_that_is_not_utf8_is_named_with_its_byte(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 au lait\n" * 50)
    path = experiment_file(tmp_path, GOOD + '[text]\nsource = "latin.txt"\n')
    said = refuse(capsys, "plan", path, "--home", str(tmp_path / "h"))
    assert "latin.txt" in said
    assert "0xe9" in said
    assert "3" in said


def test_a_budget_too_small_for_any_shape(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = experiment_file(tmp_path, GOOD.replace("2e9", "1e5"))
    said = refuse(capsys, "plan", path, "--home", str(tmp_path / "h"))
    assert "no trial fits" in said


@pytest.mark.parametrize("verb", ["status", "best", "fit"])
def test_a_home_without_sweeps(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "isoflop sweep" in refuse(capsys, verb, "quickstart", "--home", str(tmp_path))


def test_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--trails" in refuse(capsys, "plan", "quickstart", "--trails", "3")


def test_an_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown verb" in refuse(capsys, "sweeep")


def test_a_field_of_the_command_line_is_checked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = experiment_file(tmp_path, GOOD)
    said = refuse(capsys, "plan", path, "--training.eval-sequences", "0")
    assert "eval_sequences" in said or "eval-sequences" in said


def test_the_entry_point_exits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["isoflop", "--help"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    assert "isoflop" in capsys.readouterr().out
