"""What do the gaps between arms say in a line or two each? Which is better, and from where on."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.isoflop.frontier_gap import Crossing, GapTrend

MAX_REASONS = 3
"""Reasons that are told of each pair; all are in the JSON document."""


def trends_text(trends: Sequence[GapTrend]) -> str:
    """A paragraph per pair of arms; empty without one."""
    return "\n".join(line for trend in trends for line in _lines(trend))


def _lines(trend: GapTrend) -> list[str]:
    lines = [f"{trend.one} and {trend.other} at the minima of their iso-FLOP curves:"]
    lines += [f"  {_at_budgets(trend)}"] if any(gap.interval for gap in trend.gaps) else []
    if trend.line is not None:
        low, high = trend.line.slope_interval
        lines.append(
            f"  the gap moves by {trend.line.slope:+.3g} [{low:+.3g}, {high:+.3g}] nats per unit "
            "of ln C"
        )
    if trend.crossing is not None:
        lines.append(f"  {crossing_text(trend.crossing)}")
    against = [reason for reason in trend.reasons if reason.status != "ok"]
    against.sort(key=lambda reason: reason.status != "refused")
    lines += [f"  {reason.status}: {reason.message}" for reason in against[:MAX_REASONS]]
    lines += [f"  note: {reason.message}" for reason in trend.reasons if reason.status == "ok"]
    return lines


def _at_budgets(trend: GapTrend) -> str:
    """Every gap with its interval, and what its sign means."""
    parts = []
    for gap in trend.gaps:
        if gap.gap_nats is not None and gap.interval is not None:
            low, high = gap.interval
            parts.append(
                f"{gap.gap_nats:+.4f} [{low:+.4f}, {high:+.4f}] at {gap.train_flops:.3g} FLOPs"
            )
    return f"loss of {trend.other} less {trend.one}, nats: {', '.join(parts)}"


def crossing_text(crossing: Crossing) -> str:
    """From where on which arm is better, as far as that may be told."""
    better = crossing.better_beyond
    if crossing.not_before is None and crossing.not_after is None:
        return f"{better} gains with compute; where the arms cross is not known within the budgets"
    if crossing.not_before is None:
        return f"{better} is better from at most {crossing.not_after:.3g} FLOPs on (95 %)"
    if crossing.not_after is None or crossing.train_flops is None:
        return (
            f"{better} gains with compute, but is not better before {crossing.not_before:.3g} "
            "FLOPs (95 %)"
        )
    return (
        f"{better} is better from {crossing.train_flops:.3g} FLOPs on "
        f"[{crossing.not_before:.3g}, {crossing.not_after:.3g}]"
    )
