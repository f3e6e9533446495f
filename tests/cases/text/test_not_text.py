"""Is what is no text refused at once, with its name and in little memory?"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import runners.text.opening
from spaces.errors import RequestError
from tests.cases.text.inputs import DATA, plan, prose, read


def test_two_gigabytes_in_a_few_kilobytes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.txt.bz2"
    path.write_bytes(bz2.compress(b"a" * 20_000_000) * 100)
    answer = plan(path, tmp_path, capfd)
    assert answer.code == 2
    assert "bytes and unpacks to more than 100,000,000" in answer.err
    assert "text unpacks to at most 200 times its size" in answer.err
    assert [*(tmp_path / "home").rglob("*.*")] == []


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.txt.gz", gzip.compress),
        ("a.jsonl.bz2", lambda text: bz2.compress(b'{"text": "' + text + b'"}')),
        ("a.json.gz", lambda text: gzip.compress(b'["' + text + b'"]')),
        ("no-name", gzip.compress),
    ],
)
def test_other_bombs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(runners.text.opening, "FREE_UNPACKED_BYTES", 1_000_000)
    (tmp_path / name).write_bytes(pack(b"a" * 9_000_000))
    with pytest.raises(RequestError, match=r"unpacks to more than [12],\d{3},\d{3}; text unpacks"):
        read(tmp_path / name, tmp_path / "cache")


def test_text_that_packs_well_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners.text.opening, "FREE_UNPACKED_BYTES", 1_000)
    lines = "".join(f"2026-01-01 00:00:{number % 60:02} all is well\n" for number in range(9_999))
    (tmp_path / "log.txt.gz").write_bytes(gzip.compress(lines.encode()))
    found = read(tmp_path / "log.txt.gz", tmp_path / "cache")
    assert found.corpus.num_train_bytes + found.corpus.num_val_bytes == len(lines)


def _numpy_array() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(100))
    return file.getvalue()


def _zip_archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", prose(1))
    return file.getvalue()


def _tar_archive() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        archive.add(DATA / "books", "books")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.npy", _numpy_array(), "a numpy array"),
        ("a.txt", _zip_archive(), "a zip archive"),
        ("books.tar.gz", _tar_archive(), "a tar archive"),
        ("a.txt.xz", lzma.compress(prose(1).encode()), "compressed by xz"),
        ("a.txt.zst", b"\x28\xb5\x2f\xfd" + bytes(range(200)), "compressed by zstd"),
        ("a.txt", prose(1).encode("utf-16"), "UTF-16 (little-endian), not UTF-8"),
        ("a.txt", b"\xfe\xff" + prose(1).encode("utf-16-be"), "UTF-16 (big-endian), not UTF-8"),
        ("a.txt", prose(1).encode("utf-16-le"), "binary, not text"),
        ("a.jsonl", bytes(range(256)) * 50, "binary, not text"),
        ("a.parquet", b"PAR1" + bytes(99) + b"PAR1", "a parquet table"),
    ],
)
def test_a_file_that_is_not_text(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read(tmp_path / name, tmp_path / "cache")
    assert f"{name} is {kind}" in str(caught.value)
    assert "name UTF-8 text or JSON lines (also gz, bz2)" in str(caught.value)


@pytest.mark.parametrize("start", ["PAR1 is a golf course.\n", "PK or BK?\n", "BZh9 it said\n"])
def test_text_that_begins_like_something_else_is_text(tmp_path: Path, start: str) -> None:
    (tmp_path / "a.txt").write_text(start + prose(1, 40))
    assert any(text.startswith(start.encode()) for text in read(tmp_path / "a.txt", tmp_path).train)


@pytest.mark.parametrize("source", ["/dev/zero", "/dev/null", "pipe"])
def test_a_source_that_never_ends_is_not_opened(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], source: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    answer = plan(tmp_path / source, tmp_path, capfd)
    assert answer.code == 2
    assert "is a device or a pipe; name a text file or a folder" in answer.err


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        ("file:/dev/zero", "/dev/zero is a device or a pipe; name the JSON file of a tokenizer"),
        ("file:/dev/random", "/dev/random is a device or a pipe"),
        ("file:{folder}/pipe", "pipe is a device or a pipe"),
        ("file:{folder}", "is a folder; name the JSON file of a tokenizer"),
        ("file:{folder}/huge", "a tokenizer has less than 100,000,000 bytes, but"),
        ("file:{folder}/gone.json", "gone.json cannot be read"),
        ("bpe:99999999999999999999", "at most 4,000,000, got '99999999999999999999'"),
    ],
)
def test_tokenizers_that_are_none(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], tokenizer: str, words: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(100_000_000_000)
    asked = tokenizer.format(folder=tmp_path)
    answer = plan(DATA / "lines.jsonl", tmp_path, capfd, "--text.tokenizer", asked)
    assert answer.code == 2
    assert words in answer.err
