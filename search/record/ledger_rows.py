"""How do rows of the ledger become values, and values rows? Steps inside one transaction."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter
from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Update,
    delete,
    func,
    insert,
    select,
    update,
)

from search.record.evaluations import Evaluation
from search.record.forecasts import Forecast
from search.record.ledger_errors import RowMissing
from search.record.ledger_schema import (
    ATTEMPTS,
    EVALUATIONS,
    FORECASTS,
    OUTCOMES,
    STALE_OUTCOMES,
    TRIALS,
)
from search.record.numbers import configuration_numbers
from search.record.trial import CurvePoint, Outcome, Proposal, TrialState
from search.record.trial_records import Attempt, StaleOutcome, TrialRecord
from spaces.architecture import stored_architecture
from spaces.identity import canonical_json, with_fields_of_before

Acceptance = Literal["accepted", "repeated", "stale", "conflict"]
Fenced = Literal["lost", "preempted"]
Face = tuple[Any, ...]
"""What changes of a trial while its sweep runs: two that are equal, the trial is as it was."""
INTERRUPTIONS = ("lost", "preempted")
"""Outcomes that end an attempt and not its trial."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def update_trial(connection: Connection, sweep: str, config_hash: str, **values: Any) -> None:
    """Change one trial. Raises `RowMissing` where there is none."""
    found = connection.execute(_update_of(sweep, config_hash).values(**values))
    if found.rowcount != 1:
        raise RowMissing(f"no trial {config_hash} of sweep {sweep!r}")


def _update_of(sweep: str, config_hash: str) -> Update:
    return update(TRIALS).where(TRIALS.c.sweep == sweep, TRIALS.c.config_hash == config_hash)


def fence_attempts(
    connection: Connection,
    which: ColumnElement[bool],
    *,
    reason: str,
    state: Fenced,
    ended_at: float | None = None,
) -> int:
    """Close running attempts without an outcome, now unless said; how many there were."""
    fenced = connection.execute(
        update(ATTEMPTS)
        .where(which, ATTEMPTS.c.state == "running")
        .values(
            state=state,
            reason=reason,
            ended_at=func.max(ATTEMPTS.c.started_at, time.time() if ended_at is None else ended_at),
        )
        .returning(ATTEMPTS.c.sweep, ATTEMPTS.c.config_hash)
    ).all()
    for sweep, config_hash in fenced:
        update_trial(connection, sweep, config_hash, state="preempted")
    return len(fenced)


def settle_trials(connection: Connection, sweep: str, config_hash: str, status: str) -> None:
    """An identity's outcome is there: no trial of it waits any longer, in whatever sweep."""
    others = update(TRIALS).where(TRIALS.c.config_hash == config_hash, TRIALS.c.sweep != sweep)
    connection.execute(others.values(state=_state_elsewhere(status)))
    update_trial(connection, sweep, config_hash, state=_final_state(status))


def _state_elsewhere(status: str) -> TrialState:
    """The state of a trial whose outcome of that status another sweep of the home brought."""
    return "reused" if status == "complete" else _final_state(status)


def _final_state(status: str) -> TrialState:
    state: TrialState = _adapter(TrialState).validate_python(status)
    return state


def reopen_trials(connection: Connection, config_hashes: Sequence[str]) -> None:
    """Take outcomes back: their trials, in whatever sweep, wait for another attempt."""
    connection.execute(delete(OUTCOMES).where(OUTCOMES.c.config_hash.in_(config_hashes)))
    reopened = update(TRIALS).where(TRIALS.c.config_hash.in_(config_hashes))
    connection.execute(reopened.values(state="preempted"))


def queue_trial(
    connection: Connection, sweep: str, proposal: Proposal, *, takes_pruned: bool
) -> TrialState:
    """Add a trial to a sweep, in the state that what the home knows of it gives."""
    state = _return_trial(connection, sweep, proposal)
    if state is not None:
        return state
    known = accepted_outcome(connection, proposal.config_hash)
    if known is not None and known.status == "pruned" and not takes_pruned:
        reopen_trials(connection, [proposal.config_hash])
        known = None
    state = "queued" if known is None else _state_elsewhere(known.status)
    number = func.coalesce(func.max(TRIALS.c.number), -1) + 1
    next_number = connection.execute(select(number).where(TRIALS.c.sweep == sweep)).scalar_one()
    connection.execute(
        insert(TRIALS).values(
            sweep=sweep,
            config_hash=proposal.config_hash,
            number=next_number,
            proposal_json=canonical_json(_with_numbers(proposal)),
            state=state,
            created_at=time.time(),
        )
    )
    return state


def _return_trial(connection: Connection, sweep: str, proposal: Proposal) -> TrialState | None:
    """Let a trial that was set aside belong to its sweep again, for the reason it is asked for
    now; its state, or None where the sweep has none of that identity."""
    returned = _update_of(sweep, proposal.config_hash).values(
        set_aside=None, proposal_json=canonical_json(_with_numbers(proposal))
    )
    state: TrialState | None = connection.execute(
        returned.returning(TRIALS.c.state)
    ).scalar_one_or_none()
    return state


