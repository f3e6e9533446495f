"""``isoflop export``: a trained model as a folder that transformers loads, and in the registry."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.command import default_home, parse_options, print_json, talk
from experiments.setup import standard_output_kept_clean, sweep_name
from search.record.evaluations import Evaluation
from search.record.ledger import Ledger, TrialRecord
from search.record.runs import find_run
from spaces.errors import RequestError

if TYPE_CHECKING:
    from runners.mlflow.registry import Registered


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """A run as a Hugging Face folder: weights, configuration, tokenizer, card, and code where
    transformers has no class for the arm; or the champion of an experiment, in MLflow's registry.
    """

    run: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="RUN")] = None
    """A run by the beginning of its config_hash, its MLflow run id, or SWEEP/NUMBER."""
    best: str | None = None
    """An experiment whose champion is exported and registered, instead of a RUN."""
    budget: float | None = None
    """With --best: training FLOPs of the budget that it is best at; left out: the largest."""
    metric: str | None = None
    """With --best: a number to choose by instead of the loss, such as blimp.acc."""
    alias: str = "champion"
    """With --best: what the registry calls it."""
    hf: Path | None = None
    """The folder to make; it must not exist."""
    home: Path = field(default_factory=default_home)
    """Where ledger, weights and text live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


def run(argv: list[str]) -> int:
    """Write the folder; register the champion."""
    options = parse_options(ExportOptions, argv, verb="export")
    if (options.run is None) == (options.best is None):
        raise RequestError("name one RUN to export, or an experiment's champion with --best")
    if options.best is None and options.hf is None:
        raise RequestError("name the folder to make with --hf DIR")
    record = _champion(options) if options.best is not None else _named(options)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.hf or Path(scratch) / "model"
        files = _export(record, folder, options.home)
        registered = None if options.best is None else _register(record, folder, options)
    document = {
        "config_hash": record.config_hash,
        "folder": None if options.hf is None else str(options.hf),
        "files": files,
        "registered": None if registered is None else asdict(registered),
    }
    if options.json:
        print_json(document)
        return 0
    if options.hf is not None:
        print(options.hf)
    if registered is not None:
        print(f"models:/{registered.name}@{registered.alias} (version {registered.version})")
    talk(f"{record.proposal.arm} {record.config_hash}: {', '.join(files)}")
    return 0


def _named(options: ExportOptions) -> TrialRecord:
    assert options.run is not None
    with contextlib.closing(Ledger(options.home)) as ledger:
        return find_run(ledger, options.run)


def _champion(options: ExportOptions) -> TrialRecord:
    """The recommended run of a budget, or the first by a number. Raises `RequestError`."""
    from analysis.sweep.leaderboard import best
    from experiments.metric_board import metric_name, ranked_by

    assert options.best is not None
    found = best(sweep_name(options.best), options.home)
    if options.metric is not None:
        found = ranked_by(found, metric_name(found, options.metric))
    boards = {board.target_train_flops: board for board in found.budgets}
    target = options.budget if options.budget is not None else max(boards, default=None)
    if target is None or target not in boards:
        known = ", ".join(f"{each:g}" for each in boards) or "none yet"
        raise RequestError(
            f"{found.sweep.name} has no result at the budget {target}; its budgets: {known}"
        )
    board = boards[target]
    return board.recommended if options.metric is None else board.entries[0].record


def _export(record: TrialRecord, folder: Path, home: Path) -> list[str]:
    from runners.export.folder import export_folder
    from runners.trial.trained import load_trained

    trained = load_trained(record, home)
    scores = dict(_headline(each) for each in record.evaluations)
    return export_folder(trained, folder, laws=laws_of(record, home), scores=scores)


def _headline(evaluation: Evaluation) -> tuple[str, float]:
    name = f"{evaluation.task} {evaluation.headline} ({evaluation.num_items:,} items)"
    return name, evaluation.score(evaluation.headline).value


def laws_of(record: TrialRecord, home: Path) -> list[str]:
    """The loss law of the run's family over its sweep, or why there is none, for a card."""
    from analysis.points.sweep_frame import sweep_frame
    from analysis.sweep.sweep_fit import fit_sweep

    try:
        fitted = fit_sweep(sweep_frame(record.sweep, home))
    except RequestError as error:
        return [f"- No law of its sweep: {error}"]
    surface = next(arm.surface for arm in fitted.arms if arm.arm == record.proposal.family)
    lines = [f"- `{surface.law.formula}` over its sweep: {surface.status}."]
    for name, value in surface.parameters.items():
        interval = surface.interval(name)
        between = "" if interval is None else f" ({interval[0]:.4g} to {interval[1]:.4g})"
        lines.append(f"- {name}: " + ("refused" if value is None else f"{value:.4g}{between}"))
    return lines


def _register(record: TrialRecord, folder: Path, options: ExportOptions) -> Registered:
    from runners.mlflow.registry import register_champion

    with contextlib.closing(Ledger(options.home)) as ledger:
        sweep = ledger.sweep(record.sweep)
    with standard_output_kept_clean():
        return register_champion(options.home, sweep, record, folder, alias=options.alias)
