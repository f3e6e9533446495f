"""``isoflop evaluate RUN --tasks PATH``: what a trained model knows, by local tasks."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from experiments.command import default_home, parse_options, print_json, talk
from experiments.setup import standard_output_kept_clean
from search.record.code_version import code_version
from search.record.evaluations import Evaluation, Score
from search.record.lease import LeaseLost
from search.record.ledger import Ledger, TrialRecord
from search.record.ledger_errors import LedgerUnavailable
from search.record.runs import find_run
from spaces.errors import RequestError

if TYPE_CHECKING:
    import polars as pl

    from analysis.evaluation.scores import BetterForm, Paired
    from runners.probes.tasks import Task
    from runners.trial.trained import Trained

ITEMS_FOLDER = "evaluations"
"""Of a home: what each run said to each item, as ``RUN/TASK-FINGERPRINT.parquet``."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What a trained model knows: bits per byte of raw text, and multiple choice."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run by the beginning of its config_hash, its MLflow run id, or SWEEP/NUMBER."""
    tasks: list[Path]
    """Files of JSON lines, folders of them, or a folder of MMLU's files."""
    against: str | None = None
    """Another run, compared on the same items."""
    few_shot: bool = False
    """Put TASK.fewshot.txt (of MMLU, its dev questions) before every context."""
    limit: int | None = None
    """At most so many items of each task, evenly spread; such scores are not kept."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto: cuda where there is one."""
    home: Path = field(default_factory=default_home)
    """Where ledger, weights and text live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One task."""

    evaluation: Evaluation
    paired: tuple[Paired, ...]
    """Against the other run; empty without one."""
    items: tuple[pl.DataFrame, ...]
    """What each run said."""


def run(argv: list[str]) -> int:
    """Evaluate, keep and print."""
    options = parse_options(EvaluateOptions, argv, verb="evaluate")
    if options.limit is not None and options.limit < 1:
        raise RequestError(f"--limit must be 1 or more, got {options.limit}")
    with contextlib.closing(Ledger(options.home)) as ledger:
        record = find_run(ledger, options.run)
        other = None if options.against is None else find_run(ledger, options.against)
    from runners.probes.tasks import find_tasks

    tasks = find_tasks(options.tasks, few_shot=options.few_shot, limit=options.limit)
    results = list(_results(options, tasks, record, other))
    if options.json:
        print_json(_document(results, record, other))
    else:
        _print(results, record, other)
    return 0


def _results(
    options: EvaluateOptions, tasks: Sequence[Task], record: TrialRecord, other: TrialRecord | None
) -> Iterator[Result]:
    """Task after task: both runs, what they scored, and their difference."""
    from analysis.evaluation.scores import compare

    runs = [record] if other is None else [record, other]
    models = [_ready(each, options) for each in runs]
    is_new = False
    try:
        for task in tasks:
            found = [_evaluated(task, trained, options) for trained in models]
            if (
                options.limit is None
            ):  # at once: what is scored is not scored again, whatever ends us
                is_new |= _keep(options.home, runs, [evaluation for evaluation, _ in found])
            evaluation, items = found[0]
            paired = compare(items, found[1][1]) if len(found) > 1 else ()
            frames = tuple(each for _, each in found)
            yield Result(evaluation=evaluation, paired=paired, items=frames)
    finally:
        if is_new:
            _show(options.home, runs)


def _ready(record: TrialRecord, options: EvaluateOptions) -> Trained:
    from runners.trial.trained import load_trained

    return load_trained(record, options.home, device=options.device)


def _evaluated(
    task: Task, trained: Trained, options: EvaluateOptions
) -> tuple[Evaluation, pl.DataFrame]:
    """A run's scores on a task, and its items; those that the home has are not scored again."""
    import polars as pl

    from analysis.evaluation.scores import headline_of, scores_of
    from runners.probes.items import score_task

    config_hash, started = trained.record.config_hash, time.monotonic()
    place = options.home / ITEMS_FOLDER / config_hash / f"{task.name}-{task.fingerprint[:16]}"
    file = place.with_suffix(".parquet")
    known = [each for each in trained.record.evaluations if each.task == task.name]
    if file.exists() and known and known[0].fingerprint == task.fingerprint:
        return known[0], pl.read_parquet(file)
    with _progress(f"{config_hash} {task.name}") as say:
        items = score_task(task, trained.model, trained.tokenizer, say=say)
    seconds = time.monotonic() - started
    if options.limit is None:
        _write(items, file)
    evaluation = Evaluation(
        config_hash=config_hash,
        task=task.name,
        fingerprint=task.fingerprint,
        num_items=items.height,
        num_cut=int(items["is_cut"].sum()),
        headline=headline_of(task.name, items),
        scores=scores_of(items),
        wall_seconds=seconds,
        evaluated_at=time.time(),
        code_version=code_version(),
    )
    return evaluation, items


def _write(items: pl.DataFrame, file: Path) -> None:
    from runners.machine.files import replacing

    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as stream:
        items.write_parquet(stream)


