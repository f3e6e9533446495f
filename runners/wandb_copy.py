"""How does Weights & Biases come to show a ledger's results? The only module that writes to it.

One run a result, whose id follows from the sweep and the trial. A file in the home holds what was
sent of each: a result that is as it was is not sent again. One that has new scores goes to the same
id, with ``resume="allow"`` and only those points of the curve that come after the run's last step.
Account, server and mode are those of wandb's own environment (``WANDB_MODE=offline`` and so on).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from runners.machine.files import write_atomically
from runners.mlflow.run_rows import (
    configuration_points,
    curve_points,
    evaluation_points,
    identity_tags,
    outcome_points,
    run_name,
    state_tags,
    trial_params,
)
from search.record.trial_records import SweepRecord, TrialRecord
from spaces.errors import RequestError

FOLDER, SENT_FILE = "wandb", "sent.json"
"""Of a home: what wandb writes, and in it what was sent, by project and run id."""


def wandb_missing() -> str | None:
    """What to do where wandb is not installed; None where it is."""
    try:
        import wandb  # noqa: F401
    except ImportError:
        return "--to wandb needs the package wandb; pip install isoflop[wandb]"
    return None


def send_results(
    home: Path, sweep: SweepRecord, records: Sequence[TrialRecord], *, project: str
) -> tuple[int, int]:
    """Send the results among ``records`` that are new or differ; how many there are, and how many
    of these had not been sent before.

    Raises `RequestError` for a project's name that wandb does not take.
    """
    if len(project) > 128 or set(project) & set("/\\#?%:"):
        raise RequestError(
            f"a project of wandb has at most 128 characters and none of / \\ # ? % :, got "
            f"{project!r}; choose another --prefix"
        )
    file = home / FOLDER / SENT_FILE
    sent: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    results = [record for record in records if record.is_result and record.outcome is not None]
    num_new = 0
    for record in results:
        key = f"{project}/{run_id(sweep, record)}"
        content = _fingerprint(sweep, record)
        if sent.get(key) == content:
            continue
        num_new += key not in sent
        _send(home, sweep, record, project)
        sent[key] = content
        write_atomically(file, json.dumps(sent, indent=1).encode())
    return len(results), num_new


def run_id(sweep: SweepRecord, record: TrialRecord) -> str:
    """The same however often it is sent; another where another home has the same trial."""
    told = f"{sweep.name} {sweep.created_at!r} {record.config_hash}"
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _shown(sweep: SweepRecord, record: TrialRecord) -> dict[str, Any]:
    """The summary: last values of the configuration, the outcome and the scores, and the state."""
    points = [*configuration_points(record), *outcome_points(record), *evaluation_points(record)]
    tags = identity_tags(sweep, record) | state_tags(record)
    return {point.name: point.value for point in points} | tags


def _fingerprint(sweep: SweepRecord, record: TrialRecord) -> str:
    curve = [asdict(point) for point in curve_points(record)]
    told = [_shown(sweep, record), trial_params(record), curve]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _send(home: Path, sweep: SweepRecord, record: TrialRecord, project: str) -> None:
    import wandb

    quiet = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    (home / FOLDER).mkdir(exist_ok=True)
    settings = wandb.Settings()
    run = wandb.init(
        project=project,
        id=run_id(sweep, record),
        name=run_name(record),
        group=record.proposal.arm,
        job_type=record.proposal.purpose,
        config=trial_params(record),
        dir=str(home),
        # offline, wandb has nothing to resume from, and warns
        resume=None if settings.mode == "offline" else "allow",
        settings=quiet,
    )
    with run:
        for step, points in groupby(curve_points(record), key=lambda point: point.step):
            if step >= run.starting_step:
                run.log({point.name: point.value for point in points}, step=step)
        run.summary.update(_shown(sweep, record))
