"""Which tables does a report have? Leaderboards, arms, fronts, conventions, rates, spending."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean

from analysis.isoflop.frontier_gap import GapTrend
from analysis.report.arm_trends_text import crossing_text
from analysis.report.page_parts import NO_NUMBER, Table, flops, nats, short
from analysis.sweep.conventions import ConventionStanding
from analysis.sweep.gain import Gain
from analysis.sweep.leaderboard import BudgetBoard, Leaderboard
from analysis.sweep.pareto import COSTS, Candidate, ParetoFront, on_some_front
from search.belief.gaps import ArmGap
from search.belief.rate_standing import RateStanding
from search.belief.seed_noise import by_configuration, configuration_key
from search.record.numbers import configuration_numbers, outcome_numbers
from search.record.trial_records import TrialRecord, loss_of
from spaces.arms.contract import shape_in_words
from spaces.flops import CONVENTIONS

ROWS = 10
"""Configurations of a budget that are listed."""

CONFIGURATION = (
    "arm",
    "shape",
    "parameters",
    "tokens",
    "tokens / parameter",
    "peak rate",
    "seeds",
    "loss (nats)",
    "bits / byte",
)
"""What a configuration is told by."""

IN_SHORT = ("arm", "shape", "parameters", "tokens", "seeds", "loss (nats)")
"""What of that is told where all budgets stand together."""

MOST_OPEN_ROWS = 12
"""Longer tables are folded."""

MOST_REASONS = 3
"""Reasons that are told of each pair of arms; all are in ``isoflop fit --json``."""

ROUTING = {
    "mean_deep_share": "deep share",
    "mean_gate_entropy_nats": "gate entropy (nats)",
    "mean_deep_closed_share": "deep path nearly closed (share of tokens)",
    "mean_wide_closed_share": "wide path nearly closed (share of tokens)",
    "collapsed_layers_share": "layers and seeds with a collapsed path (share)",
    "mean_expected_loops": "loops expected",
}
"""Numbers of a row that say how it routes, and what they are called."""


def leaderboard_table(board: BudgetBoard, *, folded: bool) -> Table:
    """The configurations of one budget, lowest mean loss first, ties and recommendation marked."""
    entries = {entry.record.config_hash: entry for entry in board.entries}
    groups = by_configuration([entry.record for entry in board.entries]).values()
    ordered = sorted(groups, key=lambda runs: fmean(map(loss_of, runs)))
    rows = []
    for rank, runs in enumerate(ordered, start=1):
        is_recommended = board.recommended in runs
        if rank <= ROWS or is_recommended:
            tied = entries[runs[0].config_hash].tied_with_best
            rows.append((_marked(rank, is_recommended, tied), *_cells(runs)))
    noise = (
        "no replicates, so that nothing says what is a tie"
        if board.seed_noise_nats is None
        else f"seed noise {nats(board.seed_noise_nats)} nats, {board.degrees_of_freedom} degrees "
        "of freedom"
    )
    shown = f"{min(ROWS, len(ordered))} of {len(ordered)} configurations"
    return Table(
        caption=f"{flops(board.target_train_flops)} training FLOPs ({board.convention}): "
        f"{shown}; {noise}",
        header=("#", *CONFIGURATION),
        rows=tuple(rows),
        folded=folded,
    )


def _marked(rank: int, is_recommended: bool, tied: bool | None) -> str:
    return f"{'*' if is_recommended else ''}{'=' if tied else ''}{rank}"


def _cells(runs: Sequence[TrialRecord]) -> tuple[str, ...]:
    record, config = runs[0], runs[0].proposal.config
    bits = [run.outcome.bits_per_byte for run in runs if run.outcome and run.outcome.bits_per_byte]
    numbers = configuration_numbers(record.proposal)
    return (
        record.proposal.arm,
        shape_in_words(config.architecture),
        short(numbers["parameters"]),
        short(config.tokens),
        f"{numbers['tokens_per_parameter']:.1f}",
        f"{config.training.learning_rate:.3g}",
        str(len(runs)),
        nats(fmean(map(loss_of, runs))),
        nats(fmean(bits) if bits else None),
    )


def overview_table(board: Leaderboard) -> Table:
    """The recommended configuration of every budget, and which arms are a tie with it."""
    rows = []
    for each in board.budgets:
        runs = by_configuration([entry.record for entry in each.entries])
        mine = runs[configuration_key(each.recommended.proposal)]
        gaps = [gap for gap in board.gaps if gap.train_flops == each.target_train_flops]
        tied = {arm for g in gaps if g.verdict == "tie" for arm in (g.better, g.worse)}
        others = sorted(tied - {each.recommended.proposal.arm})
        cells = dict(zip(CONFIGURATION, _cells(mine), strict=True))
        told = (cells[name] for name in IN_SHORT)
        rows.append((flops(each.target_train_flops), *told, ", ".join(others)))
    return Table.of(
        "Recommended at every budget",
        ("budget (FLOPs)", *IN_SHORT, "other arms not to be told from the best"),
        rows,
    )


def gaps_table(gaps: Sequence[ArmGap]) -> Table:
    """Each arm beside the best of its budget: a row for each arm, a column for each budget."""
    cells = {(gap.worse, gap.train_flops): _gap_cell(gap) for gap in gaps}
    return _by_budget("Nats behind the best arm of the budget, 95 % half-width", cells)


def _gap_cell(gap: ArmGap) -> str:
    half = "" if gap.half_width_nats is None else f" ± {nats(gap.half_width_nats)}"
    verdict = {"better": "", "tie": ", a tie", "unknown": ", luck unknown"}[gap.verdict]
    return f"{nats(gap.gap_nats)}{half}{verdict} ({gap.better})"


def _by_budget(caption: str, cells: Mapping[tuple[str, float], str]) -> Table:
    """Cells by arm and budget as a table."""
    budgets = sorted({target for _, target in cells})
    rows = [
        (arm, *(cells.get((arm, target), "") for target in budgets))
        for arm in sorted({arm for arm, _ in cells})
    ]
    return Table.of(caption, ("arm", *(f"{flops(each)} FLOPs" for each in budgets)), rows)


def crossings_table(trends: Sequence[GapTrend]) -> Table:
    """Every two arms: how their gap moves, and from where on one is better or why that is not told.

    What they had unequal freedoms in stands among the report's caveats.
    """
    rows = []
    for trend in trends:
        slope = NO_NUMBER
        if trend.line is not None:
            low, high = trend.line.slope_interval
            slope = f"{trend.line.slope:+.3g} [{low:+.3g}, {high:+.3g}]"
        told = [crossing_text(trend.crossing)] if trend.crossing is not None else []
        told += [r.message for r in trend.reasons if r.status == "refused"]
        told += [
            r.message for r in trend.reasons if r.status == "warn" and r.code != "unequal-freedoms"
        ]
        rows.append((trend.one, trend.other, slope, "; ".join(told[:MOST_REASONS])))
    return Table.of(
        "Gap over compute at the minima of the iso-FLOP curves",
        ("first arm", "second arm", "nats per unit of ln C", "from which compute on"),
        rows,
    )


def trends_table(trends: Sequence[GapTrend]) -> Table:
    """The gaps of every two arms at the minima of their iso-FLOP curves."""
    rows = []
    for trend in trends:
        for gap in trend.gaps:
            ends = NO_NUMBER
            if gap.interval is not None:
                low, high = gap.interval
                ends = f"[{nats(low, signed=True)}, {nats(high, signed=True)}]"
            rows.append(
                (
                    trend.one,
                    trend.other,
                    flops(gap.train_flops),
                    nats(gap.gap_nats, signed=True),
                    ends,
                    gap.refused or "",
                )
            )
    return Table.of(
        "Gaps at the fitted minima: loss of the second arm less the first",
        (
            *("first arm", "second arm", "budget (FLOPs)", "gap (nats)", "95 % interval"),
            "why there is none",
        ),
        rows,
        folded=True,
    )


def gains_table(gains: Sequence[Gain]) -> Table:
    """What each arm is worth in compute beside the standard one."""
    cells = {(gain.arm, gain.train_flops): _gain_cell(gain) for gain in gains}
    return _by_budget(
        "Compute-equivalent gain: C of the standard arm for the same loss, over C (95 %)", cells
    )


def _gain_cell(gain: Gain) -> str:
    if gain.gain is None:
        return NO_NUMBER
    if gain.interval is None:
        return f"{gain.gain:.2f}"
    return f"{gain.gain:.2f} [{gain.interval[0]:.2f}, {gain.interval[1]:.2f}]"


def pareto_table(fronts: Sequence[ParetoFront]) -> Table:
    """Every configuration on a front, lowest loss first; marked in the costs of those fronts."""
    rows = []
    for each, costs in on_some_front(fronts):
        proposal = each.record.proposal
        rows.append(
            (
                proposal.arm,
                shape_in_words(proposal.config.architecture),
                flops(proposal.budget.train_flops or 0.0),
                str(each.seeds),
                nats(each.loss_nats),
                *(_cost_cell(each, name, marked=name in costs) for name in COSTS),
            )
        )
    return Table(
        caption="Configurations on a front, lowest loss first; * none that costs as little of this "
        "does better",
        header=(
            *("arm", "shape", "budget (FLOPs)", "seeds", "loss (nats)"),
            *(cost.label for cost in COSTS.values()),
        ),
        rows=tuple(rows),
        folded=len(rows) > MOST_OPEN_ROWS,
    )


def _cost_cell(candidate: Candidate, name: str, *, marked: bool) -> str:
    value = candidate.costs.get(name)
    cell = short(None if value is None else value / COSTS[name].unit_size)
    return f"*{cell}" if marked else cell


def conventions_table(standings: Sequence[ConventionStanding]) -> Table:
    """Rank and moved loss of every arm in the three conventions, side by side."""
    by_key = {(s.target_train_flops, s.arm, s.convention): s for s in standings}
    rows = []
    for target, arm in dict.fromkeys((s.target_train_flops, s.arm) for s in standings):
        there = [by_key[target, arm, convention] for convention in CONVENTIONS]
        ranks = {each.rank for each in there}
        rows.append(
            (
                flops(target),
                arm,
                *(_standing(each) for each in there),
                *(NO_NUMBER if x.train_flops is None else flops(x.train_flops) for x in there),
                "same" if len(ranks) == 1 else "moves",
            )
        )
    return Table(
        caption="Rank: loss (nats) at equal FLOPs, counted in each convention; and what the arm's "
        "best configuration took",
        header=(
            *("budget (FLOPs)", "arm", *CONVENTIONS),
            *(f"FLOPs, {convention}" for convention in CONVENTIONS),
            "rank",
        ),
        rows=tuple(rows),
    )


def _standing(each: ConventionStanding) -> str:
    return NO_NUMBER if each.rank is None else f"{each.rank}: {nats(each.loss_nats)}"


def rates_table(rates: Sequence[RateStanding]) -> Table:
    """At which rate each arm stands, and what that may cost it."""
    cells = {(each.arm, each.train_flops): _rate_cell(each) for each in rates}
    return _by_budget(
        "Rate of each arm's best over the rule's [95 % interval of the best rate]: nats that it "
        "may still cost",
        cells,
    )


def _rate_cell(each: RateStanding) -> str:
    if each.examined == "nowhere":
        return f"{each.multiplier:.3g}: unknown"
    low, high = each.interval
    where = "" if each.examined == "here" else " (by transfer)"
    return f"{each.multiplier:.3g} [{low:.2g}, {high:.2g}]: {nats(each.may_cost_nats)}{where}"


def routing_table(boards: Sequence[BudgetBoard]) -> Table:
    """How the best configuration of each arm and budget routes; empty where none does."""
    found: dict[tuple[float, str], Mapping[str, float]] = {}
    for board in boards:
        for entry in board.entries:
            numbers = outcome_numbers(entry.record.outcome)
            if any(name in numbers for name in ROUTING):
                key = (board.target_train_flops, entry.record.proposal.arm)
                found.setdefault(key, numbers)
    shown = [name for name in ROUTING if any(name in numbers for numbers in found.values())]
    rows = tuple(
        (
            arm,
            flops(target),
            *(f"{n[name]:.3f}" if name in n else NO_NUMBER for name in shown),
        )
        for (target, arm), n in found.items()
    )
    return Table(
        caption="Means over layers and validation tokens of each arm's run with the lowest loss",
        header=("arm", "budget (FLOPs)", *(ROUTING[name] for name in shown)),
        rows=rows,
    )


def spending_table(parts: Mapping[str, float]) -> Table:
    """Training FLOPs by purpose."""
    total = sum(parts.values())
    rows = [
        (purpose, flops(spent), f"{spent / total:.1%}" if total else NO_NUMBER)
        for purpose, spent in parts.items()
        if spent
    ]
    return Table(
        caption="Training FLOPs of every attempt, by what they were spent on",
        header=("spent on", "FLOPs", "share"),
        rows=(*rows, ("all", flops(total), "100.0%" if total else NO_NUMBER)),
    )


def failures_table(records: Sequence[TrialRecord]) -> Table:
    """What ended without a result, and why; alike reasons are one row."""
    kinds: Counter[tuple[str, str, str]] = Counter()
    for record in records:
        if record.is_result:
            continue
        state = "set aside" if record.set_aside else record.state
        why = record.set_aside or record.reason or ""
        kinds[state, record.proposal.arm, why[:300]] += 1
    rows = tuple((state, arm, str(n), why) for (state, arm, why), n in kinds.most_common())
    return Table.of("Trials without a result", ("state", "arm", "trials", "why"), rows)


def environment_table(records: Sequence[TrialRecord]) -> Table:
    """On what, and with which versions, the results were made."""
    found: Counter[tuple[str, str]] = Counter()
    for record in records:
        if record.is_result and record.outcome is not None:
            found["device", record.outcome.device or "not recorded"] += 1
            for name, version in record.outcome.versions.items():
                found[name, version] += 1
    rows = tuple((name, value, f"{count:,}") for (name, value), count in sorted(found.items()))
    return Table(caption="Environment", header=("what", "which", "results"), rows=rows)
