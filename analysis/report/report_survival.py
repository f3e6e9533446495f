"""Is the first arm of each budget first however FLOPs are counted? A sentence or two."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.report.page_parts import counted, flops, listed
from analysis.sweep.conventions import ConventionStanding, first_arms
from search.belief.gaps import ArmGap
from spaces.flops import CONVENTIONS


def survival_of(standings: Sequence[ConventionStanding], gaps: Sequence[ArmGap]) -> str:
    """Whether the first arm of each budget is first in the other conventions, in a sentence or two.

    ``gaps``: how sure the budget's differences are in the sweep's own convention.
    """
    found = first_arms(standings)
    if not found or len({each.arm for each in standings}) < 2:
        return ""
    same = [
        target
        for target, firsts in found.items()
        if set(firsts) == set(CONVENTIONS) and len(set(firsts.values())) == 1
    ]
    if len(same) == len(found):
        budgets = "every budget" if len(same) > 1 else "the one budget"
        return f"The first arm is the same under all three FLOP conventions at {budgets}."
    others = [_other(standings, gaps, target) for target in found if target not in same]
    return (
        f"The first arm is the same under all three FLOP conventions at {len(same)} of "
        f"{counted(len(found), 'budget')}, not at {listed(others)}."
    )


def _other(standings: Sequence[ConventionStanding], gaps: Sequence[ArmGap], target: float) -> str:
    """Who is first there in which convention, and whether that is more than luck."""
    there = [each for each in standings if each.target_train_flops == target]
    firsts = [f"{each.arm} by {each.convention}" for each in there if each.rank == 1]
    margins = [abs(b.loss_nats - a.loss_nats) for a, b in _leads(there)]  # type: ignore[operator]
    widths = [g.half_width_nats for g in gaps if g.train_flops == target and g.half_width_nats]
    luck = ""
    if widths and margins:
        is_tie = max(margins) <= min(widths)
        luck = ", no more than a tie" if is_tie else ", in one of them by more than a tie"
    return f"{flops(target)} FLOPs ({', '.join(firsts)}{luck})"


def _leads(
    there: Sequence[ConventionStanding],
) -> list[tuple[ConventionStanding, ConventionStanding]]:
    """The first in each convention, and where one of the other conventions' firsts stands there."""
    firsts = {each.arm for each in there if each.rank == 1}
    found = []
    for convention in CONVENTIONS:
        mine = [each for each in there if each.convention == convention and each.rank is not None]
        first = next((each for each in mine if each.rank == 1), None)
        if first is not None:
            found += [(first, each) for each in mine if each.arm in firsts - {first.arm}]
    return found
