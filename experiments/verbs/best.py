"""``isoflop best``: the leaderboard of every budget, and the link that opens it in MLflow."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from experiments.command import parse_options, print_json, talk
from experiments.comparisons import gains_of, print_comparisons
from experiments.setup import SweepOptions, open_sweep
from runners.mlflow.saved_view import DEFAULT_SERVER, plain_link, view_link
from search.belief.arm_models import recommend
from search.belief.seed_noise import BudgetNoise, budget_noise, by_configuration
from search.propose.tuned_arms import ArmTuning, arm_tunings, tuning_of
from search.record.ledger import SweepRecord, TrialRecord
from search.record.ranking import by_budget
from search.record.trial_records import loss_of
from spaces.flops import forward_flops_per_token
from spaces.parameters import count_parameters


@dataclass(frozen=True)
class BestOptions(SweepOptions):
    """The best configurations of every budget."""

    top: int = 5
    """Rows per budget; 0 for all."""
    server: str | None = None
    """Address of the MLflow UI that links point to; left out: where `isoflop ui` serves."""


def run(argv: list[str]) -> int:
    """Print the leaderboard."""
    options = parse_options(BestOptions, argv, verb="best")
    ledger, name = open_sweep(options)
    sweep, records = ledger.sweep(name), ledger.trials(name)
    ledger.close()
    server = server_of(sweep, options.server)
    if options.json:
        print_json(best_document(sweep, records, top=options.top, server=server))
    else:
        print_best(sweep, records, top=options.top, server=server)
    return 0


def server_of(sweep: SweepRecord, server: str | None) -> str:
    """The address links point to: as asked, or the tracking server, or the local UI."""
    if server is None and (sweep.tracking_uri or "").startswith(("http://", "https://")):
        server = sweep.tracking_uri
    return (server or DEFAULT_SERVER).rstrip("/")


def link_of(sweep: SweepRecord, server: str) -> str | None:
    """The link to *Best per budget*; None before the sweep has reached MLflow."""
    if sweep.mlflow_experiment_id is None:
        return None
    return view_link(server, sweep.mlflow_experiment_id)


def best_document(
    sweep: SweepRecord, records: list[TrialRecord], *, top: int, server: str
) -> dict[str, Any]:
    """The leaderboard as JSON, best first."""
    tunings = arm_tunings(records)
    recommended = recommend(records)
    budgets = []
    for target, group in by_budget(records).items():
        noise = budget_noise(group)
        budgets.append(
            {
                "target_flops": target,
                "convention": group[0].proposal.budget.convention,
                "seed_noise_nats": noise.seed_noise_nats,
                "seed_noise_degrees_of_freedom": noise.degrees_of_freedom,
                "recommended": recommended[target].config_hash,
                "leaderboard": [_entry(record, noise, tunings) for record in _top(group, top)],
            }
        )
    return {
        "link": link_of(sweep, server),
        "budgets": budgets,
        "tuning": [asdict(tuning) for tuning in tunings.values()],
        "compute_equivalent_gains": [asdict(gain) for gain in gains_of(records)],
    }


def _top(group: list[TrialRecord], top: int) -> list[TrialRecord]:
    return group if top <= 0 else group[:top]


def _entry(
    record: TrialRecord, noise: BudgetNoise, tunings: dict[str, ArmTuning]
) -> dict[str, Any]:
    proposal, config, outcome = record.proposal, record.proposal.config, record.outcome
    assert outcome is not None
    convention = proposal.budget.convention
    return {
        "arm": proposal.arm,
        "architecture": asdict(config.architecture),
        "parameters": count_parameters(config.architecture).total,
        "tokens": config.tokens,
        "epochs": outcome.epochs,
        "forward_flops_per_token": forward_flops_per_token(config.architecture)[convention],
        "train_flops": proposal.train_flops,
        "learning_rate": config.training.learning_rate,
        "seed": config.init_seed,
        "data_seed": config.data_seed,
        "loss_nats": outcome.loss_nats,
        "bits_per_byte": outcome.bits_per_byte,
        "config_hash": record.config_hash,
        "run_id": record.mlflow_run_id,
        "purpose": proposal.purpose,
        "tuning": tuning_of(record, tunings),
        "tied_with_best": _is_tied(record, noise),
        "warnings": list(outcome.warnings),
    }


def _is_tied(record: TrialRecord, noise: BudgetNoise) -> bool | None:
    """Whether the trial cannot be told from the first; None where no replicate tells the noise."""
    return None if noise.seed_noise_nats is None else record.config_hash in noise.tied


def print_best(sweep: SweepRecord, records: list[TrialRecord], *, top: int, server: str) -> None:
    """The leaderboard as one table per budget, a row per configuration, then the link."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 120)
    groups = by_budget(records)
    if not groups:
        print(f"{sweep.name} has no result yet; `isoflop status {sweep.name}` says what it does")
        return
    recommended = recommend(records)
    for target, group in groups.items():
        shown = _shown(group, top, recommended[target])
        console.print(_table(_title(target, group), group, shown, recommended[target]))
        for line in _warnings(shown):
            print(line)
    print_comparisons(records)
    link = link_of(sweep, server)
    if link is None:
        talk("not in MLflow yet: run the sweep again with MLflow reachable")
        return
    print(f"In MLflow (`isoflop ui` serves it): {link}")
    assert sweep.mlflow_experiment_id is not None
    print(f"Without the saved view: {plain_link(server, sweep.mlflow_experiment_id)}")


