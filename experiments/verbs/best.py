"""``isoflop best``: the leaderboard of every budget, and the link that opens it in MLflow."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from analysis.sweep.leaderboard import BudgetBoard, Entry, Leaderboard, best
from experiments.command import print_json, talk
from experiments.comparisons import print_comparisons
from experiments.digits import decimals_for
from experiments.metric_board import metric_name, print_by_metric, ranked_by
from experiments.setup import SweepOptions, json_number, parse_sweep_options
from experiments.where import conditions, mlflow_filter, only
from runners.mlflow.saved_view import (
    BEST_VIEW_KEY,
    DEFAULT_SERVER,
    budget_view_key,
    flops_in_words,
    plain_link,
    view_link,
)
from search.belief.seed_noise import by_configuration
from search.record.numbers import configuration_numbers, outcome_numbers
from search.record.trial_records import SweepRecord, TrialRecord, loss_of
from spaces.arms.contract import shape_in_words
from spaces.errors import RequestError
from spaces.identity import canonical_form

ROUTING_WORDS = {
    "mean_deep_share": "deep share {:.3f}",
    "mean_gate_entropy_nats": "gate entropy {:.3f} nats",
    "mean_deep_closed_share": "deep path nearly closed for {:.1%} of tokens",
    "mean_wide_closed_share": "wide path for {:.1%}",
    "collapsed_layers_share": "a path collapsed in {:.0%} of layers and seeds",
    "mean_expected_loops": "{:.2f} loops expected",
}
"""Numbers of a row that say how it routes (`spaces.arms.routing`), and how a person reads them."""


@dataclass(frozen=True)
class BestOptions(SweepOptions):
    """The best configurations of every budget."""

    top: int = 5
    """Rows per budget; 0 for all."""
    metric: str | None = None
    """A number to rank by instead of the loss, such as blimp.acc of `isoflop evaluate`."""
    where: str | None = None
    """Only results that meet this, such as "arm = dual and parameters < 5e6": arm, and any number
    that --json shows."""
    pareto: bool = False
    """The configurations that none as cheap beats: loss against parameters, inference FLOPs and
    memory, over all budgets."""
    full: bool = False
    """Every reason why a gain is missing, not the first alone."""
    server: str | None = None
    """Address of the MLflow UI that links point to; left out: where `isoflop ui` serves."""


def run(argv: list[str]) -> int:
    """Print the leaderboard."""
    options, name = parse_sweep_options(BestOptions, argv, verb="best")
    if options.top < 0:
        raise RequestError(f"--top must be 1 or more, or 0 for all, got {options.top}")
    found = best(name, options.home)
    server = server_of(found.sweep, options.server)
    if options.where is not None:
        return _show_some(found, options, server)
    if options.pareto:
        return _show_pareto(found, options)
    if options.metric is not None:
        found = ranked_by(found, metric_name(found, options.metric))
    if options.json:
        print_json(best_document(found, top=options.top, server=server))
    elif options.metric is not None:
        print_by_metric(found, metric_name(found, options.metric), top=options.top)
    else:
        print_best(found, top=options.top, server=server, full=options.full)
    return 0


def _show_some(found: Leaderboard, options: BestOptions, server: str) -> int:
    """Results that meet conditions, and the link that shows the same runs."""
    if options.pareto or options.metric is not None:
        raise RequestError("--where goes with neither --pareto nor --metric; ask for one of them")
    asked = conditions(options.where or "", found)
    some, sweep = only(found, asked), found.sweep
    number = sum(len(board.entries) for board in some.budgets)
    link = None
    if sweep.mlflow_experiment_id is not None:
        link = plain_link(server, sweep.mlflow_experiment_id, mlflow_filter(asked))
    if options.json:
        print_json(best_document(some, top=options.top, server=server) | {"link": link})
        return 0
    _print_boards(some, top=options.top)
    print(f"{number} of {sum(len(b.entries) for b in found.budgets)} results: {options.where}")
    if link is not None:
        print(f"In MLflow (`isoflop ui` serves it): {link}")
    return 0


def _show_pareto(found: Leaderboard, options: BestOptions) -> int:
    from experiments.pareto_board import pareto_document, print_pareto

    if options.metric is not None:
        raise RequestError("--pareto sets the loss against costs and takes no --metric; ask twice")
    if options.json:
        print_json({"pareto": pareto_document(found)})
    elif not found.budgets:
        print(_no_result(found.sweep.name))
    else:
        print_pareto(found)
    return 0


def _no_result(name: str) -> str:
    return f"{name} has no result yet; `isoflop status {name}` says what it does"


def server_of(sweep: SweepRecord, server: str | None) -> str:
    """The address links point to: as asked, or the tracking server, or the local UI."""
    if server is None and (sweep.tracking_uri or "").startswith(("http://", "https://")):
        server = sweep.tracking_uri
    return (server or DEFAULT_SERVER).rstrip("/")


def link_of(sweep: SweepRecord, server: str, flops: float | None = None) -> str | None:
    """The link to *Best per budget*, or to one budget's view; None before the sweep has reached
    MLflow."""
    if sweep.mlflow_experiment_id is None:
        return None
    key = BEST_VIEW_KEY if flops is None else budget_view_key(flops)
    return view_link(server, sweep.mlflow_experiment_id, key)


def best_document(found: Leaderboard, *, top: int, server: str) -> dict[str, Any]:
    """The leaderboard as JSON, best first."""
    return {
        "link": link_of(found.sweep, server),
        "budgets": [
            {
                "target_train_flops": board.target_train_flops,
                "link": link_of(found.sweep, server, board.target_train_flops),
                "convention": board.convention,
                "seed_noise_nats": board.seed_noise_nats,
                "seed_noise_degrees_of_freedom": board.degrees_of_freedom,
                "recommended": board.recommended.config_hash,
                "leaderboard": [_entry(entry) for entry in board.entries[: top or None]],
            }
            for board in found.budgets
        ],
        "tuning": [asdict(tuning) for tuning in found.tunings],
        "learning_rates": [asdict(standing) for standing in found.rates],
        "freedoms": [asdict(freedoms) for freedoms in found.freedoms],
        "arm_gaps": [asdict(gap) for gap in found.gaps],
        "arm_trends": [trend.to_dict() for trend in found.trends],
        "confirmations": [each.to_dict() for each in found.confirmations],
        "compute_equivalent_gains": [asdict(gain) for gain in found.gains],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    """One result: words, then its row of numbers under the names that MLflow shows."""
    record = entry.record
    proposal, config, outcome = record.proposal, record.proposal.config, record.outcome
    assert outcome is not None
    return {
        "arm": proposal.arm,
        "family": proposal.family,
        "architecture": canonical_form(config.architecture),
        "seed": config.init_seed,
        "data_seed": config.data_seed,
        "config_hash": record.config_hash,
        "run_id": record.mlflow_run_id,
        "purpose": proposal.purpose,
        "tuning": entry.tuning,
        "tied_with_best": entry.tied_with_best,
        "warnings": list(outcome.warnings),
        **{name: json_number(value) for name, value in entry.numbers.items()},
    }


def print_best(found: Leaderboard, *, top: int, server: str, full: bool = False) -> None:
    """The leaderboard as one table per budget, a row per configuration, then the link."""
    sweep = found.sweep
    if not found.budgets:
        print(_no_result(sweep.name))
        return
    _print_boards(found, top=top)
    print_comparisons(found, full=full)
    link = link_of(sweep, server)
    if link is None:
        talk("not in MLflow yet: run the sweep again with MLflow reachable")
        return
    print(f"In MLflow (`isoflop ui` serves it): {link}")
    for board in found.budgets:
        alone = link_of(sweep, server, board.target_train_flops)
        print(f"  {flops_in_words(board.target_train_flops)} FLOPs alone: {alone}")
    assert sweep.mlflow_experiment_id is not None
    print(f"Without the saved view: {plain_link(server, sweep.mlflow_experiment_id)}")


def _print_boards(found: Leaderboard, *, top: int) -> None:
    """A table of every budget, and what is said of its rows."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    for board in found.budgets:
        shown = _shown(board, top)
        console.print(_table(board, shown))
        for line in (*_routing(shown), *_warnings(shown)):
            print(line)


