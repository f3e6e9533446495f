"""Which number does an entry of a table mean? Decimal marks, thousands, suffixes and units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl

from analysis.laws.law import FloatArray
from spaces.errors import RequestError

Mark = Literal[".", ","]
"""What parts the whole number from its decimals; the other one groups thousands."""

MISSING = frozenset(
    ("", "na", "n/a", "#n/a", "nan", "null", "none", "-", "--", "?", ".", "missing", "<na>")
)
"""Entries, in lower case, that say that there is none."""

SCALES = {
    "": 0,
    "k": 3,
    "thousand": 3,
    "m": 6,
    "mio": 6,
    "million": 6,
    "b": 9,
    "bn": 9,
    "g": 9,
    "mrd": 9,
    "billion": 9,
    "t": 12,
    "trillion": 12,
    "p": 15,
}
"""Powers of ten that a suffix stands for, in lower case."""

UNITS = ("parameters", "params", "param", "tokens", "token", "toks", "flops", "flop", "nats", "nat")
"""Units that may stand behind a number without changing it."""

PETAFLOP_DAY = 8.64e19
"""FLOPs of 1e15 a second over one day."""

_ENTRY = re.compile(r"([+-]?[\d.,'’_ \u00a0\u2009\u202f]*[\d.,])(?:[eE]([+-]?\d+))?\s*([^\d\s].*)?")
_GROUPS = re.compile(r"(?<=\d)['’_ \u00a0\u2009\u202f](?=\d{3}(?!\d))")
_FORMS: Mapping[Mark, re.Pattern[str]] = {
    ".": re.compile(r"[+-]?(\d+|\d{1,3}(,\d{3})+)?(\.\d*)?"),
    ",": re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)?(,\d*)?"),
}


def numbers_of(columns: Mapping[str, pl.Series]) -> tuple[dict[str, FloatArray], list[str]]:
    """Numbers of text columns by name, NaN where an entry is none, and what to say about them.

    The decimal mark is one for the whole table where its entries agree. Raises `RequestError`
    where a column can be read in two ways.
    """
    plain = {name: _plain(column) for name, column in columns.items()}
    odd = {
        name: column
        for name, column in columns.items()
        if (column.is_not_null() & plain[name].is_null()).any()
    }
    found = {name: _array(column) for name, column in plain.items()}
    if not odd:
        return found, []
    entries = {name: _entries(column) for name, column in columns.items()}
    marks = _marks(entries)
    notes = []
    for name in columns:
        words = _words(entries[name], marks[name])
        if name not in odd and marks[name] == ".":
            continue
        found[name] = _parsed(columns[name], marks[name])
        notes += [f"{name}: {word}" for word in words]
    return found, notes


def number_in(entry: str, mark: Mark = ".") -> float:
    """The number that one entry means, NaN where it is none."""
    parts = _parts(entry)
    if parts is None:
        return np.nan
    body, exponent, suffix = parts
    scale = _scale(suffix)
    if scale is None or not _FORMS[mark].fullmatch(body):
        return np.nan
    whole = body.replace("," if mark == "." else ".", "").replace(",", ".")
    try:
        return float(f"{whole}e{exponent + scale[0]}") * scale[1]
    except ValueError:
        return np.nan


def _plain(column: pl.Series) -> pl.Series:
    """Numbers as a program writes them; null where an entry is missing or otherwise written."""
    text = column.str.strip_chars()
    missing = text.str.to_lowercase().is_in(list(MISSING))
    return text.set(missing, None).cast(pl.Float64, strict=False)


def _array(column: pl.Series) -> FloatArray:
    return np.asarray(column.fill_null(np.nan).to_numpy(), dtype=np.float64)


def _entries(column: pl.Series) -> list[str]:
    """Distinct entries that are not missing."""
    texts = column.drop_nulls().str.strip_chars().unique(maintain_order=True).to_list()
    return [text for text in texts if text.lower() not in MISSING]


def _parts(entry: str) -> tuple[str, int, str] | None:
    """Digits without their grouping blanks, exponent and suffix of an entry, None without any."""
    match = _ENTRY.fullmatch(entry.strip())
    if match is None or not any(sign.isdigit() for sign in match[1]):
        return None
    body = _GROUPS.sub("", match[1].strip())
    return body, int(match[2] or 0), (match[3] or "").strip().lower()


def _scale(suffix: str) -> tuple[int, float] | None:
    """Power of ten and factor of a suffix; None where it is unknown."""
    if suffix in SCALES:
        return SCALES[suffix], 1.0
    if re.fullmatch(r"(pf|pflops?|pflop/s|petaflops?|petaflop/s)[- ]?days?", suffix):
        return 0, PETAFLOP_DAY
    for unit in UNITS:
        rest = suffix.removesuffix(unit).rstrip(" -")
        if rest != suffix and (rest in SCALES or (unit[0] == "f" and rest == "e")):
            return SCALES.get(rest, 18), 1.0
    return None


def _marks(entries: Mapping[str, list[str]]) -> dict[str, Mark]:
    """The decimal mark of every column: the table's, or the column's own where they differ."""
    evidence = {name: _evidence(found) for name, found in entries.items()}
    whole = frozenset().union(*(only for only, _ in evidence.values()))
    marks: dict[str, Mark] = {}
    for name, (only, doubtful) in evidence.items():
        known = only or whole
        if len(known) == 2 and (doubtful or len(only) == 2):
            raise RequestError(_doubt(name, doubtful or entries[name][0], "the table uses both"))
        if not known and doubtful and "," in doubtful:
            raise RequestError(_doubt(name, doubtful, "nothing in the table tells which"))
        marks[name] = "," if "," in known and len(known) == 1 else "."
    return marks


def _evidence(entries: list[str]) -> tuple[frozenset[Mark], str | None]:
    """Marks that some entry leaves as the only one, and an entry that allows both."""
    only: set[Mark] = set()
    doubtful = None
    for entry in entries:
        parts = _parts(entry)
        if parts is None or not set(parts[0]) & {".", ","}:
            continue
        marks: tuple[Mark, ...] = (".", ",")
        fits = [mark for mark in marks if _FORMS[mark].fullmatch(parts[0])]
        if len(fits) == 1:
            only.add(fits[0])
        elif len(fits) == 2:
            doubtful = entry if doubtful is None or "," in entry else doubtful
    return frozenset(only), doubtful


def _doubt(name: str, entry: str, why: str) -> str:
    body = (_parts(entry) or (entry, 0, ""))[0]
    return (
        f"the column {name!r} can be read with thousands separators or with a decimal comma: "
        f"{entry!r} is {_digits(body, '.')} or {_digits(body, ',')}, and {why}; write numbers "
        "without thousands separators and with a decimal point"
    )


def _digits(body: str, mark: Mark) -> str:
    return body.replace("," if mark == "." else ".", "").replace(",", ".")


def _words(entries: list[str], mark: Mark) -> list[str]:
    """What to say about how a column is written."""
    parts = [found for found in map(_parts, entries) if found is not None]
    words = []
    if mark == "," and any("," in body for body, _, _ in parts):
        words.append("decimal commas are read")
    if any(("," if mark == "." else ".") in body for body, _, _ in parts) or any(
        _GROUPS.search(entry) for entry in entries
    ):
        words.append("thousands separators are dropped")
    suffixes = sorted({suffix for _, _, suffix in parts if suffix and _scale(suffix)})
    if suffixes:
        shown = next(entry for entry in entries if (_parts(entry) or ("", 0, ""))[2])
        words.append(f"{shown!r} is read as {number_in(shown, mark):,.15g}")
    return words


def _parsed(column: pl.Series, mark: Mark) -> FloatArray:
    entries = column.to_list()
    known = {entry: number_in(entry, mark) for entry in set(entries) if entry is not None}
    return np.array([np.nan if e is None else known[e] for e in entries], dtype=np.float64)
