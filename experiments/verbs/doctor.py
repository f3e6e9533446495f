"""``isoflop doctor``: do ledger, MLflow and files agree, and what is to be done if not?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from experiments.cli import EXIT_DONE, EXIT_FAILED
from experiments.command import default_home, parse_options, print_json, talk
from experiments.setup import standard_output_kept_clean
from runners.machine.files import PARTIAL_SUFFIX, abandoned_partials
from runners.mlflow.credentials import take_credentials
from runners.mlflow.saved_view import local_tracking_uri
from search.record.ledger import FILE_NAME, Ledger, TrialRecord


@dataclass(frozen=True)
class DoctorOptions:
    """Compare ledger, MLflow and files of a home."""

    home: Path = field(default_factory=default_home)
    """Where ledger, MLflow database and artifacts live."""
    tracking_uri: str | None = None
    """MLflow tracking server; left out: the home's SQLite database."""
    rebuild_mlflow: bool = False
    """Make MLflow show what the ledger has; a database that cannot be read is put aside."""
    take_over: bool = False
    """For --rebuild-mlflow: go on although a driver, silent for long, holds the home."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that is not as it should be."""

    place: Literal["ledger", "files", "mlflow"]
    """Where."""
    sweep: str | None
    """Of which sweep; None for the home."""
    config_hash: str | None
    """Of which trial, where it is one."""
    problem: str
    """What."""
    remedy: str
    """What to do."""


def run(argv: list[str]) -> int:
    """Examine, rebuild if asked, and report."""
    options = parse_options(DoctorOptions, argv, verb="doctor")
    ledger = Ledger(options.home)
    uri = take_credentials(options.tracking_uri or local_tracking_uri(options.home))
    with contextlib.closing(ledger), standard_output_kept_clean():
        if options.rebuild_mlflow:
            with ledger.held(take_over=options.take_over):
                rebuild_mlflow(ledger, uri)
        findings = examine(ledger, uri)
        counts = {name: len(ledger.trials(name)) for name in ledger.sweep_names()}
    if findings:
        talk(f"isoflop doctor: {len(findings)} findings, each with what to do")
    if options.json:
        print_json({"sweeps": counts, "findings": [asdict(each) for each in findings]})
    else:
        _print(counts, findings)
    return EXIT_FAILED if findings else EXIT_DONE


def _print(counts: dict[str, int], findings: list[Finding]) -> None:
    for each in findings:
        where = " ".join(word for word in (each.place, each.sweep, each.config_hash) if word)
        print(f"{where}: {each.problem}; {each.remedy}")
    trials = sum(counts.values())
    verdict = f"{len(findings)} findings" if findings else "ledger, MLflow and files agree"
    print(f"{len(counts)} sweeps, {trials} trials: {verdict}")


def examine(ledger: Ledger, tracking_uri: str) -> list[Finding]:
    """All that is not as it should be."""
    holder = ledger.holder()
    alive = holder is not None and not holder.process.is_gone
    if alive:
        talk(f"{holder} works on this home: what it has not finished may show below")
    findings = [*_examine_home(ledger), *_examine_cache(ledger.home / "cache")]
    for sweep in ledger.sweep_names():
        records = ledger.trials(sweep)
        findings += _examine_records(sweep, records, alive=alive)
        findings += _examine_files(ledger.home, sweep, records)
        findings += _examine_mlflow(ledger, sweep, tracking_uri)
    return findings


def _examine_home(ledger: Ledger) -> Iterator[Finding]:
    for problem in ledger.broken_pages():
        yield Finding(
            place="ledger",
            sweep=None,
            config_hash=None,
            problem=problem,
            remedy=f"copy {ledger.path} away and use sqlite3's .recover on the copy",
        )
    for late in ledger.stale_outcomes():
        if late.conflict:
            yield Finding(
                place="ledger",
                sweep=None,
                config_hash=late.config_hash,
                problem=(
                    f"attempt {late.attempt_number}, given up before, reported loss "
                    f"{late.outcome.loss_nats} against the accepted result"
                ),
                remedy="run the trial again with another init seed to see which one holds",
            )


def _examine_cache(cache: Path) -> Iterator[Finding]:
    """What a process left that was killed while it prepared text."""
    for partial in abandoned_partials(cache):
        yield Finding(
            place="files",
            sweep=None,
            config_hash=None,
            problem=f"{partial} ({partial.stat().st_size:,} bytes) was left by a killed process",
            remedy="the next `isoflop sweep` or `plan` in this home removes it",
        )


