"""Do we get what others published from the same data? Each published case refitted and compared.

The reference data is not part of the product (``reference/`` beside the checkout); where a file is
absent its cases are skipped, and said to be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.gauntlet.published_cases import CASES, Comparison
from analysis.gauntlet.table_statuses import TableStatus, table_statuses


@dataclass(frozen=True, kw_only=True)
class Gauntlet:
    """All comparisons, and what could not be compared."""

    comparisons: tuple[Comparison, ...]
    skipped: tuple[str, ...]
    """Cases whose data is absent, with the missing path."""
    tables: tuple[TableStatus, ...] = ()
    """The verdict on every table in two units; empty where not asked for."""

    @property
    def passed(self) -> bool:
        """Whether every comparison that took place, and every table, passed."""
        figures = all(comparison.passed for comparison in self.comparisons)
        return figures and all(table.passed for table in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "passed": self.passed,
            "comparisons": [comparison.to_dict() for comparison in self.comparisons],
            "tables": [table.to_dict() for table in self.tables],
            "skipped": list(self.skipped),
        }


def run_gauntlet(reference: Path, *, with_tables: bool = True) -> Gauntlet:
    """Refit every case of ``reference/expected.json``, and judge every table in two units."""
    listing = reference / "expected.json"
    if not listing.is_file():
        return Gauntlet(comparisons=(), skipped=(f"every case: {listing} is absent",))
    expected = json.loads(listing.read_text())
    comparisons: list[Comparison] = []
    skipped: list[str] = []
    for name, (needed, run) in CASES.items():
        missing = [reference / path for path in needed if not (reference / path).is_file()]
        if missing or name not in expected:
            why = f"{missing[0]} is absent" if missing else "not in expected.json"
            skipped.append(f"{name}: {why}")
            continue
        comparisons += run(name, expected[name], reference)
    return Gauntlet(
        comparisons=tuple(comparisons),
        skipped=tuple(skipped),
        tables=table_statuses(reference) if with_tables else (),
    )
