"""``isoflop sweep --confirm``: write down what is predicted at a larger budget, then train it.

The order is the point: a forecast is in the ledger before its first run starts, and it stands,
however many results come later.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.points.sweep_frame import frame_of
from analysis.report.confirmation_text import confirmation_text, forecast_text
from analysis.sweep.confirmation import Confirmation, confirmations
from analysis.sweep.forecasting import NoForecast, choose_shape, forecast_of
from analysis.sweep.sweep_fit import fit_sweep
from experiments.command import talk
from runners.driver import SweepSummary
from runners.ground import prepare_ground
from search.asked.experiment import Experiment
from search.belief.seed_noise import pair_noise
from search.limits.caps import committed_flops, flops_cap_reached
from search.propose.cells import Ground
from search.propose.confirming import at_best_rate, candidates, leaders, require_larger
from search.propose.listed import ListedProposer
from search.record.code_version import code_version
from search.record.forecasts import Forecast, confirming_sweep
from search.record.ledger import Ledger, TrialRecord
from search.record.trial import Proposal
from spaces.errors import RequestError

Train = Callable[[Experiment, Callable[[Experiment, Ground], ListedProposer]], SweepSummary]
"""Runs an experiment with a proposer to its end."""


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """What came of ``--confirm``."""

    confirmations: tuple[Confirmation, ...]
    """At the budget that was asked for, by family."""
    refused: tuple[NoForecast, ...]
    """Families that were not trained, and why."""
    summary: SweepSummary | None
    """Of the runs; None where nothing was to be trained."""

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "confirmations": [each.to_dict() for each in self.confirmations],
            "refused": [{"family": each.family, "why": each.why} for each in self.refused],
        }


def confirm(
    experiment: Experiment,
    home: Path,
    flops: float,
    *,
    num_seeds: int,
    train: Train,
    take_over: bool = False,
) -> Confirmed:
    """Forecast every arm of a sweep at a larger budget, where that is not written down already, and
    train what is forecast on so many seeds. Raises `RequestError`."""
    name = confirming_sweep(experiment.name, flops)
    with contextlib.closing(Ledger(home)) as ledger:
        ledger.sweep(experiment.name)
        records = ledger.trials(experiment.name)
        require_larger(experiment, records, flops, num_seeds=num_seeds)
        with ledger.held(take_over=take_over):
            _, ground = prepare_ground(experiment, home, say=talk)
            refused = _write_down(ledger, experiment, ground, records, flops, num_seeds)
        written = [f for f in ledger.forecasts(experiment.name) if f.train_flops == flops]
        runs = [proposal for each in written for proposal in each.with_seeds(num_seeds)]
        _require_paid(experiment, ledger, name, records, runs)
        _tell(ledger, experiment.name, written, refused)
    summary = None
    if runs:
        _require_same_text(written, ground)
        summary = train(_alone(experiment, name, runs), lambda *_: ListedProposer(runs))
    with contextlib.closing(Ledger(home)) as ledger:
        found = [each for each in confirmations(ledger, experiment.name) if _is_at(each, flops)]
        problem = _log(ledger, experiment.name) if found else None
    if problem is not None:
        talk(f"not logged to MLflow: {problem}")
    return Confirmed(confirmations=tuple(found), refused=tuple(refused), summary=summary)


def print_confirmed(confirmed: Confirmed) -> None:
    """Every forecast beside what was measured, and what was not trained."""
    for each in confirmed.confirmations:
        print(confirmation_text(each))
    for refusal in confirmed.refused:
        print(f"{refusal.family} is not forecast, so it was not trained: {refusal.why}")


def _is_at(confirmation: Confirmation, flops: float) -> bool:
    return confirmation.forecast.train_flops == flops


def _write_down(
    ledger: Ledger,
    experiment: Experiment,
    ground: Ground,
    records: Sequence[TrialRecord],
    flops: float,
    num_seeds: int,
) -> list[NoForecast]:
    """Forecast the families that have none at a budget yet; those of which none can be made."""
    known = {f.family for f in ledger.forecasts(experiment.name) if f.train_flops == flops}
    missing = {family: each for family, each in leaders(records).items() if family not in known}
    if not missing:
        return []
    laws = {arm.arm: arm.surface for arm in fit_sweep(frame_of(records)).arms}
    noise, _ = pair_noise([record for record in records if record.is_result])
    refused = []
    for family, leader in missing.items():
        if family not in laws:
            refused.append(NoForecast(family=family, why="no row of it may be used by a law"))
            continue
        found = candidates(experiment, ground, leader, flops)
        choice = choose_shape(laws[family], found, leader, flops)
        if isinstance(choice, str):
            refused.append(NoForecast(family=family, why=choice))
            continue
        forecast = forecast_of(
            choice,
            at_best_rate(experiment, choice.shape, records),
            laws[family],
            seed_noise_nats=noise,
            code_version=code_version(),
            written_at=time.time(),
        )
        why = _why_known(ledger, forecast.with_seeds(num_seeds))
        if why is not None:
            refused.append(NoForecast(family=family, why=why))
        else:
            ledger.keep_forecast(experiment.name, forecast)
    return refused


def _why_known(ledger: Ledger, runs: Sequence[Proposal]) -> str | None:
    """Why a prediction of these runs would be none."""
    known = [run.config_hash for run in runs if ledger.accepted(run.config_hash) is not None]
    if not known:
        return None
    return (
        f"this home has trained {', '.join(known)} already, and what is known cannot be forecast; "
        f"confirm at other FLOPs"
    )


def _require_same_text(written: Sequence[Forecast], ground: Ground) -> None:
    """Raise `RequestError` where the text is not the one that forecasts are of."""
    if any(f.proposal.config.text_fingerprint != ground.text_fingerprint for f in written):
        raise RequestError(
            "a forecast is of the text that its law was fitted on, but the text or its tokenizer "
            "has changed since it was written; set text.source and text.tokenizer back"
        )


def _require_paid(
    experiment: Experiment,
    ledger: Ledger,
    name: str,
    records: Sequence[TrialRecord],
    runs: Sequence[Proposal],
) -> None:
    """Raise `RequestError` where the sweep's cap of FLOPs does not pay for the runs."""
    own = ledger.trials(name) if ledger.find_sweep(name) is not None else []
    there = {record.config_hash for record in own}
    cost = float(sum(run.train_flops for run in runs if run.config_hash not in there))
    why = flops_cap_reached(experiment.limits, committed_flops([*records, *own]), cost)
    if why is not None:
        raise RequestError(
            f"{why} ({len(runs)} runs); the forecast is written down, and the same command with a "
            f"higher --max-flops or fewer --confirm-seeds trains it"
        )


