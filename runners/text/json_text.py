"""Is a file JSON, whatever it is called, and where is the text in it?

JSON lines (one object a line), JSON values one after another over several lines, and one array of
objects or of strings. The text stands under one key of each object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from runners.text.opening import BYTE_ORDER_MARK, HEAD_BYTES, check_text, open_text, read_head
from spaces.errors import RequestError

TextFormat = Literal["text", "JSON lines", "JSON"]

TEXT_KEY = "text"
"""Where the text of an object is, unless another key is asked for."""

_JSON_NAMES = {".jsonl", ".ndjson", ".jsonlines", ".json"}
_JSON_START = re.compile(rb'\s*(\{\s*["}]|\[\s*[\[{"\]])')
_MOST_SNIFFED_LINES = 20
_MOST_KEYS_SHOWN = 8
_BLANK = re.compile(r"\s*")


def is_named_json(name: str) -> bool:
    """Whether a file's name says that it holds JSON."""
    return any(suffix.lower() in _JSON_NAMES for suffix in Path(name).suffixes)


def is_named_json_lines(name: str) -> bool:
    """Whether a file's name says JSON lines, so that reading it as such is no guess."""
    return ".jsonl" in Path(name).suffixes


def find_format(path: Path, *, name: str) -> TextFormat:
    """What a file holds, by its content; a name that says JSON is believed where all else fails."""
    head = read_head(path).removeprefix(BYTE_ORDER_MARK)
    if _JSON_START.match(head):
        if _most_lines_are_objects(path):
            return "JSON lines"
        if _is_json_throughout(path):
            return "JSON"
    return "JSON lines" if is_named_json(name) else "text"


def lines_of_json(path: Path, *, key: str) -> Iterator[bytes]:
    """The text of every line; `RequestError` names the line that has none."""
    offset = 0
    with open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            check_text(line, path=path, offset=offset)
            offset += len(line)
            content = line.removeprefix(BYTE_ORDER_MARK)
            if content.strip():
                where = f"{path}, line {number}"
                yield _text_of_record(_parse_line(content, where=where), key=key, where=where)


def values_of_json(path: Path, *, key: str) -> Iterator[bytes]:
    """The text of every object of a file that is JSON throughout; arrays are gone into."""
    number = 0
    for value in _values(_read_text(path)):
        for record in value if isinstance(value, list) else [value]:
            number += 1
            where = f"{path}, record {number}"
            if isinstance(value, list) and isinstance(record, str):
                yield _encode(record, where=where)
            else:
                yield _text_of_record(record, key=key, where=where)


def _most_lines_are_objects(path: Path) -> bool:
    """Whether more than half of the first lines are JSON objects."""
    first: list[bytes] = []
    with open_text(path) as stream:
        for line in stream:
            first += [line.removeprefix(BYTE_ORDER_MARK)] if line.strip() else []
            if len(first) >= _MOST_SNIFFED_LINES or sum(map(len, first)) >= HEAD_BYTES:
                break
    return sum(map(_is_object, first)) * 2 > len(first)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _is_json_throughout(path: Path) -> bool:
    try:
        return sum(1 for _ in _values(_read_text(path))) > 0
    except (RequestError, ValueError, RecursionError):
        return False


def _read_text(path: Path) -> str:
    with open_text(path) as stream:
        content = stream.read()
    check_text(content, path=path, offset=0)
    return content.removeprefix(BYTE_ORDER_MARK).decode()


def _values(text: str) -> Iterator[Any]:
    """Every JSON value of a text; `ValueError` where something else stands between them."""
    decoder = json.JSONDecoder()
    position = _skip_blank(text, 0)
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        yield value
        position = _skip_blank(text, position)


def _skip_blank(text: str, position: int) -> int:
    found = _BLANK.match(text, position)
    return found.end() if found else position


def _parse_line(line: bytes, *, where: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where}: not JSON: {error}") from error


def _text_of_record(record: Any, *, key: str, where: str) -> bytes:
    if not isinstance(record, dict):
        raise RequestError(
            f'{where}: no text, but {_kind(record)}; every record must be {{"{key}": "...", ...}}'
        )
    if not isinstance(record.get(key), str):
        raise RequestError(f"{where}: no text under the key {key!r}; {_keys_found(record)}")
    return _encode(record[key], where=where)


def _keys_found(record: dict[str, Any]) -> str:
    """The keys of a record with what they hold, and how to name the right one."""
    shown = [f"{name!r:.60} ({_kind(value)})" for name, value in record.items()]
    more = f" and {len(shown) - _MOST_KEYS_SHOWN} more" if len(shown) > _MOST_KEYS_SHOWN else ""
    strings = [name for name, value in record.items() if isinstance(value, str)]
    longest = max(strings, key=lambda name: len(record[name]), default=None)
    example = f", as text.key = {json.dumps(longest):.60}" if longest is not None else ""
    keys = ", ".join(shown[:_MOST_KEYS_SHOWN]) + more if shown else "none"
    return f"its keys are {keys}; name the one that holds the text{example}"


def _kind(value: Any) -> str:
    kinds = {str: "a string", bool: "true or false", type(None): "null", dict: "an object"}
    return "an array" if isinstance(value, list) else kinds.get(type(value), "a number")


def _encode(content: str, *, where: str) -> bytes:
    try:
        text = content.encode()
    except UnicodeEncodeError as error:
        raise RequestError(f"{where}: the text holds half a surrogate pair: {error}") from error
    if b"\0" in text:
        raise RequestError(
            f"{where}: NUL at byte {text.index(0)} of the text; NUL separates documents, remove it"
        )
    return text
