"""``isoflop best --pareto``: the configurations that no other beats in loss and in a cost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from analysis.report.report_tables import pareto_table
from analysis.sweep.leaderboard import Leaderboard
from analysis.sweep.pareto import COSTS, ParetoFront, pareto_fronts
from experiments.setup import json_number


def fronts_of(found: Leaderboard) -> tuple[ParetoFront, ...]:
    """The fronts of all results of a leaderboard, all budgets together."""
    return pareto_fronts([entry.record for board in found.budgets for entry in board.entries])


def pareto_document(found: Leaderboard) -> list[dict[str, Any]]:
    """Every front as JSON, cheapest first."""
    return [
        {
            "cost": front.cost,
            "front": [
                {
                    "config_hash": each.record.config_hash,
                    "arm": each.record.proposal.arm,
                    "target_train_flops": each.record.proposal.budget.train_flops,
                    "seeds": each.seeds,
                    "loss_nats": each.loss_nats,
                    **{name: json_number(value) for name, value in each.costs.items()},
                }
                for each in front.front
            ],
        }
        for front in fronts_of(found)
    ]


def print_pareto(found: Leaderboard) -> None:
    """The configurations on a front as a table, lowest loss first, and the fronts that are not."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    fronts = fronts_of(found)
    shown = pareto_table(fronts)
    table = Table(title=f"{escape(found.sweep.name)}: {shown.caption}", title_justify="left")
    for name, is_number in zip(shown.header, shown.columns_of_numbers, strict=True):
        table.add_column(name, justify="right" if is_number else "left", no_wrap=name == "shape")
    for row in shown.rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print("means over seeds, all budgets together")
    _print_missing(fronts)


def _print_missing(fronts: Sequence[ParetoFront]) -> None:
    missing = [COSTS[front.cost].name for front in fronts if not front.front]
    if missing:
        print(f"no front, since no result has recorded it: {', '.join(missing)}")
