"""Are the streams the documents, split without overlap, cached once and the same for everybody?"""

from __future__ import annotations

import bz2
import json
import pickle
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import runners.text.corpus
from runners.text.corpus import Corpus, load_tokens, prepare_corpus
from spaces.errors import RequestError


def write_json_lines(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def write_documents(folder: Path, num_documents: int = 60) -> Path:
    texts = [f"Document {i} says {i * i}. " * (1 + i % 5) for i in range(num_documents)]
    return write_json_lines(folder / "documents.jsonl", texts)


def documents_in(stream: np.ndarray, separator: int = 0) -> list[bytes]:
    assert stream[-1] == separator
    return bytes(stream.astype(np.uint8)).split(bytes([separator]))[:-1]


def test_default_corpus_in_bytes(sotu_corpus: Corpus) -> None:
    tokens = load_tokens(sotu_corpus)
    assert sotu_corpus.num_train_documents + sotu_corpus.num_val_documents == 249
    assert sotu_corpus.num_train_bytes + sotu_corpus.num_val_bytes == 12_185_751
    assert sotu_corpus.num_val_bytes / 12_185_751 == pytest.approx(0.055, abs=0.005)
    train, validation = documents_in(tokens.train), documents_in(tokens.validation)
    assert len(train) == sotu_corpus.num_train_documents
    assert len(validation) == sotu_corpus.num_val_documents
    assert not set(train) & set(validation)
    assert tokens.train.dtype == np.uint8
    assert tokens.token_num_bytes[tokens.validation].sum() == sotu_corpus.num_val_bytes
    assert sotu_corpus.fingerprint.startswith("edd9fcf264ffdd69"), (
        "the default corpus is split or written differently than before: every identity of a "
        "trial changes; raise FORMAT_VERSION and name the new fingerprint in the commit"
    )


def test_streams_keep_the_documents_and_their_order(tmp_path: Path) -> None:
    source = write_documents(tmp_path)
    corpus = prepare_corpus(source, cache_dir=tmp_path / "cache", validation_fraction=0.2)
    tokens = load_tokens(corpus)
    texts = [json.loads(line)["text"].encode() for line in source.read_text().splitlines()]
    train, validation = documents_in(tokens.train), documents_in(tokens.validation)
    assert sorted(train + validation) == sorted(texts)
    assert train == [text for text in texts if text in train]
    assert validation == [text for text in texts if text in validation]
    assert 0.2 <= corpus.num_val_bytes / sum(map(len, texts)) < 0.25


def test_duplicates_land_on_one_side(tmp_path: Path) -> None:
    texts = [f"text number {i} " * 3 for i in range(30)]
    source = write_json_lines(tmp_path / "twice.jsonl", texts + texts[::-1])
    corpus = prepare_corpus(source, cache_dir=tmp_path, validation_fraction=0.3)
    tokens = load_tokens(corpus)
    train, validation = documents_in(tokens.train), documents_in(tokens.validation)
    assert len(train) + len(validation) == 60
    assert not set(train) & set(validation)


def test_a_document_more_moves_few_others(tmp_path: Path) -> None:
    texts = [f"text number {i}" for i in range(100)]
    sides = []
    for name, some in (("a", texts), ("b", [*texts, "one more"])):
        source = write_json_lines(tmp_path / f"{name}.jsonl", some)
        corpus = prepare_corpus(source, cache_dir=tmp_path, validation_fraction=0.2)
        sides.append(set(documents_in(load_tokens(corpus).validation)))
    assert len(sides[0] ^ sides[1]) <= 2


def test_files_called_validation_are_it_and_leave_the_training_set(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    write_json_lines(folder / "x-train-00.jsonl", ["only here", "in both"])
    write_json_lines(folder / "x-val.jsonl", ["in both", "held out"])
    (folder / "x-other.jsonl").write_text("never read")
    said: list[str] = []
    corpus = prepare_corpus(folder, cache_dir=tmp_path / "cache", say=said.append)
    tokens = load_tokens(corpus)
    assert documents_in(tokens.train) == [b"only here"]
    assert documents_in(tokens.validation) == [b"in both", b"held out"]
    assert corpus.source == "text, split by file names"
    assert said == [
        "text: the names say the split: trains on x-train-00.jsonl, validates on x-val.jsonl",
        "text: neither training nor validation by name, left out: x-other.jsonl",
        "text: 1 of 2 training documents are validation documents as well: left out of training",
    ]


def test_byte_pairs_of_a_corpus(tmp_path: Path) -> None:
    source = write_documents(tmp_path)
    corpus = prepare_corpus(source, tokenizer="bpe:280", cache_dir=tmp_path)
    tokens = load_tokens(corpus)
    assert (corpus.vocab_size, tokens.train.dtype) == (280, np.uint16)
    assert corpus.tokenizer_path is not None
    assert corpus.tokenizer_path.is_file()
    for stream, num_bytes, num_documents in (
        (tokens.train, corpus.num_train_bytes, corpus.num_train_documents),
        (tokens.validation, corpus.num_val_bytes, corpus.num_val_documents),
    ):
        assert tokens.token_num_bytes[stream].sum() == num_bytes
        assert np.count_nonzero(stream == corpus.separator) == num_documents


def test_unchanged_files_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_documents(tmp_path)
    first = prepare_corpus(source, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(runners.text.corpus, "SpooledDocuments", None)
    assert prepare_corpus(source, cache_dir=tmp_path / "cache") == first
    moved = shutil.move(tmp_path / "cache", tmp_path / "moved")
    again = prepare_corpus(source, cache_dir=Path(moved))
    assert again.fingerprint == first.fingerprint
    assert len(load_tokens(again).train) == first.num_train_tokens


def test_fingerprint_knows_text_split_and_tokenizer_but_not_the_wrapping(tmp_path: Path) -> None:
    source = write_documents(tmp_path)
    packed = tmp_path / "packed.jsonl.bz2"
    packed.write_bytes(bz2.compress(source.read_bytes()))
    first = prepare_corpus(source, cache_dir=tmp_path / "cache")
    assert prepare_corpus(packed, cache_dir=tmp_path / "other").fingerprint == first.fingerprint
    others = [
        prepare_corpus(source, cache_dir=tmp_path / "cache", validation_fraction=0.1),
        prepare_corpus(source, cache_dir=tmp_path / "cache", tokenizer="bpe:270"),
    ]
    source.write_text(source.read_text().replace("Document 7 ", "Document 8 "))
    others.append(prepare_corpus(source, cache_dir=tmp_path / "cache"))
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize("harm", ["truncated", "missing", "record"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, harm: str) -> None:
    source = write_documents(tmp_path)
    cache = tmp_path / "cache"
    first = prepare_corpus(source, cache_dir=cache)
    whole = first.train_path.read_bytes()
    if harm == "truncated":
        first.train_path.write_bytes(whole[:-5])
    elif harm == "missing":
        first.train_path.unlink()
    else:
        next(cache.glob("prepared-*.json")).write_text("{")
    if harm != "record":
        with pytest.raises(RequestError, match=r"token streams of documents\.jsonl"):
            load_tokens(first)
    assert prepare_corpus(source, cache_dir=cache) == first
    assert first.train_path.read_bytes() == whole


def test_several_at_once_leave_one_whole_corpus(tmp_path: Path) -> None:
    source = write_documents(tmp_path, num_documents=300)
    found: list[Corpus] = []
    threads = [
        threading.Thread(
            target=lambda: found.append(prepare_corpus(source, cache_dir=tmp_path / "cache"))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    load_tokens(found[0])
    assert not list((tmp_path / "cache").glob("*partial*"))


def test_a_corpus_is_small_and_travels(sotu_corpus: Corpus) -> None:
    packed = pickle.dumps(sotu_corpus)
    assert len(packed) < 3_000
    assert pickle.loads(packed) == sotu_corpus


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["  ", "\n"], "holds no text"),
        (
            ["alone", "alone"],
            "leaves no validation document, .* got 1",
        ),
    ],
)
def test_too_little_text(tmp_path: Path, texts: list[str], message: str) -> None:
    source = write_json_lines(tmp_path / "few.jsonl", texts)
    with pytest.raises(RequestError, match=message):
        prepare_corpus(source, cache_dir=tmp_path)


def test_the_fraction_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"between 0 and 1, got 1\.5"):
        prepare_corpus(None, cache_dir=tmp_path, validation_fraction=1.5)


def test_only_validation_files(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("all of it")
    with pytest.raises(RequestError, match="leaves no training document"):
        prepare_corpus(tmp_path, cache_dir=tmp_path / "cache")


@pytest.mark.slow
def test_books_keep_their_own_split(shared_data: Path, tmp_path: Path) -> None:
    said: list[str] = []
    corpus = prepare_corpus(shared_data / "books", cache_dir=tmp_path, say=said.append)
    assert (corpus.num_train_documents, corpus.num_val_documents) == (875, 15)
    assert (corpus.num_train_bytes, corpus.num_val_bytes) == (420_967_254, 4_089_157)
    assert any("files" in line for line in said)
