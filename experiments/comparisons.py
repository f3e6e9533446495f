"""How do arms compare? Their learning rates, and what they gain over the standard arm."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.isoflop.frontier_gap import GapTrend
from analysis.report.arm_trends_text import trends_text
from analysis.report.confirmation_text import confirmation_text
from analysis.sweep.confirmation import Confirmation
from analysis.sweep.freedoms import ArmFreedoms, unequal_freedoms
from analysis.sweep.gain import Gain
from analysis.sweep.leaderboard import Leaderboard
from experiments.command import talk
from experiments.digits import decimals_for
from search.belief.gaps import ArmGap
from search.belief.rate_standing import RateStanding
from search.propose.tuned_arms import ArmTuning


def print_comparisons(found: Leaderboard, *, full: bool = False) -> None:
    """What a reader of the leaderboard should know before arms are compared, and the gains."""
    for tuning in found.tunings:
        print(describe_tuning(tuning))
    print_rates(found.rates)
    print_freedoms(found.freedoms)
    print_gaps(found.gaps)
    print_trends(found.trends)
    print_gains(found.gains, full=full)
    print_confirmations(found.confirmations)


def print_confirmations(confirmations: Sequence[Confirmation]) -> None:
    """What was forecast at larger budgets, and whether it came true."""
    for each in confirmations:
        print(confirmation_text(each))


def print_rates(rates: Sequence[RateStanding]) -> None:
    """One row per arm, one column per budget; what was not examined is said, once."""
    examined = [standing for standing in rates if standing.examined != "nowhere"]
    if examined:
        title = (
            "learning rate of each arm's best, over the rule's [95 % interval of the best rate]: "
            "nats that it may still cost"
        )
        _print_by_budget(title, [(s.arm, s.train_flops, _rate_cell(s)) for s in examined])
    untried = sorted({standing.arm for standing in rates} - {each.arm for each in examined})
    if untried:
        print(
            f"learning rate as asked, no other was tried on one configuration: "
            f"{', '.join(untried)}; what it costs is not known"
        )


def _rate_cell(standing: RateStanding) -> str:
    low, high = standing.interval
    return (
        f"{standing.multiplier:.3g} [{low:.2g}, {high:.2g}]: "
        f"{'' if standing.may_cost_nats is None else f'{standing.may_cost_nats:.4f}'}"
        f"{'' if standing.examined == 'here' else ' (by transfer)'}"
    )


def print_freedoms(freedoms: Sequence[ArmFreedoms]) -> None:
    """What each arm chose from, a line each, and where they had not the same to choose."""
    for each in freedoms:
        steps = each.shared["step scales"]
        scales = "no step scales" if steps == "none" else f"step scales trained, starts {steps}"
        print(f"{each.arm} chose: {', '.join(each.searched) or 'nothing'}; {scales}")
    unequal = unequal_freedoms(freedoms)
    if unequal is not None:
        print(f"! {unequal}")


def print_gaps(gaps: Sequence[ArmGap]) -> None:
    """One row per arm, one column per budget: how far it lies behind the best, or a tie."""
    if not gaps:
        return
    rows = [(gap.worse, gap.train_flops, _gap_cell(gap)) for gap in gaps]
    _print_by_budget("nats behind the best arm of the budget, 95 % half-width", rows)
    if any(gap.verdict == "unknown" for gap in gaps):
        print("without replicates nothing says which of these gaps are luck")
    behind = sorted(
        {gap.worse for gap in gaps if gap.rate_nats is not None and gap.rate_nats >= gap.gap_nats}
    )
    if behind:
        print(f"no more than their learning rate may cost them: {', '.join(behind)}")


def print_trends(trends: Sequence[GapTrend]) -> None:
    """From which compute on which of two arms is better, pair by pair."""
    if trends:
        print(trends_text(trends))


def _gap_cell(gap: ArmGap) -> str:
    if gap.half_width_nats is None:
        return f"{gap.gap_nats:.4f} (to {gap.better})"
    tie = ", a tie" if gap.verdict == "tie" else ""
    decimals = decimals_for(gap.half_width_nats)
    return (
        f"{gap.gap_nats:.{decimals}f} ± {gap.half_width_nats:.{decimals}f}{tie} (to {gap.better})"
    )


def _print_by_budget(title: str, rows: Sequence[tuple[str, float, str]]) -> None:
    """A table of cells by arm (rows) and training FLOPs (columns)."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("arm")
    budgets = sorted({flops for _, flops, _ in rows})
    for flops in budgets:
        table.add_column(f"{flops:.3g} FLOPs", justify="right")
    cells = {(arm, flops): cell for arm, flops, cell in rows}
    for arm in sorted({arm for arm, _, _ in rows}):
        table.add_row(arm, *(cells.get((arm, flops), "") for flops in budgets))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def print_gains(gains: Sequence[Gain], *, full: bool = False) -> None:
    """One row per arm, one column per budget; why a number or an interval is missing: a line, or a
    line each."""
    if any(gain.gain is not None for gain in gains):
        rows = [(gain.arm, gain.train_flops, _gain_cell(gain)) for gain in gains]
        _print_by_budget("compute-equivalent gain over the standard arm, C_std(L) / C", rows)
    refused = [gain for gain in gains if gain.refused]
    if full:
        for gain in refused:
            talk(f"gain of {gain.arm} at {gain.train_flops:.3g}: {gain.refused}")
    elif refused:
        talk(f"compute-equivalent gains: {_refusals(refused)}")