@contextlib.contextmanager
def _progress(title: str) -> Iterator[Any]:
    """A bar on standard error, where that is a terminal; what it gives is told how far it is."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        row = bar.add_task(title, total=None)
        yield lambda done, count: bar.update(row, completed=done, total=count)


def _keep(home: Path, runs: Sequence[TrialRecord], evaluations: Sequence[Evaluation]) -> bool:
    """Write scores into the ledger; whether there were new ones. What cannot be is said."""
    new = [each for each in evaluations if not any(each in record.evaluations for record in runs)]
    if not new:
        return False
    with contextlib.closing(Ledger(home)) as ledger:
        try:
            for evaluation in new:
                ledger.keep_evaluation(evaluation)
        except (LeaseLost, LedgerUnavailable, RequestError) as error:
            talk(f"the scores are not in the ledger: {error}")
            return False
    return True


def _show(home: Path, runs: Sequence[TrialRecord]) -> None:
    """The ledger's scores of these runs' sweeps, in MLflow."""
    with contextlib.closing(Ledger(home)) as ledger:
        for sweep in sorted({record.sweep for record in runs}):
            _show_sweep(ledger, sweep)


def _show_sweep(ledger: Ledger, sweep: str) -> None:
    from runners.mlflow.credentials import take_credentials
    from runners.mlflow.projection import MlflowProjection
    from runners.mlflow.saved_view import local_tracking_uri

    record = ledger.sweep(sweep)
    if record.mlflow_experiment_id is None:
        talk(f"{sweep} is not in MLflow yet; its next run sends the scores, too")
        return
    unfinished = any(each.outcome is None for each in ledger.trials(sweep))
    uri = take_credentials(record.tracking_uri or local_tracking_uri(ledger.home))
    try:
        with standard_output_kept_clean():
            projection = MlflowProjection(ledger, sweep, tracking_uri=uri)
            projection.finish(interrupted=unfinished)
    except Exception as error:  # whatever MLflow or its store raises
        talk(f"MLflow does not have the scores: {str(error).splitlines()[0]}; see isoflop doctor")


def _document(
    results: Sequence[Result], record: TrialRecord, other: TrialRecord | None
) -> dict[str, Any]:
    return {
        "config_hash": record.config_hash,
        "against": None if other is None else other.config_hash,
        "tasks": [
            asdict(result.evaluation) | {"paired": [asdict(each) for each in result.paired]}
            for result in results
        ],
        "olmes": [
            asdict(each) | {"config_hash": run.config_hash}
            for run, each in _better_forms(results, record, other)
        ],
    }


def _better_forms(
    results: Sequence[Result], record: TrialRecord, other: TrialRecord | None
) -> list[tuple[TrialRecord, BetterForm]]:
    """Of each run, what OLMES takes of tasks that are there in two forms."""
    from analysis.evaluation.scores import better_forms

    runs = [record] if other is None else [record, other]
    choices = [result for result in results if "label" in result.items[0].columns]
    return [
        (run, each)
        for number, run in enumerate(runs)
        for each in better_forms({r.evaluation.task: r.items[number] for r in choices})
    ]


def _print(results: Sequence[Result], record: TrialRecord, other: TrialRecord | None) -> None:
    """A table of all scores, a row each; the rule that a task is best read by is marked."""
    import sys

    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{record.proposal.arm} {record.config_hash}", title_justify="left")
    columns = ["task", "rule", "items", "score", "± s.e.", "chance", "above chance?"]
    if other is not None:
        columns += [f"less {other.config_hash[:8]}", "± s.e.", "p"]
    for column in columns:
        table.add_column(column, justify="left" if column in ("task", "rule") else "right")
    for result in sorted(results, key=_tells_less):
        paired = {each.rule: each for each in result.paired}
        for score in result.evaluation.scores:
            cells = _cells(result.evaluation, score)
            if other is not None:
                cells += _paired_cells(paired[score.rule])
            table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for result in results:
        if result.evaluation.num_cut:
            print(
                f"! {result.evaluation.task}: {result.evaluation.num_cut} of "
                f"{result.evaluation.num_items} items are longer than the model's context and lost "
                f"their beginning"
            )
    for run, each in _better_forms(results, record, other):
        others = ", ".join(f"{name} {value:.4f}" for name, value in each.others.items())
        print(
            f"olmes: {run.config_hash[:8]} {each.task} {each.value:.4f}, mean of "
            f"{each.num_groups} groups by {each.form} {each.rule}, the better form ({others})"
        )
    print("* the rule that the task is best read by; standard errors are over items")


def _tells_less(result: Result) -> bool:
    """False of what tells small models apart, which is shown first: raw text, minimal pairs."""
    rules = {score.rule for score in result.evaluation.scores}
    return "bits_per_byte" not in rules and result.evaluation.task != "blimp"


def _cells(evaluation: Evaluation, score: Score) -> list[str]:
    from analysis.evaluation.scores import SIGNIFICANT

    mark = " *" if score.rule == evaluation.headline else ""
    verdict = ""
    if score.p_chance is not None:
        verdict = "not above chance" if score.p_chance > SIGNIFICANT else f"p {score.p_chance:.1g}"
    return [
        evaluation.task,
        score.rule + mark,
        f"{evaluation.num_items:,}",
        f"{score.value:.4f}",
        _number(score.standard_error),
        _number(score.chance),
        verdict,
    ]


def _paired_cells(paired: Paired) -> list[str]:
    p_value = "" if paired.p_value is None else f"{paired.p_value:.2g}"
    return [f"{paired.difference:+.4f}", _number(paired.standard_error), p_value]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