def _examine_records(sweep: str, records: list[TrialRecord], *, alive: bool) -> Iterator[Finding]:
    again = f"`isoflop sweep {sweep}` (or --rebuild-mlflow here) puts it right"
    for record in records:
        final = record.state not in ("queued", "running", "preempted")
        if final != (record.outcome is not None):
            problem = f"the trial is {record.state}, but its outcome is {record.outcome}"
        elif record.state == "running" and not alive:
            problem = "the trial is marked running, but no driver works on this home"
        elif [each.number for each in record.attempts] != list(range(1, len(record.attempts) + 1)):
            problem = "its attempts are not numbered one by one"
        else:
            continue
        yield Finding(
            place="ledger",
            sweep=sweep,
            config_hash=record.config_hash,
            problem=problem,
            remedy=again,
        )


def _examine_files(home: Path, sweep: str, records: list[TrialRecord]) -> Iterator[Finding]:
    folder = home / "sweeps" / sweep
    known = {record.config_hash: record for record in records}
    for place in sorted((folder / "checkpoints").glob("*")):
        record = known.get(place.name)
        if record is None or record.outcome is not None:
            problem = f"{place} is no longer needed"
            remedy = "`isoflop sweep` removes it" if record else "remove it"
            yield Finding(
                place="files", sweep=sweep, config_hash=place.name, problem=problem, remedy=remedy
            )
    for partial in sorted(folder.rglob(f".*{PARTIAL_SUFFIX}")):
        yield Finding(
            place="files",
            sweep=sweep,
            config_hash=None,
            problem=f"{partial} was left by a process that was killed",
            remedy="remove it",
        )
    for record in records:
        weights = record.outcome.weights_path if record.outcome else None
        if weights is not None and not Path(weights).exists():
            yield Finding(
                place="files",
                sweep=sweep,
                config_hash=record.config_hash,
                problem=f"its weights are gone from {weights}",
                remedy="its numbers stay; train it in a new home to have weights again",
            )


def _examine_mlflow(ledger: Ledger, sweep: str, tracking_uri: str) -> Iterator[Finding]:
    from runners.mlflow.comparison import compare_sweep
    from runners.mlflow.database import sqlite_path

    remedy = "`isoflop doctor --rebuild-mlflow` makes it the ledger's"
    database = sqlite_path(tracking_uri)
    try:
        if database is not None and not database.exists():
            raise FileNotFoundError(f"there is no {database}")
        differences: Mapping[str | None, list[str]] = compare_sweep(
            ledger, sweep, tracking_uri=tracking_uri
        )
    except Exception as error:  # whatever MLflow or its store raises
        differences = {None: [f"MLflow cannot be read: {str(error).splitlines()[0]}"]}
    for config_hash, problems in differences.items():
        for problem in problems:
            yield Finding(
                place="mlflow", sweep=sweep, config_hash=config_hash, problem=problem, remedy=remedy
            )


def rebuild_mlflow(ledger: Ledger, tracking_uri: str) -> None:
    """Make MLflow show what the ledger has; a local database that cannot be read is put aside."""
    from runners.mlflow.database import is_whole
    from runners.mlflow.projection import rebuild_sweep

    fenced = ledger.fence_all(reason="its driver is gone")
    if fenced:
        talk(f"{fenced} attempts were marked running without a driver: now preempted")
    local = Path(local_tracking_uri(ledger.home).removeprefix("sqlite:///"))
    if tracking_uri == local_tracking_uri(ledger.home) and not is_whole(local):
        aside = local.with_name(local.name + ".broken")
        local.replace(aside)
        talk(f"{local} could not be read; it is now {aside}")
    for sweep in ledger.sweep_names():
        talk(f"{sweep}: {rebuild_sweep(ledger, sweep, tracking_uri=tracking_uri)} runs made again")


def settle_after_crash(home: Path) -> None:
    """Where the last driver of a home was killed, show its trials as preempted, not as running."""
    if not (home / FILE_NAME).exists():
        return
    with contextlib.closing(Ledger(home)) as ledger:
        holder = ledger.holder()
        if holder is not None and holder.process.is_gone:
            with ledger.held(), standard_output_kept_clean():
                rebuild_mlflow(ledger, local_tracking_uri(home))
