"""What was asked and what came out? One paragraph made from the numbers, and its caveats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from analysis.isoflop.frontier_gap import FEWEST_GAPS, GapTrend
from analysis.judge.fit_certificate import Status
from analysis.report.arm_trends_text import crossing_text
from analysis.report.page_parts import Finding, counted, flops, listed, nats
from analysis.report.report_survival import survival_of
from analysis.sweep.conventions import ConventionStanding
from analysis.sweep.freedoms import unequal_freedoms
from analysis.sweep.leaderboard import BudgetBoard, Leaderboard
from analysis.sweep.sweep_fit import SweepFit
from search.belief.gaps import ArmGap
from search.belief.seed_noise import configuration_key
from search.record.trial_records import SweepRecord, TrialRecord, loss_of
from spaces.arms.contract import shape_in_words

STATES: dict[Status, str] = {
    "ok": "stand",
    "warn": "stand with warnings",
    "refused": "are refused in part or whole",
}
ALONE: dict[Status, str] = {
    "ok": "stands",
    "warn": "stands with warnings",
    "refused": "is refused in part or whole",
}
MOST_PAIRS = 3
"""Pairs of arms that are named; more are counted."""


def question_of(sweep: SweepRecord) -> str:
    """What the experiment asks, in a sentence or two."""
    asked: dict[str, Any] = json.loads(sweep.experiment_json)
    budget, arms = asked["budget"], asked["arms"]
    targets = sorted(budget["train_flops"])
    spans = (
        f"{flops(targets[0])} training FLOPs"
        if len(targets) == 1
        else f"{len(targets)} budgets from {flops(targets[0])} to {flops(targets[-1])} training "
        "FLOPs"
    )
    what = "Which shape" if len(arms) == 1 else "Which arm"
    law = asked.get("search", {}).get("goal") in ("law", "both")
    beyond = ", and what law does it follow as compute grows" if law and len(targets) > 1 else ""
    return (
        f"{what} of {listed(arms)} reaches the lowest validation loss when every trial of a budget "
        f"costs the same ({spans}, {budget['convention']} convention){beyond}?"
    )


def answer_of(
    board: Leaderboard, fitted: SweepFit | None, standings: Sequence[ConventionStanding]
) -> str:
    """The answer in one paragraph."""
    if not board.budgets:
        return "There is no answer yet: no trial has ended with a loss."
    parts = [
        _largest(board),
        _over_budgets(board),
        _with_compute(board.trends),
        _gains(board),
        _laws(fitted),
        survival_of(standings, board.gaps),
    ]
    return " ".join(part for part in parts if part)


def _largest(board: Leaderboard) -> str:
    """The winner of the largest budget, and how the others compare with it there."""
    last = board.budgets[-1]
    record, runs = last.recommended, _runs_of(last)
    config = record.proposal.config
    said = (
        f"At {flops(last.target_train_flops)} training FLOPs ({last.convention}), the largest "
        f"budget with results, {record.proposal.arm} is recommended: "
        f"{shape_in_words(config.architecture)}, {config.tokens:,} tokens, "
        f"{nats(fmean(map(loss_of, runs)))} nats per token over {counted(len(runs), 'seed')}."
    )
    gaps = [gap for gap in board.gaps if gap.train_flops == last.target_train_flops]
    return said + (f" {_gaps(gaps)}" if gaps else "")


def _runs_of(board: BudgetBoard) -> list[TrialRecord]:
    key = configuration_key(board.recommended.proposal)
    return [e.record for e in board.entries if configuration_key(e.record.proposal) == key]


def _gaps(gaps: Sequence[ArmGap]) -> str:
    """Who lies behind there, who is a tie."""
    words = {
        verdict: [_gap(gap) for gap in gaps if gap.verdict == verdict]
        for verdict in ("better", "tie", "unknown")
    }
    behind, tied, unknown = words["better"], words["tie"], words["unknown"]
    parts = [
        f"At that budget {listed(behind)}." if behind else "",
        f"Not to be told apart are {listed(tied)}." if tied else "",
        f"Without replicates nothing says what of this is luck: {listed(unknown)}."
        if unknown
        else "",
    ]
    return " ".join(part for part in parts if part)


def _gap(gap: ArmGap) -> str:
    half = "" if gap.half_width_nats is None else f" ± {nats(gap.half_width_nats)}"
    apart = f"{nats(gap.gap_nats)}{half} nats"
    if gap.verdict == "tie":
        return f"{gap.worse} and {gap.better} ({apart})"
    return f"{gap.worse} lies {apart} behind {gap.better}"


def _over_budgets(board: Leaderboard) -> str:
    """Which arm is recommended how often."""
    if len(board.budgets) < 2:
        return ""
    firsts = Counter(each.recommended.proposal.arm for each in board.budgets)
    number = len(board.budgets)
    if len(firsts) == 1:
        return f"It is {next(iter(firsts))} at all {number} budgets."
    told = [f"{arm} at {count}" for arm, count in firsts.most_common()]
    return f"Over the {number} budgets the recommended arm is {listed(told)}."


def _with_compute(trends: Sequence[GapTrend]) -> str:
    """From which compute on an arm is better, pair by pair, as far as that may be told."""
    told = {id(trend): said for trend in trends if (said := _trend(trend))}
    silent = [trend for trend in trends if id(trend) not in told]
    parts = [f"At the minima of their curves: {'; '.join(told.values())}."] if told else []
    if silent:
        pairs = listed([f"{trend.one} and {trend.other}" for trend in silent])
        which = pairs if len(silent) <= MOST_PAIRS else f"{len(silent)} pairs of arms"
        parts.append(f"From which compute on one is better the data do not tell of {which}.")
    return " ".join(parts)


def _trend(trend: GapTrend) -> str:
    """Where two arms cross, or that one is better at every budget; empty where neither is told."""
    if trend.crossing is not None:
        return f"of {trend.one} and {trend.other}, {crossing_text(trend.crossing)}"
    known = [gap.interval for gap in trend.gaps if gap.interval is not None and gap.is_of_line]
    sides = {(low > 0) - (high < 0) for low, high in known}
    if len(known) < FEWEST_GAPS or sides not in ({1}, {-1}):
        return ""
    better, worse = (trend.one, trend.other)[:: 1 if sides == {1} else -1]
    return f"{better} is better than {worse} at each of {len(known)} budgets"


def _gains(board: Leaderboard) -> str:
    """What an arm is worth in compute at its largest budget, where that has an interval."""
    known = {gain.arm: gain for gain in board.gains if gain.gain and gain.interval}
    told = [
        f"{arm} {gain.gain:.2f} [{gain.interval[0]:.2f}, {gain.interval[1]:.2f}] "
        f"({flops(gain.train_flops)} FLOPs)"
        for arm, gain in known.items()
        if gain.gain and gain.interval
    ]
    if not told:
        return ""
    return (
        "Compute that the standard arm needs for the same loss, over the arm's own: "
        f"{listed(told)}."
    )


def _laws(fitted: SweepFit | None) -> str:
    if fitted is None:
        return ""
    fits = [arm.surface for arm in fitted.arms] + ([fitted.capacity] if fitted.capacity else [])
    states = Counter(fit.status for fit in fits)
    told = [f"{states[status]} {words}" for status, words in STATES.items() if states[status]]
    if len(fits) == 1:
        return f"The one fitted law {ALONE[fits[0].status]}."
    return f"Of {len(fits)} fitted laws, {listed(told)}."


def caveats_of(
    board: Leaderboard, fitted: SweepFit | None, records: Sequence[TrialRecord]
) -> tuple[Finding, ...]:
    """What a reader of the answer should know, gravest first."""
    found = [
        *_of_noise(board),
        *_of_rates(board),
        *_of_freedoms(board),
        *_of_laws(fitted),
        *_of_trials(board, records),
    ]
    found.append(
        Finding(
            status="ok",
            text="An arm stands by the best of what was tried. That a longer search may find "
            "better ones is in no interval.",
        )
    )
    order = ("refused", "warn", "ok")
    return tuple(sorted(found, key=lambda each: order.index(each.status)))


def _of_noise(board: Leaderboard) -> list[Finding]:
    without = [b for b in board.budgets if b.seed_noise_nats is None]
    if without:
        told = listed([flops(each.target_train_flops) for each in without])
        text = f"No replicates at {told} FLOPs: nothing says there which differences are luck."
        return [Finding(status="warn", text=text)]
    few = [b for b in board.budgets if b.degrees_of_freedom < 4]
    if few:
        told = listed([flops(each.target_train_flops) for each in few])
        text = f"Seed noise at {told} FLOPs rests on fewer than 4 degrees of freedom."
        return [Finding(status="warn", text=text)]
    return []


def _of_rates(board: Leaderboard) -> list[Finding]:
    untried = sorted({each.arm for each in board.rates if each.examined == "nowhere"})
    if not untried:
        return []
    text = (
        f"Learning rates of {listed(untried)} are as asked for; no other was tried on one "
        "configuration, and what that costs each arm is not known."
    )
    return [Finding(status="warn", text=text)]


def _of_freedoms(board: Leaderboard) -> list[Finding]:
    unequal = unequal_freedoms(board.freedoms)
    return [] if unequal is None else [Finding(status="warn", text=_sentence(unequal))]


def _of_laws(fitted: SweepFit | None) -> list[Finding]:
    if fitted is None:
        return []
    named = [(arm.arm, arm.surface.status) for arm in fitted.arms]
    refused = [name for name, status in named if status == "refused"]
    if not refused:
        return []
    text = f"The law of {listed(refused)} is refused in part or whole: see its certificate."
    return [Finding(status="refused", text=text)]


def _of_trials(board: Leaderboard, records: Sequence[TrialRecord]) -> list[Finding]:
    found = []
    aside = sum(record.set_aside is not None for record in records)
    if aside:
        text = f"{counted(aside, 'trial')} no longer belong to the experiment and count nowhere."
        found.append(Finding(status="warn", text=text))
    waiting = sum(each.state in ("queued", "running", "preempted") for each in records)
    if waiting:
        text = f"The sweep has not ended: {counted(waiting, 'trial')} without a result yet."
        found.append(Finding(status="warn", text=text))
    warned = [e.record for b in board.budgets for e in b.entries if _warnings(e.record)]
    if warned:
        example = _warnings(warned[0])[0]
        text = f"{counted(len(warned), 'result')} carry a warning, for example: {example}."
        found.append(Finding(status="warn", text=text))
    return found


def _warnings(record: TrialRecord) -> tuple[str, ...]:
    return record.outcome.warnings if record.outcome else ()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
