"""Does the judge say the same of a table in every unit, and no of one that settles nothing?

Every published table, and every arm of the reference sweeps, is fitted twice: as it is, and with
parameters in millions and tokens in billions. The verdict on each parameter must be the same.
Planted tables that leave the exponents open must be refused in both units; on their parameters one
by one verdicts may differ, since there is no optimum that both could find.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from analysis.fit.fit_result import Fit
from analysis.fit.fitting import fit
from analysis.gauntlet.published_cases import chinchilla_points
from analysis.judge.fit_certificate import Status
from analysis.laws.law_registry import law_named
from analysis.points.checked_points import Points
from analysis.points.table_reading import points_from

UNITS = {"params": 1e-6, "tokens": 1e-9}
"""The other units: millions of parameters, billions of tokens."""

NUM_RESAMPLES = 200
"""Enough for a verdict: limits are factors."""

PLANTED = {"E": 1.82, "A": 482.0, "B": 2085.0, "alpha": 0.348, "beta": 0.366}
NOISE = 0.003


@dataclass(frozen=True, kw_only=True)
class TableStatus:
    """The verdict on one table in its own units and in others."""

    table: str
    rows: int
    settles: bool
    """False of a planted table that leaves the exponents open."""
    status: Status
    elsewhere: Status
    """In other units."""
    differing: tuple[str, ...]
    """Parameters on which the two verdicts differ."""
    refused_for: tuple[str, ...]
    """Codes of the reasons for which something is refused."""

    @property
    def passed(self) -> bool:
        """Whether units change nothing and what is open is refused."""
        if not self.settles:
            return self.status == self.elsewhere == "refused"
        return self.status == self.elsewhere and not self.differing

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "table": self.table,
            "rows": self.rows,
            "settles": self.settles,
            "status": self.status,
            "in_other_units": self.elsewhere,
            "differing": list(self.differing),
            "refused_for": list(self.refused_for),
            "passed": self.passed,
        }


def table_statuses(reference: Path) -> tuple[TableStatus, ...]:
    """The verdict on every table that is there; planted ones always are."""
    found = [_judged(name, points, settles=True) for name, points in _tables(reference)]
    return (*found, *(_judged(n, p, settles=False) for n, p in _open_tables()))


def _judged(name: str, points: Points, *, settles: bool) -> TableStatus:
    scaled = {role: UNITS.get(role, 1.0) * values for role, values in points.columns.items()}
    one, other = (
        fit("chinchilla", each, num_resamples=NUM_RESAMPLES)
        for each in (points, replace(points, columns=scaled, own_count=True))
    )
    return TableStatus(
        table=name,
        rows=points.num_rows,
        settles=settles,
        status=one.status,
        elsewhere=other.status,
        differing=tuple(n for n in one.law.parameters if _verdict(one, n) != _verdict(other, n)),
        refused_for=tuple(
            dict.fromkeys(r.code for r in one.certificate.reasons if r.status == "refused")
        ),
    )


def _verdict(found: Fit, name: str) -> Status:
    return found.certificate.parameter_status(name)


def _tables(reference: Path) -> Iterator[tuple[str, Points]]:
    if (reference / "chinchilla" / "svg_extracted_data.csv").is_file():
        yield "chinchilla", chinchilla_points(reference)
    porian = reference / "porian" / "isoflop_points.csv"
    if porian.is_file():
        yield from _each(porian, "key", {"params": "n", "tokens": "t"})
    for sweep in ("grid", "pilot"):
        path = reference / "sweeps" / f"{sweep}.csv"
        if path.is_file():
            yield from _each(path, "arm", {})


def _each(path: Path, column: str, roles: Mapping[str, str]) -> Iterator[tuple[str, Points]]:
    """One table for every entry of a column."""
    frame = pl.read_csv(path)
    for entry in frame[column].unique().sort():
        rows = frame.filter(pl.col(column) == entry)
        points = points_from(rows, ("params", "tokens"), roles=roles, own_count=True)
        yield f"{path.parent.name}, {path.stem}: {entry}", points


def _open_tables() -> Iterator[tuple[str, Points]]:
    """Tables whose law is known and which do not determine it."""
    sizes = np.geomspace(1e7, 1e10, 30)
    tokens = {
        "planted: tokens 20 x params": 20.0 * sizes,
        "planted: tokens a power of params": 3e3 * sizes**0.6,
        "planted: one number of tokens": np.full_like(sizes, 1e10),
    }
    for seed, (name, column) in enumerate(tokens.items()):
        columns = {"params": sizes, "tokens": column}
        exact = np.asarray(law_named("chinchilla").loss(columns, PLANTED))
        noise = np.random.default_rng(seed).normal(size=len(sizes))
        frame = pl.DataFrame({**columns, "loss": exact * np.exp(NOISE * noise)})
        yield name, points_from(frame, ("params", "tokens"), own_count=True)
