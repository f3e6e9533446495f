"""``isoflop sync --to URI``: what a home's ledger has, shown by another MLflow or wandb, too."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from experiments.command import default_home, parse_options, print_json, talk
from experiments.setup import standard_output_kept_clean, sweep_name
from search.record.homes import require_plain
from search.record.ledger import Ledger
from search.record.redaction import redact
from spaces.errors import RequestError

if TYPE_CHECKING:
    from runners.mlflow.projection import MlflowProjection

WANDB = "wandb"
"""What ``--to`` says for Weights & Biases."""

RETRIES = "4"
"""Of a request that the server does not answer; MLflow's own seven take minutes."""


@dataclass(frozen=True, kw_only=True)
class SyncOptions:
    """Send a home's runs to an MLflow server or database, or to Weights & Biases; what it has
    already is not sent again."""

    experiments: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="EXPERIMENT")
    ] = ()
    """Names or TOML paths; left out: every sweep of the home."""
    to: str
    """Tracking address (http(s)://, sqlite:///, postgresql:// and so on), or wandb."""
    prefix: str = ""
    """Stands before the experiment's name there; tells apart homes with sweeps of one name."""
    home: Path = field(default_factory=default_home)
    """Where the ledger lives."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One sweep."""

    sweep: str
    experiment: str
    """Its name there."""
    num_runs: int
    """Runs of trials there, now."""
    num_new: int
    """Of these, made by this call."""


def run(argv: list[str]) -> int:
    """Send, and say what is there now."""
    from runners.mlflow.credentials import take_credentials

    options = parse_options(SyncOptions, argv, verb="sync")
    require_plain(options.home)
    uri = take_credentials(options.to)
    if uri == WANDB:
        _require_wandb()
    else:
        _require_other(uri, options.home)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", RETRIES)
    with contextlib.closing(Ledger(options.home)) as ledger:
        names = [sweep_name(each) for each in options.experiments] or ledger.sweep_names()
        for name in names:
            ledger.sweep(name)  # says so where there is none
        send = _send_to_wandb if uri == WANDB else _send
        sent = [send(ledger, name, uri, options.prefix) for name in names]
    if options.json:
        print_json({"to": redact(uri), "sweeps": [asdict(each) for each in sent]})
    else:
        for each in sent:
            print(f"{each.experiment}: {each.num_runs} runs, {each.num_new} of them new")
    return 0


def _require_other(uri: str, home: Path) -> None:
    """Raises `RequestError` for what is no address, and for the home's own database."""
    from runners.mlflow.saved_view import local_tracking_uri

    if "://" not in uri:
        raise RequestError(
            f"--to takes a tracking address such as http://host:5000 or sqlite:////path/file.sqlite"
            f", or wandb, got {uri!r}"
        )
    if uri == local_tracking_uri(home):
        raise RequestError(f"{uri} is the home's own, which every verb keeps up to date")


def _send(ledger: Ledger, sweep: str, uri: str, prefix: str) -> Sent:
    with _said(uri), standard_output_kept_clean():
        projection = _projection(ledger, sweep, uri, prefix + sweep)
        projection.finish(interrupted=any(not r.outcome for r in ledger.trials(sweep)))
    return Sent(
        sweep=sweep,
        experiment=prefix + sweep,
        num_runs=projection.num_runs,
        num_new=projection.num_started,
    )


def _require_wandb() -> None:
    """Raises `RequestError` where wandb is not installed."""
    from runners.wandb_copy import wandb_missing

    if (missing := wandb_missing()) is not None:
        raise RequestError(missing)


def _send_to_wandb(ledger: Ledger, sweep: str, uri: str, prefix: str) -> Sent:
    from runners.wandb_copy import send_results

    project = prefix + sweep
    talk(f"sending {sweep} to {uri}")
    with _said(uri), standard_output_kept_clean():
        num_runs, num_new = send_results(
            ledger.home, ledger.sweep(sweep), ledger.trials(sweep), project=project
        )
    return Sent(sweep=sweep, experiment=project, num_runs=num_runs, num_new=num_new)


def _projection(ledger: Ledger, sweep: str, uri: str, name: str) -> MlflowProjection:
    from runners.mlflow.projection import MlflowProjection

    talk(f"sending {sweep} to {uri}")
    return MlflowProjection(ledger, sweep, tracking_uri=uri, copy_as=name)


@contextlib.contextmanager
def _said(uri: str) -> Iterator[None]:
    """Whatever MLflow or its store raises, as one message that names the address."""
    try:
        yield
    except RequestError:
        raise
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RuntimeError(
            f"{redact(uri)}: {first}; what arrived stays, the same command sends the rest"
        ) from error
