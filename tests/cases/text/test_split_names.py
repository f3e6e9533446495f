"""Is what names call training, validation and test honoured, and is nothing else taken for it?"""

from __future__ import annotations

from pathlib import Path

import pytest

from runners.text.split_names import split_by_names
from tests.cases.text.inputs import DATA, plan, read, write_all


def test_train_dev_test(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = DATA / "train-dev-test"
    found = read(source, tmp_path / "cache")
    assert found.train == [(source / "train.txt").read_bytes()]
    assert found.validation == [(source / "dev.txt").read_bytes()]
    answer = plan(source, tmp_path, capfd)
    assert answer.code == 0
    assert "the names say the split: trains on train.txt, validates on dev.txt" in answer.err
    assert "test by name, left out: test.txt" in answer.err
    assert "training: 1 document, 10,864 bytes, 10,865 tokens" in answer.out
    assert "validation: 1 document, 1,088 bytes, 1,089 tokens (9.1% of the bytes)" in answer.out


@pytest.mark.parametrize(
    ("train", "validation", "left_out"),
    [
        (["ptb.train.txt"], ["ptb.valid.txt"], ["ptb.test.txt"]),
        (["wiki-00001.jsonl", "wiki-00002.jsonl"], ["wiki-valid-00001.jsonl"], []),
        (["en_ewt-ud-train.txt"], ["en_ewt-ud-dev.txt"], ["en_ewt-ud-test.txt"]),
        (["train/a.txt", "train/b.txt"], ["dev/a.txt"], ["test/a.txt", "test/b.txt"]),
        (["en/training/1.txt", "de/training/1.txt"], ["en/validation/1.txt"], []),
        (["a.txt", "b.txt"], ["heldout/c.txt"], []),
        (["a.txt", "b.txt"], ["held-out.txt"], []),
        (["train-00000-of-00002.jsonl"], ["development-00000-of-00001.jsonl"], ["testing.jsonl"]),
        (["Train.txt"], ["DEV.txt"], ["Test.txt"]),
        (["trainset.txt"], ["devset.txt"], ["testset.txt"]),
        (["train.en.txt", "train.de.txt"], ["eval.en.txt"], ["tst2013.en.txt"]),
        (["news-train.txt"], ["wiki-dev.txt"], ["law-test.txt"]),
        (["train.txt"], ["val.txt"], ["dev.txt", "test.txt"]),
        (["books.txt", "night-train.txt"], ["evaluation/1.txt"], ["test/train.txt"]),
        (["corpus.txt"], ["corpus-dev.txt"], []),
        (["wikiTrain.txt"], ["wikiDev.txt"], ["wikiTest.txt"]),
        (["train_1.txt"], ["validate.txt"], []),
        (["clean-100/train.txt"], ["dev-clean/1.txt"], ["test-clean/1.txt", "test-other/1.txt"]),
    ],
)
def test_sides(train: list[str], validation: list[str], left_out: list[str]) -> None:
    found = split_by_names(sorted([*train, *validation, *left_out]))
    expected = dict.fromkeys(train, "train") | dict.fromkeys(validation, "validation")
    assert found.sides == expected
    assert found.left_out == tuple(sorted(left_out))
    assert found.notes


@pytest.mark.parametrize(
    "names",
    [
        ["trains.txt", "contest.txt", "devil.txt", "latest.txt", "medieval.txt", "evaluate.txt"],
        ["valentine.txt", "attest.txt", "training-day.txt", "invalid.txt", "protest.txt"],
        ["a.txt", "b.txt", "contests/c.txt", "devices/d.txt", "the greatest.txt"],
    ],
)
def test_what_only_looks_like_a_split_is_text(names: list[str]) -> None:
    found = split_by_names(names)
    assert found.sides == dict.fromkeys(names)
    assert found.left_out == ()
    assert found.notes == ()


def test_titles_are_text_and_it_is_said(tmp_path: Path) -> None:
    names = ["a.txt", "b.txt", "c.txt", "test-of-time.txt", "economic-development.txt", "d.txt"]
    found = read(write_all(tmp_path / "books", names), tmp_path / "cache")
    assert found.corpus.num_train_documents + found.corpus.num_val_documents == 6
    assert "taken for titles, not for validation or test: economic-development.txt, " in found.said
    assert "put them into a folder called validation or test" in found.said


def test_test_alone_is_left_out_and_the_rest_split_by_hash(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "text", [*(f"train-{i}.txt" for i in range(30)), "test.txt"])
    found = read(folder, tmp_path / "cache")
    assert "test by name, left out: test.txt" in found.said
    assert (folder / "test.txt").read_bytes() not in found.train + found.validation
    assert "by hash" in found.corpus.source


def test_one_file_beside_its_test_set_is_cut_into_blocks(tmp_path: Path) -> None:
    folder = write_all(tmp_path / "text", ["train.txt", "test.txt"])
    (folder / "train.txt").write_text((folder / "train.txt").read_text() + "End.\n\n" * 200)
    found = read(folder, tmp_path / "cache")
    assert b"".join(found.train + found.validation)
    assert found.corpus.num_train_documents > 1


def test_where_all_is_test_there_is_nothing_to_hold_it_out_from() -> None:
    found = split_by_names(["test/1.txt", "test/2.txt"])
    assert found.sides == {"test/1.txt": None, "test/2.txt": None}


def test_what_is_said_is_said_again_when_nothing_is_read_again(tmp_path: Path) -> None:
    first = read(DATA / "train-dev-test", tmp_path)
    assert read(DATA / "train-dev-test", tmp_path).said == first.said
