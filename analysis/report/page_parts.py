"""What is a report made of? Sections of words, tables and figures, before anything is rendered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from analysis.show.interactive import InteractivePanel
from analysis.show.palette import ArmStyle

NO_NUMBER = "–"
"""Stands for what was not measured or may not be told."""

_NUMBER = re.compile(r"^[=*±+−-]*\d[\d.,]*(e[+-]?\d+)?[kMBT%]?( \[.*\]| to .*)?$|^\[.*\]$|^–?$")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of short texts; columns of numbers are set to the right."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folded: bool = False
    """Whether it is shown only when asked for."""

    @classmethod
    def of(
        cls, caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], **how: bool
    ) -> Table:
        """A table without the columns that are empty in every row."""
        rows = list(rows)
        filled = [p for p in range(len(header)) if not rows or any(row[p] for row in rows)]
        return cls(
            caption=caption,
            header=tuple(header[place] for place in filled),
            rows=tuple(tuple(row[place] for place in filled) for row in rows),
            **how,
        )

    @property
    def columns_of_numbers(self) -> tuple[bool, ...]:
        """Which columns hold nothing but numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.header)
        return tuple(all(_NUMBER.match(cell) for cell in column) for column in columns)


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """What a colour and a mark stand for."""

    name: str
    """Of the traces that it shows and hides."""
    label: str
    colour: str
    glyph: str = "●"


@dataclass(frozen=True, kw_only=True)
class ReportFigure:
    """Panels that belong together, and the same on paper."""

    name: str
    """Of its files, without the ending."""
    title: str
    caption: str
    panels: tuple[InteractivePanel, ...]
    legend: tuple[LegendEntry, ...]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One reason of a certificate, or one caveat."""

    status: str
    """ok, warn or refused."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under one heading."""

    name: str
    """Of its anchor."""
    title: str
    words: tuple[str, ...] = ()
    """Paragraphs."""
    findings: tuple[Finding, ...] = ()
    figures: tuple[ReportFigure, ...] = ()
    tables: tuple[Table, ...] = ()
    code: Mapping[str, str] = field(default_factory=dict)
    """Heading to text that is to be typed or kept as it is."""

    @property
    def anchor(self) -> str:
        """Its name as an address has it."""
        return re.sub(r"[^\w-]+", "-", self.name)


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a page says of a sweep."""

    name: str
    """Of the sweep."""
    question: str
    answer: str
    """One paragraph."""
    caveats: tuple[Finding, ...]
    sections: tuple[Section, ...]
    arm_styles: Mapping[str, ArmStyle]
    facts: Mapping[str, str]
    """What stands under the title: when, how many, which code."""

    def section(self, name: str) -> Section:
        """The section of that name; raises `KeyError`."""
        return {each.name: each for each in self.sections}[name]


def counted(number: int, what: str) -> str:
    """``1 result``, ``2 results``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def flops(value: float) -> str:
    """FLOPs in three digits."""
    return f"{value:.3g}"


def nats(value: float | None, *, signed: bool = False) -> str:
    """A loss or a difference of losses, to a tenth of a millinat."""
    if value is None:
        return NO_NUMBER
    return f"{value:+.4f}" if signed else f"{value:.4f}"


def short(value: float | None) -> str:
    """A count in three digits or so: 20k, 1.5M, 3B."""
    from analysis.show.figures import short_count

    return NO_NUMBER if value is None else short_count(value)