def _alone(experiment: Experiment, name: str, runs: Sequence[Proposal]) -> Experiment:
    """The experiment that trains these runs and nothing else."""
    flops = runs[0].budget.train_flops
    budget = experiment.budget.model_copy(update={"train_flops": (flops,)})
    limits = experiment.limits.model_copy(update={"max_flops": None})
    changed = {"name": name, "trials": len(runs), "budget": budget, "limits": limits}
    return experiment.model_copy(update=changed)


def _tell(
    ledger: Ledger, sweep: str, written: Sequence[Forecast], refused: Sequence[NoForecast]
) -> None:
    """Say what is forecast, and put it where others see it, before anything trains."""
    for forecast in written:
        talk(forecast_text(forecast))
    for refusal in refused:
        talk(f"{refusal.family} is not forecast and not trained: {refusal.why}")
    problem = _log(ledger, sweep) if written else None
    if problem is not None:
        talk(f"forecast not logged to MLflow yet: {problem}")


def _log(ledger: Ledger, sweep: str) -> str | None:
    """Every confirmation of a sweep on its run in MLflow; what went wrong, or None."""
    from runners.mlflow.projection import log_confirmations

    found = [each.to_dict() for each in confirmations(ledger, sweep)]
    return log_confirmations(ledger.home, ledger.sweep(sweep), found)
