"""How do arms compare? Their learning rates, and what they gain over the standard arm."""

from __future__ import annotations

import math
from statistics import fmean

from analysis.gain import FrontierPoint, Gain, compute_equivalent_gains
from experiments.command import talk
from search.denoised import loss_of
from search.ledger import TrialRecord
from search.noise import budget_noise
from search.replicates import Key, configuration_key
from search.results import by_budget
from search.tuned import ArmTuning, arm_tunings


def gains_of(records: list[TrialRecord]) -> list[Gain]:
    """The compute-equivalent gain of every arm over the standard arm, budget by budget.

    An arm stands at a budget by its configuration of the lowest mean loss over seeds.
    """
    frontiers: dict[str, list[FrontierPoint]] = {}
    for target, group in by_budget(records).items():
        noise = budget_noise(group).seed_noise_nats
        for arm in sorted({record.proposal.arm for record in group}):
            best = _best_losses([record for record in group if record.proposal.arm == arm])
            point = FrontierPoint(
                train_flops=target,
                loss_nats=fmean(best),
                noise_nats=None if noise is None else noise / math.sqrt(len(best)),
            )
            frontiers.setdefault(arm, []).append(point)
    return compute_equivalent_gains(frontiers)


def _best_losses(results: list[TrialRecord]) -> list[float]:
    """Losses over seeds of the configuration with the lowest mean."""
    losses: dict[Key, list[float]] = {}
    for record in results:
        losses.setdefault(configuration_key(record.proposal), []).append(loss_of(record))
    return min(losses.values(), key=fmean)


def print_comparisons(records: list[TrialRecord]) -> None:
    """What a reader of the leaderboard should know before arms are compared, and the gains."""
    tunings = arm_tunings(records)
    for tuning in tunings.values():
        print(describe_tuning(tuning))
    arms = sorted({record.proposal.arm for record in records if record.is_result})
    untuned = [arm for arm in arms if arm not in tunings]
    if untuned:
        print(f"learning rate by the rule, neither tuned nor transferred: {', '.join(untuned)}")
    refusals: dict[str, list[str]] = {}
    for gain in gains_of(records):
        where = f"{gain.arm} at {gain.train_flops:.3g}"
        if gain.gain is None:
            refusals.setdefault(gain.refused or "", []).append(where)
            continue
        interval = f"{gain.interval[0]:.2f} to {gain.interval[1]:.2f}" if gain.interval else ""
        print(
            f"compute-equivalent gain over standard of {where} FLOPs: {gain.gain:.2f} "
            f"({interval or gain.refused})"
        )
    for why, refused in refusals.items():
        talk(f"no compute-equivalent gain for {', '.join(refused)}: {why}")


def describe_tuning(tuning: ArmTuning) -> str:
    """One line on how an arm came to its learning rate."""
    text = (
        f"{tuning.arm}: learning rate tuned at {tuning.tuned_at_flops:.3g} FLOPs to "
        f"{tuning.learning_rate_multiplier:g} x the rule, transferred by the rule"
    )
    if tuning.at_edge:
        text += "; at the edge of what was tried: try further"
    if tuning.better_at_largest is not None:
        return text + f"; but {tuning.better_at_largest:g} x did better at the largest budget"
    if tuning.checked_at_flops is not None:
        return text + f"; its neighbours did no better at {tuning.checked_at_flops:.3g}"
    return text + "; not checked at the largest budget"
