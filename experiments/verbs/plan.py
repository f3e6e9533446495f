"""``isoflop plan``: what would run, before anything does."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.sweep.expectations import ExpectedGap, LawExpectation, expectations, expected_gaps
from analysis.sweep.settling import change_in_words, smallest_change
from experiments.command import print_json, talk
from experiments.foreseeing import NextRuns, next_runs
from experiments.setup import ExperimentOptions, json_number, parse_experiment_options
from runners.ground import most_side_by_side
from runners.plan import TO_RUN, Plan, PlannedTrial, plan
from runners.trial.branching import trunk_key
from search.belief.rates import shared_rate_nats
from search.design.question import GapQuestion, parse_question
from search.limits.packs import may_join
from search.record.numbers import configuration_numbers
from spaces.arms.contract import shape_in_words

MOST_TIMES, MOST_TRIALS = 4, 1000
"""How far beyond the experiment's own trials a question is followed."""


@dataclass(frozen=True)
class PlanOptions(ExperimentOptions):
    """What an experiment would run, why, how large, how long and for how much."""

    price: float | None = None
    """Cost of one worker-hour, in your currency."""
    power: str | None = None
    """A question, such as "phi +- 0.05" (also alpha, beta, omega, a, loss@FLOPs) or "gap(dual,
    standard)@1e15 +- 0.01": the cheapest runs that are expected to answer it."""
    mend: bool = False
    """Look for the cheapest change of sizes, trials, budgets and text after which most laws are
    expected to stand; takes a few seconds."""


def run(argv: list[str]) -> int:
    """Print the plan."""
    options, experiment = parse_experiment_options(PlanOptions, argv, verb="plan")
    found = plan(experiment, options.home, price=options.price)
    for note in found.notes:
        talk(note)
    records = [each.record for each in found.trials]
    laws: list[LawExpectation] = []
    gaps: list[ExpectedGap] = []
    if experiment.search.goal != "ablation":  # whose one shape no law is about
        laws = expectations(records, num_train_tokens=found.corpus.num_train_tokens)
        gaps = expected_gaps(experiment, found.ground, records)
    stands = all(law.verdict == "stands" for law in laws)
    change = None
    if options.mend and not stands:
        change = smallest_change(experiment, found.ground, records)
    asked = None
    if options.power is not None:
        most = min(MOST_TIMES * experiment.trials, MOST_TRIALS)
        larger = experiment.model_copy(update={"trials": most})
        asked = next_runs(larger, options.home, parse_question(options.power))
    if options.json:
        laws_said = {
            "expected": [asdict(law) | {"verdict": law.verdict} for law in laws],
            "expected_gaps": [asdict(gap) for gap in gaps],
            "change": None if change is None else change.to_dict(),
        }
        said = {} if asked is None else {"power": _power_document(asked)}
        print_json(plan_document(found) | {"text": found.corpus.sizes()} | laws_said | said)
    else:
        print_plan(found)
        print(found.corpus.describe_sizes())
        if laws:
            _print_expectations(laws, found)
        if gaps:
            print(f"gaps of arms at a budget, 95 % half-widths in nats: {_gaps_in_words(gaps)}")
        if not stands and not options.mend:
            print("--mend looks for the cheapest change after which most laws would stand")
        if change is not None:
            asked_flops = float(sum(each.proposal.train_flops for each in records))
            print(change_in_words(change, asked_flops))
        if asked is not None:
            print(_power_text(asked))
    return 0


def _power_document(asked: NextRuns) -> dict[str, Any]:
    number = asked.enough_after
    return {
        "question": str(asked.question),
        "runs": number,
        "train_flops": None if number is None else asked.flops_of(number),
        "looked_at_runs": len(asked.further),
    }


def _power_text(asked: NextRuns) -> str:
    number = asked.enough_after
    if number is not None:
        return (
            f"{asked.question} takes {number} runs that are chosen for it, "
            f"{asked.flops_of(number):.3g} training FLOPs; `isoflop sweep --until` runs them, "
            f"`isoflop next --question` shows them"
        )
    assert asked.question is not None
    widths = asked.half_widths[-1] if asked.half_widths else {}
    width = widths.get(asked.question.quantity, float("inf"))
    of_gap = isinstance(asked.question, GapQuestion)
    more = "further sizes (axes.d_model)" if of_gap else "budgets over a wider range"
    return (
        f"{asked.question} is out of reach of these axes and budgets: {len(asked.further)} runs "
        f"that are chosen for it, {asked.flops_of(len(asked.further)):.3g} training FLOPs, still "
        f"leave ± {width:.2g}; {more} would tell more"
    )


def plan_document(found: Plan) -> dict[str, Any]:
    """The plan as JSON."""
    trials = [
        {
            "config_hash": each.record.config_hash,
            "arm": each.record.proposal.arm,
            "purpose": each.record.proposal.purpose,
            "fate": each.fate,
            "why": each.why,
            **{
                name: json_number(value)
                for name, value in configuration_numbers(each.record.proposal).items()
            },
            "predicted_memory_bytes": json_number(each.memory_bytes),
            "predicted_seconds": each.seconds,
        }
        for each in found.trials
    ]
    return {
        "experiment": found.experiment.name,
        "convention": found.experiment.budget.convention,
        "trials": trials,
        "totals": {name: json_number(value) for name, value in asdict(found.totals).items()},
        "stopped_by": found.stopped_by,
    }


