"""How does a value show itself in a notebook? It names its tables and sentences; one renderer
writes them as HTML, escaped.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Cell = str | int | float | None
"""What a table holds; None is shown as a dash: refused, unknown, or not there."""

MOST_ROWS = 30
"""Rows of a table that are shown; the value itself holds all."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A captioned table of what a value holds."""

    caption: str
    """What the rows are."""
    columns: tuple[str, ...]
    """Heads, with units."""
    rows: tuple[tuple[Cell, ...], ...]
    """As long as ``columns``, each."""


Block = str | Table
"""A sentence, or a table."""


class Shown:
    """A value that a notebook shows by its blocks."""

    def blocks(self) -> Iterable[Block]:
        """Sentences and tables, in reading order."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return "\n".join(_html(block) for block in self.blocks())


def interval_cell(interval: Sequence[float] | None) -> str | None:
    """An interval in brackets; None where there is none."""
    return None if interval is None else f"[{interval[0]:.4g}, {interval[1]:.4g}]"


def _html(block: Block) -> str:
    return f"<p>{escape(block)}</p>" if isinstance(block, str) else _table_html(block)


def _table_html(table: Table) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in table.columns)
    rows = "".join(_row_html(row) for row in table.rows[:MOST_ROWS])
    caption, more = escape(table.caption), len(table.rows) - MOST_ROWS
    rest = f"<p>and {more} more rows</p>" if more > 0 else ""
    return (
        f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table>{rest}"
    )


def _row_html(row: Sequence[Cell]) -> str:
    return f"<tr>{''.join(map(_cell_html, row))}</tr>"


def _cell_html(cell: Cell) -> str:
    side = "left" if isinstance(cell, str) else "right"
    return f'<td style="text-align: {side}">{escape(_in_words(cell))}</td>'


def _in_words(cell: Cell) -> str:
    """Counts in full, measures to four digits."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "–"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