Rows = dict[int, list[TrialRecord]]
"""Results of a configuration, one for each of its seeds, by its rank."""


def _shown(group: list[TrialRecord], top: int, recommended: TrialRecord) -> Rows:
    """The rows of a table: lowest mean loss over seeds first, and what is recommended."""
    configurations = by_configuration(group).values()
    rows = enumerate(sorted(configurations, key=lambda runs: fmean(map(loss_of, runs))), start=1)
    return {n: runs for n, runs in rows if n <= top or top <= 0 or recommended in runs}


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


def _table(title: str, group: list[TrialRecord], shown: Rows, recommended: TrialRecord) -> Any:
    from rich.table import Table

    noise = budget_noise(group)
    table = Table(title=title, title_justify="left")
    columns = ("arm", "layers", "K", "width", "deep", "wide", "params", "tokens", "tok/par")
    for column in ("#", *columns, "lr", "seeds", "loss\n(nats)", "bits/\nbyte"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for rank, runs in shown.items():
        mark = "*" if recommended in runs else ""
        mark += "=" if _is_tied(runs[0], noise) else ""
        table.add_row(f"{mark}{rank}", *_cells(runs))
    return table


def _title(target: float, group: list[TrialRecord]) -> str:
    noise, convention = budget_noise(group), group[0].proposal.budget.convention
    title = f"{target:.3g} training FLOPs ({convention}): {len(group)} results"
    if noise.seed_noise_nats is None:
        return title + "; without replicates nothing says what is a tie; * recommended"
    return title + (
        f"; seed noise {noise.seed_noise_nats:.4f} nats ({noise.degrees_of_freedom} degrees of "
        f"freedom)\nmean over seeds; = cannot be told from the first at 5 %; * recommended: lowest "
        f"without luck"
    )


def _cells(runs: list[TrialRecord]) -> list[str]:
    record, config = runs[0], runs[0].proposal.config
    bits = [run.outcome.bits_per_byte for run in runs if run.outcome and run.outcome.bits_per_byte]
    a, total = config.architecture, count_parameters(config.architecture).total
    return [
        record.proposal.arm,
        str(a.num_layers),
        str(a.num_loops),
        str(a.d_model),
        str(a.deep_ffn or "-"),
        str(a.wide_ffn or "-"),
        _short(total),
        _short(config.tokens),
        f"{config.tokens / total:.1f}",
        f"{config.training.learning_rate:.3g}",
        str(len(runs)),
        f"{fmean(map(loss_of, runs)):.4f}",
        f"{fmean(bits):.4f}",
    ]


def _short(count: float) -> str:
    """A count to three digits: 26.7k, 1.25M, 3.4B."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:g}"
