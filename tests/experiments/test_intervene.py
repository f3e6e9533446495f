"""Does ``isoflop intervene`` say what a route is worth beside a control, and what it cannot do?"""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from experiments.cli import run
from tests.experiments.test_gates import trained
from tests.experiments.toy import run_json
from tests.runners.test_gate_probes import line, written

SENTENCE = [
    line("1", "Они", "PRON"),
    line("2", "знали", "VERB"),
    line("3", "the", "DET"),
    line("4", "laws", "NOUN", "SpaceAfter=No"),
    line("5", ".", "PUNCT"),
    "",
]
TEXT = [each for number in range(12) for each in (f"# newdoc id = {number}", *SENTENCE)]


def words_of(folder: Path, *others: str) -> list[str]:
    path = written(folder, TEXT)
    return ["intervene", *others, "--conllu", str(path), "--home", str(folder / "h")]


def test_a_force_stands_beside_its_control(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = trained(tmp_path / "h")
    words = words_of(tmp_path, "toy/0", "--draws", "3")
    found = run_json(capfd, *words, "--on", "lexical words", "DET", "--force", "wide", "loops=1")
    assert (found["config_hash"], found["unit"], found["num_units"]) == (name, "document", 12)
    effects = found["effects"]
    assert [(each["force"], each["on"]) for each in effects[::2]] == [
        ("wide", "lexical words"),
        ("wide", "DET"),
        ("loops=1", "lexical words"),
        ("loops=1", "DET"),
    ]
    assert all(each["difference_interval"] is not None for each in effects)
    assert effects[0]["difference"] == pytest.approx(effects[0]["effect"] - effects[0]["control"])
    assert found["classes"][1]["tokens"] == 12 * 3
    rows = pl.read_parquet(found["rows"])
    tokens = 12 * len("Они знали the laws. ".encode())
    assert rows.height == 4 * 4 * tokens
    by_draw = rows.filter(pl.col("is_forced")).group_by("force", "on", "draw").len()["len"]
    assert sorted(set(by_draw)) == sorted({each["forced_tokens"] for each in found["classes"]})
    assert run([*words, "--on", "all"]) == 0
    assert "none" in capfd.readouterr().out


def test_what_cannot_be_forced_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path / "h")
    for words, said in (
        (words_of(tmp_path, "toy/0", "--on", "digits"), "the text has no token of 'digits'"),
        (words_of(tmp_path, "toy/0", "--force", "loops=3"), "1 to 2 loops"),
        (words_of(tmp_path, "toy/0", "--draws", "0"), "--draws must be at least 1"),
        (words_of(tmp_path, "toy/7"), "holds no run"),
        (["intervene", "toy/0", "--home", str(tmp_path / "h")], "needs --conllu FILE"),
    ):
        assert run(words) == 2
        assert said in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arm", "keeps_weights", "said"),
    [("wide", True, "one path and one loop"), ("dual", False, "--training.save-weights")],
)
def test_a_run_without_routes_or_weights_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arm: str, keeps_weights: bool, said: str
) -> None:
    trained(tmp_path / "h", arm, keeps_weights=keeps_weights)
    assert run(words_of(tmp_path, "toy/0")) == 2
    assert said in capfd.readouterr().err
