"""Do texts keep the fingerprints they had, and are they found where the TOML file says?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from experiments.cli import run
from runners.text.corpus import prepare_corpus
from runners.text.tokenizers import make_tokenizer
from search.asked.experiment import load_experiment
from spaces.errors import RequestError
from tests.cases.text.inputs import DATA, TOML, prose, read

RELEASE_HOME = Path(__file__).parents[2] / "homes" / "release_0_1"


def test_the_text_of_the_first_release(tmp_path: Path) -> None:
    expected = json.loads((RELEASE_HOME / "expected.json").read_text())["sweeps"]["first"]
    found = read(RELEASE_HOME / "text.txt", tmp_path, validation_fraction=0.1)
    assert found.corpus.fingerprint == expected["text_fingerprint"]


def write_number(folder: Path, count: int, *, suffix: str = ".txt") -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}{suffix}").write_text(prose(number, 3))
    return folder


@pytest.mark.parametrize(
    ("count", "fingerprint"),
    [(6, "9fffa9d770789705"), (20, "397cb28b98590710")],
)
def test_folders_of_text_files(tmp_path: Path, count: int, fingerprint: str) -> None:
    found = read(write_number(tmp_path / "text", count), tmp_path / "cache")
    assert found.corpus.fingerprint[:16] == fingerprint


def test_folders_split_by_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for number, name in enumerate(("x-train-0.txt", "x-val.txt", "x-test.txt", "x-dev.txt")):
        (folder / name).write_text(prose(number))
    found = read(folder, tmp_path / "cache")
    assert found.corpus.fingerprint[:16] == "f269a0a2d80f54bf"


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a text and a tokenizer; the working folder is another."""
    folder = tmp_path / "experiment"
    folder.mkdir()
    shutil.copy(DATA / "lines.jsonl", folder / "lines.jsonl")
    tokenizer = make_tokenizer("bpe:270", iter([prose(1).encode()]))
    (folder / "tokenizer.json").write_text(tokenizer.to_json() or "")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.mark.parametrize(
    ("source", "tokenizer"),
    [
        ("lines.jsonl", "file:tokenizer.json"),
        ("../experiment/lines.jsonl", "file:./tokenizer.json"),
        ("~/lines.jsonl", "file:~/tokenizer.json"),
        ("{folder}/lines.jsonl", "file:{folder}/tokenizer.json"),
    ],
)
def test_paths_of_a_toml_file(beside: Path, source: str, tokenizer: str) -> None:
    path = beside / "small.toml"
    words = f'{TOML}source = "{source}"\ntokenizer = "{tokenizer}"\n'.format(folder=beside)
    path.write_text(words)
    text = load_experiment(str(path)).text
    assert text.source == beside / "lines.jsonl"
    assert text.tokenizer == f"file:{beside / 'tokenizer.json'}"
    assert run(["plan", str(path), "--home", "home"]) == 0


def test_home_folders_on_the_command_line(beside: Path) -> None:
    (beside / "small.toml").write_text(TOML)
    words = ["--text.source=~/lines.jsonl", "--text.tokenizer=file:~/tokenizer.json"]
    assert run(["plan", str(beside / "small.toml"), "--home", "home", *words]) == 0


def test_a_home_folder_of_nobody(beside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (beside / "small.toml").write_text(f'{TOML}source = "~nobody-here/lines.jsonl"\n')
    assert run(["plan", str(beside / "small.toml")]) == 2
    assert "text.source: names a home folder that is not known" in capfd.readouterr().err


def test_a_source_of_no_name(beside: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (beside / "small.toml").write_text(f'{TOML}source = ""\n')
    assert run(["plan", str(beside / "small.toml")]) == 2
    assert "text.source: names nothing; leave it out for the default" in capfd.readouterr().err


def test_a_tokenizer_that_is_not_beside_it_is_looked_for_nowhere_else(beside: Path) -> None:
    (beside / "small.toml").write_text(f'{TOML}tokenizer = "file:other.json"\n')
    text = load_experiment(str(beside / "small.toml")).text
    with pytest.raises(RequestError, match=r"experiment/other\.json cannot be read"):
        prepare_corpus(None, tokenizer=text.tokenizer, cache_dir=beside / "cache")