def _with_numbers(proposal: Proposal) -> Proposal:
    """The proposal as it is stored, for readers without its arm."""
    return replace(proposal, numbers=configuration_numbers(proposal))


def accepted_outcome(connection: Connection, config_hash: str) -> Outcome | None:
    """The accepted outcome of an identity, if there is one."""
    text = connection.execute(
        select(OUTCOMES.c.outcome_json).where(OUTCOMES.c.config_hash == config_hash)
    ).scalar_one_or_none()
    return None if text is None else _read_outcome(text)


def keep_stale(connection: Connection, attempt: RowMapping, text: str) -> Acceptance:
    """Keep an outcome that came too late, unless it only repeats the accepted one."""
    accepted = connection.execute(
        select(OUTCOMES.c.outcome_json).where(OUTCOMES.c.config_hash == attempt["config_hash"])
    ).scalar_one_or_none()
    if accepted == text:
        return "repeated"
    conflict = accepted is not None and _contradicts(text, accepted)
    connection.execute(
        insert(STALE_OUTCOMES).values(
            attempt_id=attempt["id"],
            outcome_json=text,
            received_at=time.time(),
            conflict=conflict,
        )
    )
    return "conflict" if conflict else "stale"


def _contradicts(late_json: str, accepted_json: str) -> bool:
    """Whether a late outcome says other than the accepted one; one that only stopped says nothing
    of the trial."""
    late, accepted = json.loads(late_json), json.loads(accepted_json)
    agreed = ("status", "loss_nats", "steps", "tokens")
    return late["status"] not in INTERRUPTIONS and any(late[key] != accepted[key] for key in agreed)


def read_attempt(row: RowMapping) -> Attempt:
    """An attempt from its row."""
    return Attempt(
        id=row["id"],
        number=row["number"],
        state=row["state"],
        reason=row["reason"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        node=row["node"],
        pid=row["pid"],
        step=row["step"],
        spent_flops=row["spent_flops"],
        curve=tuple(_adapter(list[CurvePoint]).validate_json(row["curve_json"])),
        sweep=row["sweep"],
    )


def read_trials(connection: Connection, which: ColumnElement[bool]) -> list[TrialRecord]:
    """Trials with their attempts and outcomes, in order of proposal."""
    rows = (
        connection.execute(
            select(TRIALS, OUTCOMES.c.outcome_json, OUTCOMES.c.accepted_at)
            .outerjoin(OUTCOMES, OUTCOMES.c.config_hash == TRIALS.c.config_hash)
            .where(which)
            .order_by(TRIALS.c.number)
        )
        .mappings()
        .all()
    )
    attempts: dict[str, list[Attempt]] = {row["config_hash"]: [] for row in rows}
    tried = (
        select(ATTEMPTS)
        .where(ATTEMPTS.c.config_hash.in_(select(TRIALS.c.config_hash).where(which)))
        .order_by(ATTEMPTS.c.config_hash, ATTEMPTS.c.number)
    )
    for row in connection.execute(tried).mappings():
        attempts[row["config_hash"]].append(read_attempt(row))
    evaluations = _read_evaluations(connection, which)
    return [
        _read_trial(
            row, tuple(attempts[row["config_hash"]]), evaluations.get(row["config_hash"], ())
        )
        for row in rows
    ]


def _read_evaluations(
    connection: Connection, which: ColumnElement[bool]
) -> dict[str, tuple[Evaluation, ...]]:
    """What the models of trials scored, by configuration hash and in order of tasks."""
    mine = select(TRIALS.c.config_hash).where(which)
    rows = connection.execute(
        select(EVALUATIONS.c.config_hash, EVALUATIONS.c.evaluation_json)
        .where(EVALUATIONS.c.config_hash.in_(mine))
        .order_by(EVALUATIONS.c.config_hash, EVALUATIONS.c.task)
    )
    found: dict[str, tuple[Evaluation, ...]] = {}
    for config_hash, text in rows:
        evaluation: Evaluation = _adapter(Evaluation).validate_json(text)
        found[config_hash] = (*found.get(config_hash, ()), evaluation)
    return found


def keep_evaluation(connection: Connection, evaluation: Evaluation) -> None:
    """Write an evaluation down, in place of the one before."""
    which = (
        EVALUATIONS.c.config_hash == evaluation.config_hash,
        EVALUATIONS.c.task == evaluation.task,
    )
    connection.execute(delete(EVALUATIONS).where(*which))
    connection.execute(
        insert(EVALUATIONS).values(
            config_hash=evaluation.config_hash,
            task=evaluation.task,
            evaluation_json=canonical_json(evaluation),
            evaluated_at=evaluation.evaluated_at,
        )
    )


def read_faces(connection: Connection, sweep: str) -> dict[str, Face]:
    """How each trial of a sweep stands, by configuration hash in order of proposal; no JSON is
    read for it."""
    evaluated_at = (
        select(func.max(EVALUATIONS.c.evaluated_at))
        .where(EVALUATIONS.c.config_hash == TRIALS.c.config_hash)
        .scalar_subquery()
    )
    ended = (OUTCOMES.c.accepted_at, evaluated_at)
    trial = (TRIALS.c.config_hash, TRIALS.c.state, TRIALS.c.set_aside, *ended)
    rows = connection.execute(
        select(*trial)
        .outerjoin(OUTCOMES, OUTCOMES.c.config_hash == TRIALS.c.config_hash)
        .where(TRIALS.c.sweep == sweep)
        .order_by(TRIALS.c.number)
    ).all()
    attempts: dict[str, list[tuple[str, int]]] = {row[0]: [] for row in rows}
    mine = select(TRIALS.c.config_hash).where(TRIALS.c.sweep == sweep)
    tried = (
        select(ATTEMPTS.c.config_hash, ATTEMPTS.c.state, ATTEMPTS.c.step)
        .where(ATTEMPTS.c.config_hash.in_(mine))
        .order_by(ATTEMPTS.c.id)
    )
    for config_hash, state, step in connection.execute(tried):
        attempts[config_hash].append((state, step))
    return {row[0]: (*row[1:], tuple(attempts[row[0]])) for row in rows}


def keep_forecast(connection: Connection, sweep: str, forecast: Forecast) -> bool:
    """Write a forecast down; False, and nothing written, where the sweep has one of that family and
    budget, which stands."""
    which = (
        FORECASTS.c.sweep == sweep,
        FORECASTS.c.family == forecast.family,
        FORECASTS.c.train_flops == forecast.train_flops,
    )
    if connection.execute(select(FORECASTS.c.written_at).where(*which)).first() is not None:
        return False
    stored = replace(forecast, proposal=_with_numbers(forecast.proposal))
    connection.execute(
        insert(FORECASTS).values(
            sweep=sweep,
            family=forecast.family,
            train_flops=forecast.train_flops,
            config_hash=forecast.proposal.config_hash,
            forecast_json=canonical_json(stored),
            written_at=forecast.written_at,
        )
    )
    return True


def read_forecasts(connection: Connection, sweep: str) -> list[Forecast]:
    """A sweep's forecasts, by budget and family."""
    rows = connection.execute(
        select(FORECASTS.c.config_hash, FORECASTS.c.forecast_json)
        .where(FORECASTS.c.sweep == sweep)
        .order_by(FORECASTS.c.train_flops, FORECASTS.c.family)
    )
    return [_read_forecast(text, config_hash) for config_hash, text in rows]


def _read_forecast(text: str, config_hash: str) -> Forecast:
    form = json.loads(text)
    proposal = read_proposal(json.dumps(form.pop("proposal")), config_hash)
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in form.items()
    }
    return Forecast(proposal=proposal, **fields)