def print_plan(found: Plan) -> None:
    """The plan as a table and its totals."""
    from rich.console import Console
    from rich.table import Table

    convention = found.experiment.budget.convention
    table = Table(title=f"{found.experiment.name}: FLOPs in the {convention} convention")
    words = ("fate", "why", "arm")
    shape = ("budget", "shape", "parameters", "deep/wide/shared")
    spent = ("tokens", "tok/par", "steps", "batch", "lr", "memory", "time", "delivered")
    for column in (*words, *shape, *spent):
        table.add_column(column, justify="left" if column in (*words, "shape") else "right")
    for each in found.trials:
        table.add_row(*_row(each))
    console = Console(width=None if sys.stdout.isatty() else 220)
    console.print(table)
    _print_totals(found)


def _print_totals(found: Plan) -> None:
    totals = asdict(found.totals)
    print(
        f"{totals['to_run']} of {totals['trials']} trials to run ({totals['reused']} reused): "
        f"{totals['train_flops_to_run']:.3g} training FLOPs, {totals['tokens_to_run']:,} tokens, "
        f"at most {totals['largest_memory_bytes'] / 1e6:,.0f} MB each"
    )
    _print_packs(found)
    print(f"disk: at most {totals['disk_bytes'] / 1e6:.1f} MB of checkpoints, weights and records")
    if totals["worker_hours_to_run"] is None:
        print("time: not known, since this device has trained nothing in this home yet")
    else:
        cost = (
            "" if totals["cost"] is None else f", {totals['cost']:.2f} at {found.price:g} an hour"
        )
        print(f"time: {totals['worker_hours_to_run']:.3g} worker-hours of training{cost}")
    if found.stopped_by:
        print(f"stops in order: {found.stopped_by}")
    if any(each.fate == "open" for each in found.trials):
        talk("open: results still to come decide its shape; its cost is the budget's all the same")


def _print_packs(found: Plan) -> None:
    """What trunks save and cost, and how many trials train side by side."""
    totals = found.totals
    if totals.train_flops_shared:
        left = totals.train_flops_to_run - totals.train_flops_shared
        tokens: dict[str, list[int]] = {}
        for config in (each.record.proposal.config for each in found.trials):
            tokens.setdefault(trunk_key(config) or config.config_hash, []).append(config.tokens)
        span = max(max(each) / min(each) for each in tokens.values())
        print(
            f"trunks: {left:.3g} of these FLOPs are trained, the rest is shared ("
            f"{totals.train_flops_to_run / left:.2f} x fewer); tokens within a trunk differ by up "
            f"to {span:.3g} x, so that its one rate may cost the shortest and the longest trial "
            f"{shared_rate_nats(span):.4f} nats each"
        )
    most = most_side_by_side(found.experiment)
    if most > 1:
        configs = [each.record.proposal.config for each in found.trials if each.fate in TO_RUN]
        small = sum(may_join(config, [config], most=most) for config in configs)
        print(
            f"packs: a worker trains up to {most} trials side by side; {small} of {totals.to_run} "
            f"are small enough"
        )


def _print_expectations(laws: Sequence[LawExpectation], found: Plan) -> None:
    """What each law is expected to say, and what keeps it from saying more."""
    print("laws that a fit of these runs is expected to give (95 % half-widths):")
    for law in laws:
        rests = f"{law.results} results" if law.results else "a prior"
        widths = ", ".join(
            f"{each.name} {each.value:.2g} ± {each.half_width:.2g}" for each in law.expected
        )
        if law.prediction is not None:
            flops, relative = law.prediction
            widths += f", loss at {flops:.3g} FLOPs ± {relative:.2g} of itself"
        said = {"stands": "stands", "wide": "wide intervals", "no law": "no law will come out"}
        print(
            f"  {law.family}, {law.law}, {law.runs} runs, by {rests}: {said[law.verdict]}"
            + (f": {widths}" if widths else ": fewer runs than it takes")
        )
        if law.verdict != "stands" and law.uncovered:
            widths_asked = found.experiment.axes.d_model
            print(
                f"    {'; '.join(law.uncovered)}: widths (axes.d_model) lie between "
                f'{min(widths_asked)} and {max(widths_asked)}; search.goal = "law" asks for '
                f"sizes from a quarter to four times the best where the axes have them"
            )


def _gaps_in_words(gaps: Sequence[ExpectedGap]) -> str:
    """The narrowest and the widest of every two arms, and where."""
    pairs: dict[tuple[str, str], list[ExpectedGap]] = {}
    for gap in gaps:
        pairs.setdefault((gap.one, gap.other), []).append(gap)
    words = []
    for (one, other), mine in pairs.items():
        widths = [each.half_width_nats for each in mine]
        span = f"{min(widths):.2g}" if len(mine) == 1 else f"{min(widths):.2g} to {max(widths):.2g}"
        budgets = "1 budget" if len(mine) == 1 else f"{len(mine)} budgets"
        words.append(f"{one} and {other} {span} ({budgets})")
    return "; ".join(words)


def _row(each: PlannedTrial) -> list[str]:
    proposal = each.record.proposal
    config = proposal.config
    numbers = configuration_numbers(each.record.proposal)
    target = numbers["target_train_flops"]
    parts = [numbers[f"parameters_{part}"] / 1e3 for part in ("deep", "wide", "shared")]
    return [
        each.fate,
        each.why,
        proposal.arm,
        f"{target:.3g}",
        shape_in_words(config.architecture),
        f"{numbers['parameters'] / 1e6:.3f}M",
        "/".join(f"{part:.0f}k" for part in parts),
        f"{config.tokens:,}",
        f"{numbers['tokens_per_parameter']:.3g}",
        str(config.num_steps),
        str(config.training.batch_sequences),
        f"{config.training.learning_rate:.3g}",
        f"{each.memory_bytes / 1e6:.0f} MB",
        "?" if each.seconds is None else f"{each.seconds:.1f} s",
        f"{proposal.train_flops / target - 1:+.3%}",
    ]
