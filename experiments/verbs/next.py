"""``isoflop next``: which runs come next, what each tells, and when a question is answered."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any

from experiments.command import print_json, talk
from experiments.foreseeing import NextRuns, next_runs
from experiments.setup import ExperimentOptions, json_number, parse_experiment_options
from search.design.question import parse_question
from search.record.numbers import configuration_numbers
from spaces.arms.contract import shape_in_words
from spaces.errors import RequestError


@dataclass(frozen=True)
class NextOptions(ExperimentOptions):
    """The runs that come next, and what each is expected to do to a law's 95 % intervals."""

    question: str | None = None
    """Such as "phi +- 0.05" (also alpha, beta, omega, a, loss@FLOPs) or "gap(dual, standard)@1e15
    +- 0.01"; left out: the experiment as it is, with every shape of its law."""
    runs: int = 10
    """How many to show."""


def run(argv: list[str]) -> int:
    """Print the next runs."""
    options, experiment = parse_experiment_options(NextOptions, argv, verb="next")
    if options.runs < 1:
        raise RequestError(f"--runs takes a whole number from 1, got {options.runs}")
    question = None if options.question is None else parse_question(options.question)
    runs = next_runs(experiment, options.home, question)
    for note in runs.plan.notes:
        talk(note)
    if options.json:
        print_json(next_document(runs, shown=options.runs))
    else:
        print_next(runs, shown=options.runs)
    return 0


def next_document(found: NextRuns, *, shown: int) -> dict[str, Any]:
    """The next runs as JSON; a half-width that nothing tells is null."""
    number = found.enough_after
    return {
        "experiment": found.plan.experiment.name,
        "question": None if found.question is None else str(found.question),
        "now": _told(found.half_widths[0]) if found.half_widths else None,
        "runs": [
            {
                "config_hash": each.record.config_hash,
                "arm": each.record.proposal.arm,
                "purpose": each.record.proposal.purpose,
                "fate": each.fate,
                "data_seed": each.record.proposal.config.data_seed,
                **{
                    name: json_number(value)
                    for name, value in configuration_numbers(each.record.proposal).items()
                },
                "half_widths": _told(widths),
            }
            for each, widths in zip(found.further, found.half_widths[1:], strict=False)
        ][:shown],
        "enough_after_runs": number,
        "enough_after_flops": None if number is None else found.flops_of(number),
    }


def _told(widths: dict[str, float]) -> dict[str, float | None]:
    return {name: width if math.isfinite(width) else None for name, width in widths.items()}


def print_next(found: NextRuns, *, shown: int) -> None:
    """A table, and when the question is answered."""
    from rich.console import Console
    from rich.table import Table

    name = found.plan.experiment.name
    if not found.further:
        print(f"{name}: nothing comes next ({found.plan.stopped_by or 'all trials are there'})")
        return
    asked = "" if found.question is None else f", for {found.question}"
    table = Table(title=f"{name}: the next runs{asked}; expected 95 % half-widths after each")
    for column in ("#", "why", "arm", "budget", "shape", "tokens", "data order"):
        table.add_column(column, justify="left" if column in ("why", "arm", "shape") else "right")
    quantities = list(found.half_widths[0]) if found.half_widths else []
    for quantity in quantities:
        table.add_column(f"{quantity} ±", justify="right")
    if found.half_widths:
        table.add_row("now", *[""] * 6, *map(_width, found.half_widths[0].values()))
    for number, (each, widths) in enumerate(
        zip(found.further[:shown], found.half_widths[1:], strict=False), start=1
    ):
        proposal = each.record.proposal
        table.add_row(
            str(number),
            each.why,
            proposal.arm,
            f"{proposal.budget.train_flops:.3g}",
            shape_in_words(proposal.config.architecture),
            f"{proposal.config.tokens:,}",
            str(proposal.config.data_seed),
            *map(_width, widths.values()),
        )
    Console(width=None if sys.stdout.isatty() else 180).print(table)
    _print_end(found)


def _print_end(found: NextRuns) -> None:
    total = len(found.further)
    last = found.half_widths[-1] if found.half_widths else {}
    widths = ", ".join(f"{name} ± {_width(width)}" for name, width in last.items())
    print(
        f"after all {total} runs that the experiment still asks for, "
        f"{found.flops_of(total):.3g} training FLOPs: {widths or 'nothing that a law uses'}"
    )
    if found.question is None:
        return
    number = found.enough_after
    if number is None:
        print(
            f"{found.question} is not expected within trials = {found.plan.experiment.trials}; "
            f"more trials, further budgets or arms would tell more"
        )
    else:
        print(
            f"{found.question} is expected after {number} runs, {found.flops_of(number):.3g} "
            f"training FLOPs; `isoflop sweep --until` stops by the fitted interval, not by this"
        )


def _width(width: float) -> str:
    return f"{width:.2g}" if math.isfinite(width) else "?"