def read_proposal(text: str, config_hash: str) -> Proposal:
    """A proposal from its row, known by the row's hash."""
    form = with_fields_of_before(Proposal, json.loads(text))
    config = form["config"]
    config["architecture"] = stored_architecture(config["architecture"])
    proposal: Proposal = _adapter(Proposal).validate_python(form)
    proposal.config.stored_as(config_hash)
    return proposal


def _read_outcome(text: str) -> Outcome:
    """An outcome from its JSON, of this release or an older one."""
    form = with_fields_of_before(Outcome, json.loads(text))
    if gates := form.pop("gates", None):  # what the first release had instead of readouts
        form["readouts"] = {
            "deep_share": [gate["mean_deep_share"] for gate in gates],
            "gate_entropy_nats": [gate["mean_entropy_nats"] for gate in gates],
        }
    outcome: Outcome = _adapter(Outcome).validate_python(form)
    return outcome


def _read_trial(
    row: RowMapping, attempts: tuple[Attempt, ...], evaluations: tuple[Evaluation, ...]
) -> TrialRecord:
    text = row["outcome_json"]
    return TrialRecord(
        number=row["number"],
        proposal=read_proposal(row["proposal_json"], row["config_hash"]),
        state=row["state"],
        set_aside=row["set_aside"],
        attempts=attempts,
        outcome=None if text is None else _read_outcome(text),
        accepted_at=row["accepted_at"],
        mlflow_run_id=row["mlflow_run_id"],
        created_at=row["created_at"],
        sweep=row["sweep"],
        evaluations=evaluations,
    )


def read_stale_outcomes(connection: Connection) -> list[StaleOutcome]:
    """Outcomes that came too late, oldest first."""
    columns = (ATTEMPTS.c.config_hash, ATTEMPTS.c.number, STALE_OUTCOMES.c.outcome_json)
    rows = connection.execute(
        select(*columns, STALE_OUTCOMES.c.conflict)
        .join(ATTEMPTS, ATTEMPTS.c.id == STALE_OUTCOMES.c.attempt_id)
        .order_by(STALE_OUTCOMES.c.id)
    ).all()
    return [
        StaleOutcome(
            config_hash=config_hash,
            attempt_number=number,
            outcome=_read_outcome(text),
            conflict=conflict,
        )
        for config_hash, number, text, conflict in rows
    ]
