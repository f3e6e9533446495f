"""Is a running trial worth its remaining FLOPs? Compared with its arm and budget, where comparable.

Losses along the way compare only in the stable phase of the schedule: after the warm-up, before the
decay, at the same share of the trial's tokens. Two rules: the median rule (Golovin et al., Google
Vizier, 2017) and successive halving as trials arrive (Li et al., ASHA, arXiv 1810.05934).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from search.asked.experiment import Experiment
from search.record.ledger import TrialRecord
from search.record.trial import Proposal


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A validation loss at a share of the tokens."""

    share: float
    loss: float


def may_prune(experiment: Experiment, proposal: Proposal) -> bool:
    """Whether a trial may be ended early: only what the search proposed, and only if asked for.

    Baselines, tuning and replicates are comparisons that need every result.
    """
    return experiment.pruning.rule != "none" and proposal.purpose == "search"


def why_prune(
    experiment: Experiment, running: TrialRecord, records: Sequence[TrialRecord]
) -> str | None:
    """Why a running trial should end now; None where it should go on."""
    if not may_prune(experiment, running.proposal):
        return None
    own = _stable_points(experiment, running)
    if not own:
        return None
    others = [
        record
        for record in records
        if record.proposal.arm == running.proposal.arm
        and record.proposal.budget == running.proposal.budget
        and record.set_aside is None
        and record.config_hash != running.config_hash
    ]
    if experiment.pruning.rule == "median":
        return _by_median(experiment, own[-1], others)
    return _by_halving(experiment, own, others)


def _by_median(experiment: Experiment, own: _Seen, others: list[TrialRecord]) -> str | None:
    results = [_at(experiment, record, own.share) for record in others if record.is_result]
    losses = [loss for loss in results if loss is not None]
    if len(losses) < experiment.pruning.startup_trials or own.loss <= median(losses):
        return None
    return (
        f"pruned at {own.share:.0%} of its tokens: loss {own.loss:.4f} is above the median "
        f"{median(losses):.4f} of {len(losses)} trials of its arm and budget"
    )


def _by_halving(experiment: Experiment, own: list[_Seen], others: list[TrialRecord]) -> str | None:
    settings = experiment.pruning
    reached = [rung for rung in _rungs(experiment) if own[-1].share >= rung]
    if not reached:
        return None
    first = next(point for point in own if point.share >= reached[-1])
    if first.share != own[-1].share:
        return None  # it was judged at this rung before, and went on
    losses = [_at(experiment, record, first.share) for record in others]
    there = sorted([loss for loss in losses if loss is not None])
    if len(there) < settings.startup_trials:
        return None
    keep = max(1, (len(there) + 1) // settings.reduction)
    rank = 1 + sum(loss < first.loss for loss in there)
    if rank <= keep:
        return None
    return (
        f"pruned at {first.share:.0%} of its tokens: loss {first.loss:.4f} is number {rank} of "
        f"{len(there) + 1} at this rung, and {keep} go on"
    )


def _rungs(experiment: Experiment) -> list[float]:
    """Shares of the tokens at which trials are compared."""
    rungs, share = [], experiment.pruning.first_fraction
    while share <= _end_of_stable_phase(experiment):
        rungs.append(share)
        share *= experiment.pruning.reduction
    return rungs


def _end_of_stable_phase(experiment: Experiment) -> float:
    return 1.0 - experiment.training.decay_fraction


def _stable_points(experiment: Experiment, record: TrialRecord) -> list[_Seen]:
    """Validation losses of the stable phase, from the first share on."""
    total = record.proposal.config.tokens
    first = max(experiment.pruning.first_fraction, experiment.training.warmup_fraction)
    seen = [
        _Seen(share=point.tokens / total, loss=point.val_loss_nats)
        for point in record.curve
        if point.val_loss_nats is not None
    ]
    return [each for each in seen if first <= each.share <= _end_of_stable_phase(experiment)]


def _at(experiment: Experiment, record: TrialRecord, share: float) -> float | None:
    """A trial's loss at a share of its tokens, between its measured points; None beyond them."""
    points = _stable_points(experiment, record)
    after = next((point for point in points if point.share >= share), None)
    before = next((point for point in reversed(points) if point.share <= share), None)
    if after is None:
        return None
    if before is None or before.share == after.share:
        return after.loss if before is not None or after.share - share < 0.02 else None
    weight = (share - before.share) / (after.share - before.share)
    return before.loss + weight * (after.loss - before.loss)
