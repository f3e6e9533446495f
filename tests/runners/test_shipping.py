"""Text that travels to a machine without the home: what arrives is what was sent, once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runners.pools.contract import Assignment
from runners.pools.own_disk import OwnDisk
from runners.text.corpus import Corpus
from runners.text.shipping import TextShelf, files_of, receive_corpus
from tests.runners.small import small_trial


def test_what_arrives_is_what_was_sent_and_comes_once(sotu_corpus: Corpus, tmp_path: Path) -> None:
    shelf, asked = TextShelf(sotu_corpus), []

    def piece(field: str, index: int) -> bytes:
        asked.append((field, index))
        return shelf.piece(field, index)

    received = receive_corpus(sotu_corpus, tmp_path, piece=piece, sha256=shelf.sha256)
    assert received.fingerprint == sotu_corpus.fingerprint
    assert received.num_train_tokens == sotu_corpus.num_train_tokens
    here = files_of(received)
    for field, path in files_of(sotu_corpus).items():
        assert here[field].parent == tmp_path
        assert here[field].read_bytes() == path.read_bytes()
    num_asked = len(asked)
    again = receive_corpus(sotu_corpus, tmp_path, piece=piece, sha256=shelf.sha256)
    assert again == received
    assert len(asked) == num_asked


def test_what_changed_on_its_way_is_refused_and_not_kept(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    shelf = TextShelf(sotu_corpus)
    with pytest.raises(OSError, match="changed on its way"):
        receive_corpus(sotu_corpus, tmp_path, piece=shelf.piece, sha256=lambda field: "0" * 64)
    assert not list(tmp_path.glob("prepared-*.json"))
    missing = replace(sotu_corpus, train_path=tmp_path / "not_here.npy")
    shelf = TextShelf(missing)
    with pytest.raises(OSError, match="not_here"):
        receive_corpus(missing, tmp_path, piece=shelf.piece, sha256=shelf.sha256)


def test_attempts_of_two_homes_share_no_place(sotu_corpus: Corpus, tmp_path: Path) -> None:
    disk = OwnDisk(tmp_path / "attempts")
    first, second = (
        disk.take(
            Assignment(
                attempt_id=number,
                config=small_trial(sotu_corpus),
                checkpoint_dir=tmp_path / home / "trial",
                weights_path=None,
            )
        )
        for number, home in enumerate(("one", "two"))
    )
    assert first.checkpoint_dir != second.checkpoint_dir
    assert first.checkpoint_dir.is_relative_to(tmp_path / "attempts")
    assert (tmp_path / "attempts").stat().st_mode & 0o777 == 0o700