Rows = dict[int, list[TrialRecord]]
"""Results of a configuration, one for each of its seeds, by its rank."""


def _shown(board: BudgetBoard, top: int) -> Rows:
    """The rows of a table: lowest mean loss over seeds first, and what is recommended."""
    records = [entry.record for entry in board.entries]
    configurations = by_configuration(records).values()
    rows = enumerate(sorted(configurations, key=lambda runs: fmean(map(loss_of, runs))), start=1)
    return {n: runs for n, runs in rows if n <= top or top <= 0 or board.recommended in runs}


def _routing(shown: Rows) -> list[str]:
    """How each shown configuration routes: a line each, means over layers, tokens and seeds."""
    lines = []
    for rank, runs in shown.items():
        read = [outcome_numbers(run.outcome) for run in runs]
        parts = [
            words.format(fmean(values))
            for name, words in ROUTING_WORDS.items()
            if (values := [numbers[name] for numbers in read if name in numbers])
        ]
        if parts:
            lines.append(f"routing of #{rank}: {', '.join(parts)}")
    return lines


def _warnings(shown: Rows) -> list[str]:
    """What a reader of the losses should know: a line per kind, in the words of its first row."""
    kinds: dict[str, dict[int, str]] = {}
    for rank, runs in shown.items():
        for text in (text for run in runs if run.outcome for text in run.outcome.warnings):
            kinds.setdefault(re.split(r"\d", text)[0], {})[rank] = text
    return [
        f"! {', '.join(f'#{rank}' for rank in texts)}: {next(iter(texts.values()))}"
        for texts in kinds.values()
    ]


