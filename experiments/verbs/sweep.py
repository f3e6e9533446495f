"""``isoflop sweep``: run an experiment, or go on with it."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.sweep.leaderboard import best
from experiments.answering import answers, results_in
from experiments.cli import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from experiments.command import print_json, talk
from experiments.confirming import confirm, print_confirmed
from experiments.setup import (
    ExperimentOptions,
    parse_experiment_options,
    standard_output_kept_clean,
)
from experiments.verbs.best import best_document, print_best, server_of
from experiments.watching import Watcher
from runners.driver import SweepSummary
from runners.mlflow.credentials import take_credentials
from runners.sweep import run_sweep
from search.asked.experiment import Experiment
from search.design.question import Question, parse_question
from search.propose.cells import Ground
from search.propose.contract import Proposer
from search.propose.proposer import SweepProposer
from spaces.errors import RequestError

STOPPING = b"stopping: running trials save at their next step; once more stops at once\n"


@dataclass(frozen=True)
class SweepRunOptions(ExperimentOptions):
    """Run an experiment; the same command goes on where it stopped."""

    tracking_uri: str | None = None
    """MLflow tracking server; left out: a SQLite database in the home. Its user and password are
    best given by MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."""
    retry_failed: bool = False
    """Give trials that failed (not those that diverged or ran out of memory) another try."""
    take_over: bool = False
    """Go on although another driver, that gave no sign of life for long, holds the home."""
    insecure: bool = False
    """Join a Ray cluster of other machines although it has no token authentication."""
    until: str | None = None
    """A question, such as "phi +- 0.05" (also alpha, beta, omega, a, loss@FLOPs) or "gap(dual,
    standard)@1e15 +- 0.01": runs are chosen for it, and the sweep ends once a fit answers it, or
    all its trials are there."""
    confirm: float | None = None
    """Instead of going on: write down the forecast of each arm's best shape and loss at these
    training FLOPs, more than any budget, and then train it. A forecast is never changed."""
    confirm_seeds: int = 3
    """Seeds that each forecast is trained on."""


def run(argv: list[str]) -> int:
    """Run the sweep and print its leaderboard, or confirm what it predicts."""
    options, experiment = parse_experiment_options(SweepRunOptions, argv, verb="sweep")
    if options.tracking_uri is not None:
        shown = take_credentials(options.tracking_uri)
        argv = [word.replace(options.tracking_uri, shown) for word in argv]
        options = replace(options, tracking_uri=shown)
    again = shlex.join(("isoflop", "sweep", *argv))
    if options.until is not None:
        return _answer(options, experiment, parse_question(options.until), again)
    if options.confirm is not None:
        return _confirm(options, experiment, options.confirm, again)
    summary = _train(options, experiment, SweepProposer)
    report(experiment, options.home, as_json=options.json)
    return _exit_code(summary, again)


def _answer(
    options: SweepRunOptions, experiment: Experiment, question: Question, again: str
) -> int:
    """Train until the certified interval of a question is narrow enough, within all caps."""
    if options.confirm is not None:
        raise RequestError("--until and --confirm are two requests; make one, then the other")
    for found in answers(
        question,
        train=lambda make_proposer: _train(options, experiment, make_proposer),
        results=results_in(options.home, experiment.name),
    ):
        talk(f"round {found.round}: {found.answer or 'no trial has a result yet'}")
    if found.answer is not None and options.json:
        print_json(found.answer.to_dict() | {"rounds": found.round})
    elif found.answer is not None:
        print(found.answer)
    code = _exit_code(found.summary, again)
    if code == EXIT_DONE and not (found.answer is not None and found.answer.is_enough):
        talk(f"not answered; `isoflop next {options.experiment}` shows what would tell more")
        return EXIT_FAILED
    return code


def _confirm(options: SweepRunOptions, experiment: Experiment, flops: float, again: str) -> int:
    """Forecast, train what is forecast, and print both."""
    confirmed = confirm(
        experiment,
        options.home,
        flops,
        num_seeds=options.confirm_seeds,
        train=lambda runs, make_proposer: _train(options, runs, make_proposer),
        take_over=options.take_over,
    )
    if options.json:
        print_json(confirmed.to_dict())
    else:
        print_confirmed(confirmed)
    return EXIT_DONE if confirmed.summary is None else _exit_code(confirmed.summary, again)


def _train(
    options: SweepRunOptions,
    experiment: Experiment,
    make_proposer: Callable[[Experiment, Ground], Proposer],
) -> SweepSummary:
    """Run an experiment, watched and stopped from the terminal."""
    watcher = Watcher(trials=experiment.trials)
    with standard_output_kept_clean(), _stop_signals() as should_stop, watcher:
        return run_sweep(
            experiment,
            options.home,
            tracking_uri=options.tracking_uri,
            retry_failed=options.retry_failed,
            take_over=options.take_over,
            insecure=options.insecure,
            make_proposer=make_proposer,
            begin=watcher.begin,
            watch=watcher,
            say=talk,
            should_stop=should_stop,
        )


def report(experiment: Experiment, home: Path, *, as_json: bool) -> None:
    """The leaderboard on standard output."""
    found = best(experiment.name, home)
    server = server_of(found.sweep, None)
    if as_json:
        print_json(best_document(found, top=5, server=server))
    else:
        print_best(found, top=3, server=server)


def _exit_code(summary: SweepSummary, again: str) -> int:
    """What the run amounts to, and how it goes on: by the same command, ``again``."""
    for note in summary.notes:
        talk(note)
    if summary.interrupted:
        talk(f"interrupted and saved; `{again}` goes on")
        return EXIT_INTERRUPTED
    talk(f"{summary.num_run} trials run, {summary.num_reused} reused")
    if summary.stopped_by:
        goes_on = f"; with a higher cap `{again}` goes on" if summary.is_capped else ""
        talk(f"stopped in order: {summary.stopped_by}{goes_on}")
    if summary.num_failed:
        talk(
            f"{summary.num_failed} failed; `isoflop status` says why, and --retry-failed gives "
            f"another try"
        )
    if summary.num_lost:
        talk(f"{summary.num_lost} attempts died with their worker; `isoflop status` says why")
    if summary.num_failed and not summary.notes:
        return EXIT_FAILED
    if summary.notes:
        talk(f"not all went well (see above); once that is mended, `{again}` goes on")
        return EXIT_FAILED
    return EXIT_DONE


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM set a flag; a second one stops at once."""
    flagged = False

    def flag(number: int, _frame: Any) -> None:
        nonlocal flagged
        if flagged:
            raise KeyboardInterrupt
        flagged = True
        os.write(2, STOPPING)  # print may be in the middle of a line, and would raise

    before = {number: signal.signal(number, flag) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: flagged
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