def _refusals(refused: Sequence[Gain]) -> str:
    """Where there is none and one of the reasons, in a line; `isoflop best --full` has them all."""
    by_arm: dict[str, list[str]] = {}
    for gain in refused:
        by_arm.setdefault(gain.arm, []).append(f"{gain.train_flops:.3g}")
    where = "; ".join(f"{arm} at {', '.join(budgets)}" for arm, budgets in by_arm.items())
    others = len({gain.refused for gain in refused}) - 1
    more = f" (and {others} more reasons: --full)" if others else ""
    return f"none for {where}: {refused[0].refused}{more}"


def _gain_cell(gain: Gain) -> str:
    if gain.gain is None:
        return "-"
    if gain.interval is None:
        return f"{gain.gain:.2f}"
    return f"{gain.gain:.2f} [{gain.interval[0]:.2f}, {gain.interval[1]:.2f}]"


def describe_tuning(tuning: ArmTuning) -> str:
    """One line on how an arm came to its learning rate and to the start of its step scales."""
    text = (
        f"{tuning.arm}: first rates tried at {tuning.tuned_at_flops:.3g} FLOPs, "
        f"{tuning.learning_rate_multiplier:g} x the rule best"
    )
    if tuning.at_edge:
        text += "; at the edge of what was tried: try further"
    if tuning.step_scale_init is not None:
        text += f"; step scales start at {tuning.step_scale_init:.3g}"
    if tuning.step_scale_at_edge:
        text += ", the edge of what was tried"
    if tuning.better_start_at_largest is not None:
        text += f", but from {tuning.better_start_at_largest:.3g} did better at the largest budget"
    elif tuning.start_checked:
        text += ", no worse than the starts beside it at the largest budget"
    if tuning.better_at_largest is not None:
        return text + f"; but {tuning.better_at_largest:g} x the rule did better at the largest"
    if tuning.checked_at_flops is not None:
        at = f"{tuning.checked_at_flops:.3g}"
        if len(tuning.checked_sides) == 2:
            return text + f"; neighbouring rates did no better at {at}, or no more than a tie"
        tried, other = ("lower", "higher")[:: 1 if "lower" in tuning.checked_sides else -1]
        return text + f"; at {at} a {tried} rate did no better, a {other} one was not tried"
    return text + "; not checked at the largest budget"