def _table(board: BudgetBoard, shown: Rows) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    tied = {entry.record.config_hash for entry in board.entries if entry.tied_with_best}
    table = Table(
        title=_title(board), title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False
    )
    columns = ("arm", "shape", "par.", "tokens", "tok/par")
    for column in ("#", *columns, "lr", "seeds", "loss\n(nats)", "bits/\nbyte"):
        side: Literal["left", "right"] = "left" if column in ("arm", "shape") else "right"
        table.add_column(column, justify=side, no_wrap=column != "shape")
    decimals = decimals_for(board.seed_noise_nats)
    for rank, runs in shown.items():
        mark = "*" if board.recommended in runs else ""
        mark += "=" if runs[0].config_hash in tied else ""
        table.add_row(f"{mark}{rank}", *_cells(runs, decimals))
    return table


def _title(board: BudgetBoard) -> str:
    count, noise = len(board.entries), board.seed_noise_nats
    title = f"{board.target_train_flops:.3g} training FLOPs ({board.convention}): {count} results"
    if noise is None:
        return title + "; without replicates nothing says what is a tie; * recommended"
    return title + (
        f"; seed noise {noise:.2g} nats ({board.degrees_of_freedom} degrees of "
        f"freedom)\nmean over seeds; = cannot be told from the first at 5 %; * recommended: lowest "
        f"without luck"
    )


def _cells(runs: list[TrialRecord], decimals: int) -> list[str]:
    record, config = runs[0], runs[0].proposal.config
    bits = [run.outcome.bits_per_byte for run in runs if run.outcome and run.outcome.bits_per_byte]
    numbers = configuration_numbers(record.proposal)
    return [
        record.proposal.arm,
        shape_in_words(config.architecture),
        _short(numbers["parameters"]),
        _short(config.tokens),
        f"{numbers['tokens_per_parameter']:.1f}",
        f"{config.training.learning_rate:.3g}",
        str(len(runs)),
        f"{fmean(map(loss_of, runs)):.{decimals}f}",
        f"{fmean(bits):.{decimals}f}",
    ]


def _short(count: float) -> str:
    """A count to three digits: 26.7k, 1.25M, 3.4B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"
