"""Which runs are best by another number than the loss, such as a score on a task?"""

from __future__ import annotations

import sys
from dataclasses import replace

from analysis.sweep.leaderboard import Leaderboard
from search.record.evaluations import PREFIX, more_is_better
from spaces.arms.contract import shape_in_words
from spaces.errors import RequestError


def metric_name(found: Leaderboard, asked: str) -> str:
    """The number that is meant; a task's may leave out ``eval.``. Raises `RequestError`."""
    known = {name for board in found.budgets for entry in board.entries for name in entry.numbers}
    for name in (asked, f"{PREFIX}.{asked}"):
        if name in known:
            return name
    scores = ", ".join(sorted(name for name in known if name.startswith(f"{PREFIX}.")))
    raise RequestError(
        f"no result of {found.sweep.name} has a number {asked!r}; scores that some have: "
        f"{scores or 'none yet, see isoflop evaluate'}"
    )


def ranked_by(found: Leaderboard, name: str) -> Leaderboard:
    """The results that have the number, the best of each budget first."""
    sign = -1.0 if more_is_better(name) else 1.0
    boards = [
        replace(
            board,
            entries=tuple(
                sorted(
                    (entry for entry in board.entries if name in entry.numbers),
                    key=lambda entry: (sign * entry.numbers[name], entry.record.config_hash),
                )
            ),
        )
        for board in found.budgets
    ]
    return replace(found, budgets=tuple(board for board in boards if board.entries))


def print_by_metric(found: Leaderboard, name: str, *, top: int) -> None:
    """A table a budget: every run by itself, with its loss beside the number."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 120)
    order = "highest" if more_is_better(name) else "lowest"
    for board in found.budgets:
        title = f"{board.target_train_flops:.3g} training FLOPs ({board.convention}), {order} first"
        table = Table(title=title, title_justify="left")
        for column in ("#", "run", "arm", "shape", "loss (nats)", name):
            table.add_column(column, justify="left" if column in ("arm", "shape") else "right")
        for rank, entry in enumerate(board.entries[: top or None], start=1):
            record, numbers = entry.record, entry.numbers
            table.add_row(
                str(rank),
                record.config_hash[:8],
                record.proposal.arm,
                shape_in_words(record.proposal.config.architecture),
                f"{numbers['loss_nats']:.4f}",
                f"{numbers[name]:.4f}",
            )
        console.print(table)
