"""Which result deserves another seed? The leaders of a budget that may still be the best, in turn.

A replicate repeats a configuration with other seeds of weights and data order. The r-th replicate
of every configuration has the same data order, so that comparisons can be paired by it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from search.belief.arm_models import denoised_losses
from search.belief.rates import log_multiplier
from search.belief.seed_noise import Key, budget_noise, configuration_key
from search.record.ledger import TrialRecord
from search.record.trial_records import is_pending, loss_of
from spaces.parameters import count_parameters


def owed_replicates(
    records: Sequence[TrialRecord], budgets: Sequence[float], *, per_budget: int
) -> list[float]:
    """Budgets (training FLOPs) that lack replicates, each as often as it lacks one."""
    there = Counter(r.proposal.budget.train_flops for r in records if _is_replicate(r))
    return [budget for budget in budgets for _ in range(per_budget - there[budget])]


FIRST_REPLICATES = 2
"""Trials of each budget that are repeated as soon as its baselines are known."""


def first_replicate(
    records: Sequence[TrialRecord], budget: float, *, per_budget: int
) -> tuple[TrialRecord, int] | None:
    """The trial to repeat first at a budget, and the number of its replicate; None where there are
    enough or nothing is there to repeat.

    Two of different sizes with the same data order: what both move by is shared, the rest is not.
    """
    mine = [record for record in records if record.proposal.budget.train_flops == budget]
    repeated = {configuration_key(r.proposal) for r in mine if _is_replicate(r)}
    if per_budget < FIRST_REPLICATES or len(repeated) >= FIRST_REPLICATES:
        return None
    starts: dict[Key, TrialRecord] = {}
    for record in sorted(filter(_may_be_first, mine), key=_nearest_to_best):
        starts.setdefault(configuration_key(record.proposal, any_rate=True), record)
    if not starts:
        return None
    first, *_ = starts.values()
    size = _log_parameters(first)
    other = max(starts.values(), key=lambda start: abs(_log_parameters(start) - size))
    for start in (first, other):
        if configuration_key(start.proposal) not in repeated:
            return start, 1
    return None


def _may_be_first(record: TrialRecord) -> bool:
    asked = record.proposal.purpose in ("baseline", "tuning")
    return asked and (record.is_result or is_pending(record))


def _nearest_to_best(record: TrialRecord) -> tuple[float, float, int]:
    """Results by loss; then what waits, nearest to the rule's rate first."""
    loss = loss_of(record) if record.is_result else math.inf
    return loss, abs(log_multiplier(record.proposal)), record.number


def _log_parameters(record: TrialRecord) -> float:
    return math.log(count_parameters(record.proposal.config.architecture).total)


def next_replicate(
    records: Sequence[TrialRecord], budget: float, *, leaders: int
) -> tuple[TrialRecord, int] | None:
    """The trial to repeat at a budget and the number of the replicate (1 is the first).

    Of the leaders, by loss with the luck of their seed taken out, that the seed noise does not tell
    from the first, the one repeated least; of each shape only its best learning rate leads, and the
    best of every arm comes before a second one. Without results, what waits or runs stands in for
    them; what failed never does.
    """
    mine = [record for record in records if record.proposal.budget.train_flops == budget]
    repeats = Counter(configuration_key(r.proposal) for r in mine if _is_replicate(r))
    originals = [record for record in mine if not _is_replicate(record)]
    results = [record for record in originals if record.is_result]
    losses = denoised_losses(records)
    ranked = sorted(results, key=lambda r: (losses[r.config_hash], r.number))
    ranked = ranked or [record for record in originals if is_pending(record)]
    if not ranked:
        return None
    shapes: dict[object, TrialRecord] = {}
    for record in ranked:
        shapes.setdefault(configuration_key(record.proposal, any_rate=True), record)
    arms: dict[str, TrialRecord] = {}
    for record in shapes.values():
        arms.setdefault(record.proposal.arm, record)
    leading = list({r.config_hash: r for r in (*arms.values(), *shapes.values())}.values())
    leading = leading[: max(leaders, len(arms))]
    noise = budget_noise(mine)
    if noise.seed_noise_nats is not None:
        leading = [record for record in leading if record.config_hash in noise.tied] or leading
    chosen = min(leading, key=lambda r: repeats[configuration_key(r.proposal)])
    return chosen, repeats[configuration_key(chosen.proposal)] + 1


def _is_replicate(record: TrialRecord) -> bool:
    return record.proposal.purpose == "replicate" and record.set_aside is None
