"""What does a law see of a table? Checked columns by role, and an account of every row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.laws.law import FloatArray, Law
from analysis.objective.newton import Batch
from analysis.objective.surface import Surface
from analysis.points.flops_agreement import FlopsAgreement

SAME_BUDGET_LOG = 0.02
"""FLOPs that differ by less than 2 % are one budget when budgets are read off the FLOPs."""


RUNS_NAMED = 8
"""Runs of neighbouring rows that a message lists."""


@dataclass(frozen=True, kw_only=True)
class Exclusion:
    """Rows that a fit does not see."""

    reason: str
    rows: tuple[int, ...]
    """Row numbers, the first row of data being 1."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a table that nobody asked for and everybody must know."""

    code: str
    """Short and stable, words joined by hyphens."""
    message: str
    """What was found and what was done about it."""
    forbids: bool = False
    """Whether no law may be fitted to such a table."""


@dataclass(frozen=True, kw_only=True)
class Points:
    """The rows of one table that a fit sees, in plain arrays of shape (n,)."""

    columns: Mapping[str, FloatArray]
    """Values by role; every role that the law reads, and ``flops`` where known or derived."""
    losses: FloatArray
    """Nats per token (or the table's own unit)."""
    weights: FloatArray
    """Weight of every row in the objective."""
    loss_std: FloatArray | None
    """Known standard deviations of the losses, nats; None where unknown."""
    budgets: NDArray[np.int64] | None
    """Group of every row, 0..G-1; None where the table has no budgets."""
    budget_source: str | None
    """Where the groups come from, in words."""
    row_numbers: NDArray[np.int64]
    """Row numbers in the table, the first row of data being 1."""
    num_table_rows: int
    """Rows of the table before anything was left out."""
    excluded: tuple[Exclusion, ...] = ()
    """What was left out and why."""
    conventions: tuple[str, ...] = ()
    """How derived columns were derived, and what columns count."""
    findings: tuple[Finding, ...] = ()
    """What was decided about rows and columns without being asked."""
    agreement: FlopsAgreement | None = None
    """The table's FLOPs beside 6 N D; None where one of the three is unknown."""
    clusters: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """Groups (n,) besides budgets: ``data_seed``, and ``trunk`` of the runs that branch off one."""
    own_count: bool = False
    """Whether sizes, tokens and FLOPs were counted by this program, so that units are certain."""
    source: str = "a data frame"
    """The file, or what else the rows come from."""

    @property
    def num_rows(self) -> int:
        """Rows that are fitted."""
        return len(self.losses)

    @property
    def num_budgets(self) -> int:
        """Groups; 0 where there are none."""
        return 0 if self.budgets is None else int(self.budgets.max()) + 1

    @cached_property
    def shared_noise(self) -> dict[str, NDArray[np.int64]]:
        """Groups (n,) of rows that may share noise, by what they have in common.

        Runs of one budget; of one budget and data seed where a budget has several; branches of one
        trunk. Groupings of which no group has two rows, or that are another one, are none.
        """
        found: dict[str, NDArray[np.int64]] = {}
        if self.budgets is not None:
            seeds = self.clusters.get("data_seed")
            pairs = self.budgets if seeds is None else crossed(self.budgets, seeds)
            if pairs.max() > self.budgets.max() and np.bincount(pairs).max() > 1:
                found["budget and data seed"] = pairs
            else:
                found["budget"] = self.budgets
        trunks = self.clusters.get("trunk")
        if trunks is not None and np.bincount(trunks).max() > 1:
            found["trunk"] = trunks
        return found

    @cached_property
    def flops(self) -> FloatArray | None:
        """Training FLOPs of every row, where known."""
        return self.columns.get("flops")

    def surface(self, law: Law) -> Surface:
        """The law over these columns."""
        return Surface(law, self.columns, float(self.losses.min()))

    def batch(self, *, on_logs: bool) -> Batch:
        """The data of one fit; standard deviations become relative where residuals are logs."""
        if self.loss_std is None:
            scale = np.ones_like(self.losses)
        else:
            scale = self.loss_std / self.losses if on_logs else self.loss_std
        return Batch(self.losses, self.weights, scale)

    def select(self, keep: NDArray[np.bool_], reason: str) -> Points:
        """The rows where ``keep`` (n,) holds; the others are counted as excluded."""
        budgets = None
        if self.budgets is not None:
            budgets = renumbered(self.budgets[keep])
        clusters = {name: renumbered(labels[keep]) for name, labels in self.clusters.items()}
        dropped = tuple(int(row) for row in self.row_numbers[~keep])
        return replace(
            self,
            columns={role: values[keep] for role, values in self.columns.items()},
            losses=self.losses[keep],
            weights=self.weights[keep],
            loss_std=None if self.loss_std is None else self.loss_std[keep],
            budgets=budgets,
            clusters=clusters,
            row_numbers=self.row_numbers[keep],
            excluded=(*self.excluded, Exclusion(reason=reason, rows=dropped)),
        )

    def ranges(self) -> dict[str, list[float]]:
        """Smallest and largest value by role, with tokens per parameter where both are known."""
        columns = {**self.columns, "loss": self.losses}
        if "params" in columns and "tokens" in columns:
            columns["tokens_per_param"] = columns["tokens"] / columns["params"]
        return {role: [float(x.min()), float(x.max())] for role, x in columns.items()}

    def to_dict(self) -> dict[str, Any]:
        """The ``data`` entry of a fit's JSON document."""
        return {
            "source": self.source,
            "rows": self.num_rows,
            "table_rows": self.num_table_rows,
            "ranges": self.ranges(),
            "budgets": self.num_budgets or None,
            "budget_source": self.budget_source,
            "excluded": [{"reason": e.reason, "rows": list(e.rows)} for e in self.excluded],
            "conventions": list(self.conventions),
        }


def renumbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels (n,) as 0..G-1, in their order."""
    return np.unique(labels, return_inverse=True)[1].ravel().astype(np.int64)


def crossed(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups (n,) of the rows that share both labels."""
    return renumbered(one * (int(other.max()) + 1) + other)


def rows_text(rows: Iterable[int]) -> str:
    """Row numbers as text, runs of neighbours joined: ``3, 7-9``."""
    runs: list[list[int]] = []
    for row in sorted(rows):
        if runs and row == runs[-1][1] + 1:
            runs[-1][1] = row
        else:
            runs.append([row, row])
    named = [f"{a}" if a == b else f"{a}-{b}" for a, b in runs[:RUNS_NAMED]]
    return ", ".join(named) + (", ..." if len(runs) > RUNS_NAMED else "")


def groups_of_equal(values: FloatArray) -> NDArray[np.int64] | None:
    """Groups of nearly equal values (n,), or None where the values do not come in groups.

    Neighbours that differ by more than 2 % part groups. They count as groups when there are at
    least three, with three rows each on average, and none spans more than 10 %.
    """
    order = np.argsort(values, kind="stable")
    logs = np.log(values[order])
    labels_sorted = np.concatenate([[0], np.cumsum(np.diff(logs) > SAME_BUDGET_LOG)])
    num = int(labels_sorted[-1]) + 1
    spans = [float(np.ptp(logs[labels_sorted == group])) for group in range(num)]
    if num < 3 or len(values) < 3 * num or max(spans) > 0.1:
        return None
    labels = np.empty(len(values), dtype=np.int64)
    labels[order] = labels_sorted
    return labels
