"""Is JSON read for its text whatever a file is called, and are its keys named where it has none?"""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spaces.errors import RequestError
from tests.cases.text.inputs import DATA, plan, prose, read

LINES = (DATA / "lines.jsonl").read_bytes()
RECORDS: list[dict[str, str]] = [json.loads(line) for line in LINES.splitlines()]
FINGERPRINT = "25b5cfa6caf0a180"
"""Of lines.jsonl in bytes, 0.05 for validation, before JSON was known by its content."""


def pretty(records: list[Any]) -> bytes:
    return b"\n".join(json.dumps(record, indent=2).encode() for record in records)


def array(records: list[Any]) -> bytes:
    return json.dumps(records).encode()


def strings(records: list[Any]) -> bytes:
    return json.dumps([record["text"] for record in records], indent=1).encode()


def same(_: list[Any]) -> bytes:
    return LINES


@pytest.mark.parametrize(
    ("name", "write", "pack"),
    [
        ("lines.jsonl", same, bytes),
        ("lines.ndjson", same, bytes),
        ("lines.jsonlines", same, bytes),
        ("LINES.JSONL", same, bytes),
        ("lines.txt", same, bytes),
        ("lines", same, bytes),
        ("lines.json.gz", same, gzip.compress),
        ("lines.NDJSON.bz2", same, bz2.compress),
        ("packed.under.no.name", same, gzip.compress),
        ("lines.jsonl", lambda records: b"\xef\xbb\xbf\n" + same(records), bytes),
        ("array.json", array, bytes),
        ("array.jsonl", array, bytes),
        ("array.txt.gz", array, gzip.compress),
        ("pretty.json", pretty, bytes),
        ("strings.json", strings, bytes),
    ],
)
def test_the_same_forty_documents(
    tmp_path: Path,
    name: str,
    write: Callable[[list[Any]], bytes],
    pack: Callable[[bytes], bytes],
) -> None:
    (tmp_path / name).write_bytes(pack(write(RECORDS)))
    found = read(tmp_path / name, tmp_path / "cache")
    assert len(found.train) + len(found.validation) == 40
    assert found.corpus.fingerprint.startswith(FINGERPRINT)
    said = f"JSON by its content, the text under the key 'text': {name}"
    assert (said in found.said) == (name not in ("lines.jsonl", "array.jsonl"))


def test_a_folder_of_other_spellings(tmp_path: Path) -> None:
    folder = tmp_path / "text"
    folder.mkdir()
    for number, record in enumerate(RECORDS):
        (folder / f"{number:02}.ndjson").write_text(json.dumps(record))
    found = read(folder, tmp_path / "cache")
    assert found.corpus.fingerprint.startswith(FINGERPRINT)
    assert "40 files (00.ndjson, 01.ndjson, 02.ndjson, ...)" in found.said


def test_another_key(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "content-key.jsonl"
    lines = [{"content": record["text"], "id": number} for number, record in enumerate(RECORDS)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    answer = plan(path, tmp_path, capfd)
    assert answer.code == 2
    assert "line 1: no text under the key 'text'" in answer.err
    assert "its keys are 'content' (a string), 'id' (a number)" in answer.err
    assert 'as text.key = "content"' in answer.err
    answer = plan(path, tmp_path, capfd, "--text.key", "content")
    assert answer.code == 0
    found = read(path, tmp_path / "cache", key="content")
    assert found.corpus.fingerprint.startswith(FINGERPRINT)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.ndjson", b'{"body": "one"}\n{"body": "two"}\n', "line 1: no text .* 'body' (a string)"),
        ("a.txt", b'{"text": ["one"]}\n', "line 1: no text .* 'text' (an array)"),
        (
            "a.txt",
            b'{"text": "a"}\n{"text": "b"}\n{"no": 1}\n',
            "line 3: no text .* 'no' (a number)",
        ),
        ("a.txt", b'{"text": "a"}\n{"text": "b"}\n{"text": \n', "line 3: not JSON"),
        ("a.json", b'{"data": [{"text": "a"}]}', "line 1: no text .* 'data' (an array)"),
        ("a.json", b'{\n "data": [1]\n}', "record 1: no text .* 'data' (an array)"),
        ("a.json", b"[[1, 2], [3]]", "record 1: no text, but an array"),
        ("a.json", b"plain text", "line 1: not JSON"),
        ("a.json", b'[{"text": "a"}, {"text": "b"}', "line 1: not JSON"),
        ("a.jsonl", b'"a string"\n', "line 1: no text, but a string"),
        ("a.json", b'[{"text": "\\u0000"}]', "record 1: NUL at byte 0 of the text"),
        ("a.jsonl", b"{}\n", "line 1: no text under the key 'text'; its keys are none"),
    ],
)
def test_json_without_text(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError) as caught:
        read(tmp_path / name, tmp_path / "cache")
    position = 0
    for part in words.split(" .* "):
        position = str(caught.value).index(part, position)


@pytest.mark.parametrize(
    "start",
    [
        '{"quoted", like this}\n',
        "[Applause] ",
        '["To be", he said]\n',
        "{}\n",
        "{ }",
        "[1] A note.\n",
    ],
)
def test_text_that_begins_like_json_is_text(tmp_path: Path, start: str) -> None:
    path = tmp_path / "speech.txt"
    path.write_text(start + prose(1, 40))
    found = read(path, tmp_path / "cache")
    texts = sorted([*found.train, *found.validation])
    assert sum(map(len, texts)) == path.stat().st_size
    assert any(text.startswith(start.encode()) for text in texts)
    assert "JSON" not in found.said
