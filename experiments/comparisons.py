"""How do arms compare? Their learning rates, and what they gain over the standard arm."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.sweep.gain import Gain
from analysis.sweep.leaderboard import Leaderboard
from experiments.command import talk
from search.propose.tuned_arms import ArmTuning


def print_comparisons(found: Leaderboard) -> None:
    """What a reader of the leaderboard should know before arms are compared, and the gains."""
    for tuning in found.tunings:
        print(describe_tuning(tuning))
    arms = {entry.record.proposal.arm for board in found.budgets for entry in board.entries}
    untuned = sorted(arms - {tuning.arm for tuning in found.tunings})
    if untuned:
        print(f"learning rate by the rule, neither tuned nor transferred: {', '.join(untuned)}")
    print_gains(found.gains)


def print_gains(gains: Sequence[Gain]) -> None:
    """One row per arm, one column per budget; why a number or an interval is missing, once each."""
    if not any(gain.gain is not None for gain in gains):
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title="compute-equivalent gain over the standard arm, C_std(L) / C", title_justify="left"
    )
    table.add_column("arm")
    for flops in sorted({gain.train_flops for gain in gains}):
        table.add_column(f"{flops:.3g} FLOPs", justify="right")
    for arm in sorted({gain.arm for gain in gains}):
        own = sorted((g for g in gains if g.arm == arm), key=lambda gain: gain.train_flops)
        table.add_row(arm, *map(_gain_cell, own))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for why in sorted({gain.refused for gain in gains if gain.refused}):
        talk(f"gains: {why}")


def _gain_cell(gain: Gain) -> str:
    if gain.gain is None:
        return "-"
    if gain.interval is None:
        return f"{gain.gain:.2f}"
    return f"{gain.gain:.2f} [{gain.interval[0]:.2f}, {gain.interval[1]:.2f}]"


def describe_tuning(tuning: ArmTuning) -> str:
    """One line on how an arm came to its learning rate and to the start of its step scales."""
    text = (
        f"{tuning.arm}: learning rate tuned at {tuning.tuned_at_flops:.3g} FLOPs to "
        f"{tuning.learning_rate_multiplier:g} x the rule, transferred by the rule"
    )
    if tuning.at_edge:
        text += "; at the edge of what was tried: try further"
    if tuning.step_scale_init is not None:
        text += f"; step scales start at {tuning.step_scale_init:.3g}"
    if tuning.step_scale_at_edge:
        text += ", the edge of what was tried"
    if tuning.better_at_largest is not None:
        return text + f"; but {tuning.better_at_largest:g} x the rule did better at the largest"
    if tuning.checked_at_flops is not None:
        at = f"{tuning.checked_at_flops:.3g}"
        if len(tuning.checked_sides) == 2:
            return text + f"; neighbouring rates did no better at {at}, or no more than a tie"
        tried, other = ("lower", "higher")[:: 1 if "lower" in tuning.checked_sides else -1]
        return text + f"; at {at} a {tried} rate did no better, a {other} one was not tried"
    return text + "; not checked at the largest budget"
