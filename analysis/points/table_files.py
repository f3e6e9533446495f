"""What stands in a table's file? Encoding, compression, separator and header; no number is read."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from analysis.points.delimited_text import Grid, grid_of
from spaces.errors import RequestError

TEXT_KINDS = (".csv", ".tsv")
LINE_KINDS = (".jsonl", ".ndjson")
PACKED = {b"\x1f\x8b": gzip.decompress, b"BZh": bz2.decompress, b"\xfd7zXZ": lzma.decompress}
"""First bytes of a compressed file, and what undoes it."""

KINDS = "a .csv, .tsv, .jsonl, .ndjson or .parquet file (text may be compressed: .csv.gz)"

MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32", "UTF-32"),
    (b"\x00\x00\xfe\xff", "utf-32", "UTF-32"),
    (b"\xef\xbb\xbf", "utf-8-sig", "UTF-8"),
    (b"\xff\xfe", "utf-16", "UTF-16"),
    (b"\xfe\xff", "utf-16", "UTF-16"),
)
"""Byte order marks with their codecs and names."""


@dataclass(frozen=True, kw_only=True)
class RawTable:
    """A table before any number is read."""

    frame: pl.DataFrame
    """Text columns where the file is text, the file's own types where it has some."""
    source: str
    """The file, or what else the rows come from."""
    notes: tuple[str, ...] = ()
    """How the file was read, where that is not UTF-8 with commas."""
    repeated: frozenset[str] = frozenset()
    """Names that more than one column carries."""


def read_table(table: Path | pl.DataFrame) -> RawTable:
    """A file or a frame as a raw table. Raises `RequestError` that says what cannot be read."""
    if isinstance(table, pl.DataFrame):
        return RawTable(frame=table, source="a data frame")
    if not table.is_file():
        raise RequestError(f"there is no table at {table}; give the path of {KINDS}")
    kind = _kind(table)
    try:
        if kind == ".parquet":
            return RawTable(frame=pl.read_parquet(table), source=str(table))
        text, notes = _text_of(table.read_bytes())
        grid = grid_of(text) if kind in TEXT_KINDS else _grid_of_lines(text)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{table} cannot be read as a table: {first}") from error
    return RawTable(
        frame=_frame_of(grid),
        source=str(table),
        notes=(*notes, *grid.notes),
        repeated=frozenset(grid.repeated),
    )


def read_frame(path: Path) -> pl.DataFrame:
    """The columns of a file. Raises `RequestError` that says what cannot be read."""
    return read_table(path).frame


def _kind(path: Path) -> str:
    """The format by the last suffix that is no compression's, or by the first bytes."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".xz"):
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if kind not in (*TEXT_KINDS, *LINE_KINDS, ".parquet"):
        raise RequestError(f"a table is {KINDS}, got {path.name}; save it as one of these")
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PAR1":
        return ".parquet"
    if start == b"PK\x03\x04":
        raise RequestError(
            f"{path} is a zip archive or a spreadsheet whatever its name says; save its sheet as "
            ".csv"
        )
    return kind


def _text_of(data: bytes) -> tuple[str, list[str]]:
    """The characters of a text file, and what was done to get them."""
    notes = []
    for start, unpack in PACKED.items():
        if data.startswith(start):
            try:
                data = unpack(data)
            except (EOFError, zlib.error, lzma.LZMAError) as error:
                raise ValueError(f"its compressed data is damaged ({error})") from error
            notes.append("the file is compressed")
    codec, name = _codec(data)
    if name != "UTF-8":
        notes.append(f"the file is {name}")
    text = data.decode(codec)
    if "\0" in text:
        raise ValueError("it holds zero bytes and is no text; save it as UTF-8")
    return text, notes


def _codec(data: bytes) -> tuple[str, str]:
    """Codec and name of an encoding: by its mark, by where zero bytes stand, else UTF-8."""
    for mark, codec, name in MARKS:
        if data.startswith(mark):
            return codec, name
    start = data[:2000]
    odd, even = start[1::2].count(0), start[::2].count(0)
    if max(odd, even) > 0.4 * (len(start) / 2) > 0:
        return ("utf-16-le" if odd > even else "utf-16-be"), "UTF-16"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "cp1252", "neither UTF-8 nor UTF-16; read as Windows-1252"
    return "utf-8", "UTF-8"


def _grid_of_lines(text: str) -> Grid:
    """JSON objects, one a line, as a grid of text; inner objects give columns ``outer.inner``."""
    rows: list[dict[str, str]] = []
    repeated: set[str] = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line, object_pairs_hook=_Pairs)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is no JSON ({error.msg})") from error
        if not isinstance(entry, _Pairs):
            raise ValueError(f"line {number} is JSON but no object; write one object a line")
        flat = _flat(entry)
        counts = Counter(name for name, _ in flat)
        repeated |= {name for name, count in counts.items() if count > 1}
        rows.append(dict(flat))
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[row.get(name, "") for name in names] for row in rows]
    return Grid(names=names, rows=cells, notes=(), repeated=sorted(repeated))


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, so that a key given twice is seen."""


def _flat(pairs: Sequence[tuple[str, Any]], outer: str = "") -> list[tuple[str, str]]:
    flat: list[tuple[str, str]] = []
    for key, value in pairs:
        name = f"{outer}{key.strip()}"
        if isinstance(value, _Pairs):
            flat += _flat(value, f"{name}.")
        else:
            flat.append((name, value if isinstance(value, str) else _shown(value)))
    return flat


def _shown(value: Any) -> str:
    return "" if value is None else json.dumps(value)


def _frame_of(grid: Grid) -> pl.DataFrame:
    """Text columns of a grid; entries that are empty are null."""
    columns: Mapping[str, list[str | None]] = {
        name: [row[place] or None for row in grid.rows] for place, name in enumerate(grid.names)
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(grid.names, pl.String))
