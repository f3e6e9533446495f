"""Which rows of a table may a law use? Those of its design, by the predicate that plans share."""

from __future__ import annotations

import numpy as np

from analysis.judge.fit_certificate import Reason
from analysis.judge.table_checks import unit_reasons
from analysis.laws.law import FloatArray
from analysis.points.checked_points import Exclusion, Points, rows_text
from search.limits.law_rows import why_not_for_laws

STORED = ("params_once", "params_deep", "params_wide")
"""Parts that sum to a model's size where a table has no ``params``."""


def rows_for_laws(points: Points) -> Points:
    """The rows that laws describe by their design, never by their loss; others are listed.

    All rows stay where units are in doubt, and where none would be left.
    """
    for found in unfit_rows(points):
        keep = ~np.isin(points.row_numbers, found.rows)
        if not keep.any():
            break
        points = points.select(keep, found.reason)
    return points


def unfit_rows(points: Points) -> tuple[Exclusion, ...]:
    """Rows that no law describes by their design, by reason; none while units are in doubt, since
    sizes beside tokens then mean nothing."""
    if any(reason.status == "refused" for reason in unit_reasons(points)):
        return ()
    found: dict[str, list[int]] = {}
    columns = (_params(points), points.columns.get("tokens"), points.columns.get("epochs"))
    rows = zip(*(_or_unknown(points, values) for values in columns), strict=True)
    for number, (params, tokens, epochs) in zip(points.row_numbers, rows, strict=True):
        why = why_not_for_laws(params=params, tokens=tokens, epochs=epochs)
        if why is not None:
            found.setdefault(why, []).append(int(number))
    return tuple(Exclusion(reason=why, rows=tuple(rows)) for why, rows in sorted(found.items()))


def unfit_reasons(points: Points) -> list[Reason]:
    """A note on rows that are used although no law describes them."""
    return [
        Reason(
            code="rows-unlike-a-law",
            status="ok",
            message=(
                f"{len(found.rows)} of {points.num_rows} rows are runs with {found.reason} (rows "
                f"{rows_text(found.rows)}), which lie above the law of the others; they are used, "
                "--law-rows leaves them out"
            ),
        )
        for found in unfit_rows(points)
    ]


def _params(points: Points) -> FloatArray | None:
    if "params" in points.columns:
        return points.columns["params"]
    parts = [points.columns[role] for role in STORED if role in points.columns]
    return np.asarray(np.sum(parts, axis=0)) if parts else None


def _or_unknown(points: Points, values: FloatArray | None) -> list[float | None]:
    return [None] * points.num_rows if values is None else [float(value) for value in values]
