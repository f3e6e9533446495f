"""How is a sweep run from beginning to end? Without a terminal: who calls, watches and stops it.

`isoflop.run_sweep` is this function; ``isoflop sweep`` calls it with a live table and signals.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from runners.driver import Driver, DriverSettings, SweepEvent, SweepSummary
from runners.ground import most_side_by_side, prepare_ground, resolve_device
from runners.mlflow.credentials import take_credentials
from runners.mlflow.saved_view import local_tracking_uri
from runners.own_arms import require_certified
from runners.pools.contract import Pool, WorkerOptions
from runners.pools.inline_pool import InlinePool
from runners.pools.ray_scratch import clear_ray_scratch, ray_scratch
from runners.text.corpus import Corpus
from search.asked.experiment import Experiment
from search.propose.cells import Ground
from search.propose.contract import Proposer
from search.propose.proposer import SweepProposer
from search.propose.set_aside import set_aside_in_words
from search.record.code_version import code_version
from search.record.lease import LeaseLost
from search.record.ledger import Ledger
from search.record.ledger_errors import LedgerUnavailable
from search.record.trial import WAITING_STATES, TrialState
from search.record.trial_records import TrialRecord
from spaces.arms.registry import loaded_files

if TYPE_CHECKING:
    from runners.mlflow.projection_thread import ProjectionThread

MLFLOW_PATIENCE_SECONDS = 60.0
HASTE_SECONDS = 3.0

Watch = Callable[[SweepEvent], None]
Say = Callable[[str], None]


def run_sweep(
    experiment: Experiment,
    home: Path | str = "runs",
    *,
    tracking_uri: str | None = None,
    retry_failed: bool = False,
    take_over: bool = False,
    insecure: bool = False,
    make_proposer: Callable[[Experiment, Ground], Proposer] = SweepProposer,
    make_pool: Callable[[WorkerOptions], Pool] | None = None,
    watch: Watch | None = None,
    begin: Callable[[list[TrialRecord]], None] | None = None,
    say: Say | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> SweepSummary:
    """Bring a sweep as far as its experiment asks; returns what this run of it did.

    The same call goes on where it stopped. ``tracking_uri`` is MLflow's, left out: a database in
    the home. ``make_proposer`` and ``make_pool`` put others in the place of the experiment's search
    and workers. ``begin`` is told the records that are there before anything runs, ``watch`` every
    event, ``say`` what a person should know meanwhile; once ``should_stop`` says so, what runs is
    saved and the call returns.

    Raises `RequestError` where the request is wrong, another driver works on the home, or an arm of
    your own is not what its price says.
    """
    home, say = Path(home), say or _nothing
    ledger = Ledger(home, create=True)
    with contextlib.closing(ledger), ledger.held(take_over=take_over):
        clear_ray_scratch(home)  # of a driver that was killed
        corpus, ground = prepare_ground(experiment, home, say=say)
        say(corpus.describe_sizes())
        require_certified(SweepProposer(experiment, ground))
        proposer = make_proposer(experiment, ground)
        before = ledger.state_counts()
        begin_sweep(ledger, experiment, ground, proposer, say=say)
        if retry_failed:
            count = ledger.reopen(experiment.name, "failed")
            say(f"{count} failed trial{'s' * (count > 1)}: another try" if count else "none failed")
        if begin is not None:
            begin(ledger.trials(experiment.name))
        options = worker_options(experiment, corpus)
        pool = (
            open_pool(experiment, options, home, insecure=insecure, say=say)
            if make_pool is None
            else make_pool(options)
        )
        driver = Driver(
            sweep=experiment.name,
            ledger=ledger,
            proposer=proposer,
            pool=pool,
            settings=driver_settings(experiment),
            folder=home.resolve() / "sweeps" / experiment.name,
            watch=watch or _nothing,
            say=say,
            should_stop=should_stop or _never,
        )
        uri = tracking_address(tracking_uri, home)
        summary = _drive(driver, pool, ledger, _project(ledger, experiment.name, uri))
        if not summary.interrupted:
            summary.notes += _project_others(ledger, experiment.name, before)
        return summary


def _nothing(_: object) -> None:
    """Nobody listens."""


def _never() -> bool:
    """Nobody asks to stop."""
    return False


def tracking_address(asked: str | None, home: Path) -> str:
    """MLflow's address, without user and password; left out, the home's own database."""
    return local_tracking_uri(home) if asked is None else take_credentials(asked)


def driver_settings(experiment: Experiment) -> DriverSettings:
    """Of an experiment, how its driver treats workers and trials."""
    return DriverSettings(
        max_attempts=experiment.workers.max_attempts,
        silence_seconds=experiment.workers.silence_seconds,
        keeps_weights=experiment.training.save_weights,
        shares_trunks=experiment.budget.trunk,
    )


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


def begin_sweep(
    ledger: Ledger, experiment: Experiment, ground: Ground, proposer: Proposer, *, say: Say
) -> None:
    """Write the sweep down, fence what an earlier driver left, set aside what changed."""
    now = code_version()
    before = ledger.record_sweep(
        experiment.name,
        experiment_json=experiment.model_dump_json(),
        text_fingerprint=ground.text_fingerprint,
        code_version=now,
    )
    fenced = ledger.fence_all(reason="its driver is gone")
    if fenced:
        say(f"{fenced} attempt{'s' * (fenced > 1)} of an earlier run did not end; tried again")
    if before is None:
        return
    if before.code_version != now:
        say(f"code changed since this sweep last ran: {before.code_version}, now {now}")
    records = ledger.trials(experiment.name)
    reasons = {record.config_hash: proposer.why_set_aside(record) for record in records}
    ledger.set_aside(experiment.name, reasons)
    for line in set_aside_in_words(reasons):
        say(line)
    if experiment.pruning.rule == "none":
        count = ledger.reopen(experiment.name, "pruned")
        if count:
            say(f"{count} pruned trial{'s' * (count > 1)}: now trained whole")


def worker_options(experiment: Experiment, corpus: Corpus) -> WorkerOptions:
    """What every worker of a sweep is told."""
    workers = experiment.workers
    return WorkerOptions(
        corpus=corpus,
        device=resolve_device(experiment),
        num_threads=workers.cpus_each,
        checkpoint_seconds=workers.checkpoint_seconds,
        pack=most_side_by_side(experiment),
        engine=workers.engine,
        keeps_weights=experiment.training.save_weights,
        arm_files=loaded_files(),
    )


def open_pool(
    experiment: Experiment,
    options: WorkerOptions,
    home: Path,
    *,
    insecure: bool,
    say: Say | None = None,
) -> Pool:
    """The workers that an experiment asks for."""
    workers = experiment.workers
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
        say=say or _nothing,
    )


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
        uri = tracking_address(sweep.tracking_uri, ledger.home)
        problem = _project(ledger, name, uri).finish(
            interrupted=any(state in WAITING_STATES for state in states),
            timeout_seconds=MLFLOW_PATIENCE_SECONDS,
        )
        if problem:
            problems.append(f"sweep {name}, which has results of this one: {problem}")
    return problems
