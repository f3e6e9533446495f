"""``isoflop sweep``: run an experiment, or go on with it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.cli import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from experiments.command import print_json, talk
from experiments.setup import (
    ExperimentOptions,
    parse_experiment_options,
    prepare_ground,
    report_set_aside,
    resolve_device,
    standard_output_kept_clean,
)
from experiments.verbs.best import best_document, print_best, server_of
from experiments.watching import Watcher
from runners.driver import Driver, SweepSummary
from runners.mlflow.saved_view import local_tracking_uri
from runners.pools.contract import Pool, WorkerOptions
from runners.pools.inline_pool import InlinePool
from runners.text.corpus import Corpus
from search.asked.experiment import Experiment
from search.propose.proposer import Proposer
from search.record.code_version import code_version
from search.record.lease import LeaseLost
from search.record.ledger import Ledger
from search.record.ledger_errors import LedgerUnavailable
from search.record.trial import WAITING_STATES, TrialState

if TYPE_CHECKING:
    from runners.mlflow.projection_thread import ProjectionThread

MLFLOW_PATIENCE_SECONDS = 60.0
HASTE_SECONDS = 3.0
STOPPING = b"stopping: running trials save at their next step; once more stops at once\n"


@dataclass(frozen=True)
class SweepRunOptions(ExperimentOptions):
    """Run an experiment; the same command goes on where it stopped."""

    tracking_uri: str | None = None
    """MLflow tracking server; left out: a SQLite database in the home."""
    retry_failed: bool = False
    """Give trials that failed (not those that diverged or ran out of memory) another try."""
    take_over: bool = False
    """Go on although another driver, that gave no sign of life for long, holds the home."""
    insecure: bool = False
    """Join a Ray cluster of other machines although it has no token authentication."""


def run(argv: list[str]) -> int:
    """Run the sweep and print its leaderboard."""
    options, experiment = parse_experiment_options(SweepRunOptions, argv, verb="sweep")
    uri = options.tracking_uri or local_tracking_uri(options.home)
    with standard_output_kept_clean():
        summary = run_sweep(
            experiment,
            options.home,
            tracking_uri=uri,
            retry_failed=options.retry_failed,
            take_over=options.take_over,
            insecure=options.insecure,
        )
    report(experiment, options.home, as_json=options.json)
    return _exit_code(summary, shlex.join(("isoflop", "sweep", *argv)))


def run_sweep(
    experiment: Experiment,
    home: Path,
    *,
    tracking_uri: str,
    retry_failed: bool = False,
    take_over: bool = False,
    insecure: bool = False,
) -> SweepSummary:
    """Bring a sweep as far as its experiment asks; returns what this run of it did.

    Raises `RequestError` where another driver works on the home.
    """
    ledger = Ledger(home, create=True)
    with (
        contextlib.closing(ledger),
        ledger.held(take_over=take_over),
        _stop_signals() as should_stop,
    ):
        shutil.rmtree(ray_scratch(home), ignore_errors=True)  # of a driver that was killed
        corpus, ground = prepare_ground(experiment, home)
        talk(corpus.describe_sizes())
        proposer = Proposer(experiment, ground)
        before = ledger.state_counts()
        _begin(ledger, experiment, proposer)
        if retry_failed:
            count = ledger.reopen(experiment.name, "failed")
            talk(
                f"{count} failed trial{'s' * (count > 1)}: another try" if count else "none failed"
            )
        with Watcher(trials=experiment.trials) as watcher:
            watcher.seed(ledger.trials(experiment.name))
            pool = _open_pool(experiment, corpus, home, insecure=insecure)
            driver = Driver(
                sweep=experiment.name,
                ledger=ledger,
                proposer=proposer,
                pool=pool,
                folder=home.resolve() / "sweeps" / experiment.name,
                watch=watcher,
                say=talk,
                should_stop=should_stop,
            )
            projection = _project(ledger, experiment.name, tracking_uri)
            summary = _drive(driver, pool, ledger, projection)
        if not summary.interrupted:
            summary.notes += _project_others(ledger, experiment.name, before)
        return summary


def _drive(
    driver: Driver, pool: Pool, ledger: Ledger, projection: ProjectionThread
) -> SweepSummary:
    """Run to the end or to a stop; whatever the end, no attempt is left running on paper."""
    patience = MLFLOW_PATIENCE_SECONDS
    try:
        try:
            summary = driver.run()
        finally:
            pool.close()
    except BaseException as error:
        with contextlib.suppress(LedgerUnavailable, LeaseLost):
            ledger.fence_all(reason=f"its driver stopped at once ({type(error).__name__})")
            projection.finish(interrupted=True, timeout_seconds=HASTE_SECONDS)
        if not isinstance(error, KeyboardInterrupt):
            raise
        return SweepSummary(interrupted=True)
    problem = projection.finish(interrupted=summary.interrupted, timeout_seconds=patience)
    if problem:
        summary.notes.append(f"{problem}; the same command fills in what MLflow lacks")
    return summary


def _begin(ledger: Ledger, experiment: Experiment, proposer: Proposer) -> None:
    """Write the sweep down, fence what an earlier driver left, set aside what changed."""
    now = code_version()
    before = ledger.record_sweep(
        experiment.name,
        experiment_json=experiment.model_dump_json(),
        text_fingerprint=proposer.ground.text_fingerprint,
        code_version=now,
    )
    fenced = ledger.fence_all(reason="its driver is gone")
    if fenced:
        talk(f"{fenced} attempt{'s' * (fenced > 1)} of an earlier run did not end; tried again")
    if before is None:
        return
    if before.code_version != now:
        talk(f"code changed since this sweep last ran: {before.code_version}, now {now}")
    records = ledger.trials(experiment.name)
    reasons = {record.config_hash: proposer.why_set_aside(record) for record in records}
    ledger.set_aside(experiment.name, reasons)
    report_set_aside(reasons)
    if experiment.pruning.rule == "none":
        count = ledger.reopen(experiment.name, "pruned")
        if count:
            talk(f"{count} pruned trial{'s' * (count > 1)}: now trained whole")


def _open_pool(experiment: Experiment, corpus: Corpus, home: Path, *, insecure: bool) -> Pool:
    workers = experiment.workers
    options = WorkerOptions(
        corpus=corpus,
        device=resolve_device(experiment),
        num_threads=workers.cpus_each,
        checkpoint_seconds=workers.checkpoint_seconds,
        engine=workers.engine,
    )
    if workers.pool == "inline":
        return InlinePool(options)
    from runners.pools.ray_pool import RayPool

    return RayPool(
        options,
        num_workers=workers.count,
        cpus_each=workers.cpus_each,
        address=workers.address,
        insecure=insecure,
        scratch=ray_scratch(home) if workers.address is None else None,
    )


def ray_scratch(home: Path) -> Path:
    """Where the home's Ray keeps sockets and logs: one short path, so that a killed driver's
    leftovers are found by the next."""
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"isoflop-{digest}"


def _project(ledger: Ledger, sweep: str, uri: str) -> ProjectionThread:
    """Start sending to MLflow."""
    from runners.mlflow.projection_thread import ProjectionThread

    thread = ProjectionThread(ledger, sweep, tracking_uri=uri)
    thread.start()
    return thread


def _project_others(
    ledger: Ledger, own: str, before: dict[str, dict[TrialState, int]]
) -> list[str]:
    """Show in MLflow what this sweep changed for others of the home; what went wrong."""
    problems = []
    for name, states in ledger.state_counts().items():
        sweep = ledger.sweep(name)
        if name == own or states == before.get(name) or sweep.mlflow_run_id is None:
            continue
        uri = sweep.tracking_uri or local_tracking_uri(ledger.home)
        problem = _project(ledger, name, uri).finish(
            interrupted=any(state in WAITING_STATES for state in states),
            timeout_seconds=MLFLOW_PATIENCE_SECONDS,
        )
        if problem:
            problems.append(f"sweep {name}, which has results of this one: {problem}")
    return problems


def report(experiment: Experiment, home: Path, *, as_json: bool) -> None:
    """The leaderboard on standard output."""
    ledger = Ledger(home)
    sweep, records = ledger.sweep(experiment.name), ledger.trials(experiment.name)
    ledger.close()
    server = server_of(sweep, None)
    if as_json:
        print_json(best_document(sweep, records, top=5, server=server))
    else:
        print_best(sweep, records, top=3, server=server)


def _exit_code(summary: SweepSummary, again: str) -> int:
    """What the run amounts to, and how it goes on: by the same command, ``again``."""
    for note in summary.notes:
        talk(note)
    if summary.interrupted:
        talk(f"interrupted and saved; `{again}` goes on")
        return EXIT_INTERRUPTED
    talk(f"{summary.num_run} trials run, {summary.num_reused} reused")
    if summary.stopped_by:
        talk(f"stopped in order: {summary.stopped_by}; with a higher cap `{again}` goes on")
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
