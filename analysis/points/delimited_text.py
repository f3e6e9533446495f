"""Which rows and columns does delimited text hold, whatever its separator?"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""Characters that may part columns, by name."""

ROWS_TRIED = 50
"""Rows on which a separator is judged."""

ROWS_NAMED = 12
"""Rows that a message lists before it counts the rest."""

BLANKS = " \t\r\n\u00a0\ufeff"
"""What is dropped around a header or an entry."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Rows of text entries under names that are all different."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    """One entry a name; blanks around entries are dropped."""
    notes: tuple[str, ...]
    """What was found besides commas."""
    repeated: Sequence[str]
    """Names that the header gives to more than one column."""


def grid_of(text: str) -> Grid:
    """Header and rows of delimited text. Raises `ValueError` that says what is wrong with it."""
    lines, separator, notes = _preamble(text)
    if separator is None:
        separator = _separator(lines)
    if separator == " ":
        notes.append("columns are separated by blanks")
    elif separator != ",":
        notes.append(f"columns are separated by {SEPARATORS[separator]}")
    cells = _parsed(lines, separator)
    if not cells or not any(cells[0]):
        raise ValueError("it is empty; the first line names the columns")
    if all(_is_number(cell) for cell in cells[0] if cell):
        raise ValueError("its first line holds numbers; put a line above that names the columns")
    header, rows = _squared(cells[0], cells[1:])
    names, repeated = _distinct(header)
    return Grid(names=names, rows=rows, notes=tuple(notes), repeated=repeated)


def _preamble(text: str) -> tuple[str, str | None, list[str]]:
    """The text from its header on, the separator where ``sep=`` names it, and notes."""
    lines = text.lstrip(BLANKS).splitlines(keepends=True)
    separator = None
    if lines and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:
        separator = lines.pop(0).strip()[4]
    num_comments = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    if not num_comments:
        return "".join(lines), separator, []
    notes = [f"{num_comments} comment lines above the table are skipped"]
    following = lines[num_comments] if num_comments < len(lines) else ""
    cells = following.replace(",", " ").replace(";", " ").split()
    if cells and all(_is_number(cell) for cell in cells):  # numpy writes the header as a comment
        lines[num_comments - 1] = lines[num_comments - 1].lstrip("# ")
        num_comments -= 1
        notes = ["the header stands in a comment line"]
    return "".join(lines[num_comments:]), separator, notes


def _separator(text: str) -> str:
    """The separator whose rows have as many entries as the header; blanks where there is none."""
    header = text.split("\n", 1)[0]
    start = "\n".join(text.split("\n", ROWS_TRIED)[:ROWS_TRIED])
    scores = {}
    for candidate in SEPARATORS:
        if candidate in header:
            cells = [row for row in _parsed(start, candidate) if any(row)]
            agreeing = sum(len(row) == len(cells[0]) for row in cells) / len(cells)
            scores[candidate] = (agreeing, len(cells[0]))
    if scores:
        return max(scores, key=scores.__getitem__)
    words = [len(line.split()) for line in start.splitlines() if line.strip()]
    return " " if words and words[0] > 1 and len(set(words)) == 1 else ","


def _parsed(text: str, separator: str) -> list[list[str]]:
    """Rows of stripped entries; an empty line is a row of none."""
    if separator == " ":
        return [line.split() for line in text.splitlines()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        return [[cell.strip(BLANKS) for cell in row] for row in reader]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num} breaks the rules of CSV ({error})") from error


def _squared(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Every row as long as the header. Raises `ValueError` that names rows with more entries."""
    width = max((place + 1 for place, name in enumerate(header) if name), default=0)
    used = max((_length(row) for row in rows), default=0)
    width = max(width, min(used, len(header)))
    long = [number for number, row in enumerate(rows, start=1) if _length(row) > width]
    if long:
        named = ", ".join(map(str, long[:ROWS_NAMED]))
        more = f" and {len(long) - ROWS_NAMED} more" if len(long) > ROWS_NAMED else ""
        raise ValueError(
            f"the header names {width} columns, but rows {named}{more} hold more entries (row 1 is "
            "the first below the header); numbers with commas in them must stand in quotes"
        )
    padded = [(row + [""] * width)[:width] for row in rows]
    return (header + [""] * width)[:width], padded


def _length(row: list[str]) -> int:
    """Entries up to the last that is not empty."""
    return max((place + 1 for place, cell in enumerate(row) if cell), default=0)


def _distinct(header: list[str]) -> tuple[list[str], list[str]]:
    """Names that differ, and those that the header gives more than once."""
    counts = Counter(name for name in header if name)
    names: list[str] = []
    for place, name in enumerate(header, start=1):
        seen = name in names
        names.append(f"{name} (column {place})".strip() if seen or not name else name)
    return names, [name for name, count in counts.items() if count > 1]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
