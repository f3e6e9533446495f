"""Is everything in a folder that was not read counted and named?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from spaces.errors import RequestError
from tests.cases.text.inputs import DATA, plan, read, write_all


def test_mixed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answer = plan(DATA / "mixed", tmp_path, capfd)
    assert answer.code == 0
    assert "not read: 12 of 18 files (10 .ndjson: more-0.ndjson, ...; 1 .TXT: LAST." in answer.err
    assert "1 .md: notes.md); read are 6 .txt" in answer.err
    found = read(DATA / "mixed", tmp_path / "cache")
    assert found.corpus.fingerprint.startswith("74bca08dad63a95c"), "read as ever"


def test_linked_folders_links_to_nothing_and_devices(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "text", [f"{number}.txt" for number in range(20)])
    other = write_all(tmp_path / "other", ["elsewhere.txt"])
    (folder / "linked").symlink_to(other)
    (folder / "more").mkdir()
    (folder / "more" / "deeper").symlink_to(other)
    (folder / "gone.txt").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.txt")
    (folder / "20.txt").symlink_to(other / "elsewhere.txt")
    found = read(folder, tmp_path / "cache")
    assert "not read: linked or closed folders: linked, more/deeper" in found.said
    assert "not read: 2 of 23 files (2 .txt: gone.txt, ...); read are 21 .txt" in found.said
    assert found.corpus.num_train_documents + found.corpus.num_val_documents == 21


def test_a_folder_of_nothing_readable_says_what_it_holds(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "text", ["a.md", "b.md", "c.rst", "readme"])
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(RequestError) as caught:
        read(folder, tmp_path / "cache")
    assert "found 2 .md: a.md, ...; 1 .rst: c.rst; 1 without ending: readme" in str(caught.value)
    assert "linked or closed folders are not gone into: linked" in str(caught.value)


def test_hidden_files_are_not_counted(tmp_path: Path) -> None:
    names = [f"{number}.txt" for number in range(20)]
    folder = write_all(tmp_path / "text", [*names, ".DS_Store", ".git/config"])
    assert read(folder, tmp_path / "cache").said == ""


def test_many_kinds_stay_one_short_line(tmp_path: Path) -> None:
    names = [f"{number}.txt" for number in range(20)] + [f"x.k{number}" for number in range(50)]
    said = read(write_all(tmp_path / "text", names), tmp_path / "cache").said
    assert "not read: 50 of 70 files" in said
    assert "; others); read" in said
    assert len(said) < 250
