"""``isoflop skip``: loss against FLOPs where tokens skip the deep path or stop looping."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from analysis.routing.exit_curve import (
    ExitCurve,
    ExitPoint,
    TrainedRun,
    exit_curves,
    frontier,
    verdict,
)
from experiments.command import default_home, parse_options, print_json, talk
from search.record.ledger import Ledger
from search.record.runs import find_run
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError
from spaces.flops import forward_flops_per_token

if TYPE_CHECKING:
    import polars as pl

    from runners.probes.exit_curve import Batch
    from runners.trial.trained import Trained

SAME_BUDGET = 1.01
"""Training FLOPs up to this ratio are the run's own."""


@dataclass(frozen=True)
class SkipOptions:
    """Compute where it pays, at inference: tokens whose gate or router says so skip the deep path
    or stop looping; beside random exits and models trained at that cost."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run by the beginning of its config_hash, its MLflow run id, or SWEEP/NUMBER."""
    by: tuple[Literal["gate", "router"], ...] = ()
    """gate: a token with a smaller deep share skips the deep path; router: one with less weight
    left for later loops stops. Left out: all that the model has, one at a time."""
    thresholds: tuple[float, ...] = ()
    """Of the score, 0 (every token stays) to 1 and more (none does that need not); left out: 0, 2,
    and the score's 10, 25, 50, 75 and 90 % points."""
    draws: int = 4
    """Random exits of each threshold."""
    seed: int = 0
    """Of the random exits."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto: cuda where there is one."""
    out: Path | None = None
    """Where to leave the rows as Parquet; left out: the home's folder probes."""
    home: Path = field(default_factory=default_home)
    """Where ledger, weights and text live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """What was found."""

    record: TrialRecord
    whole: ExitPoint
    """The model as it is."""
    curves: tuple[ExitCurve, ...]
    num_sequences: int
    device: str
    """What the time was measured on."""
    path: Path
    """Where the rows are."""


def run(argv: list[str]) -> int:
    """Measure every threshold, keep the rows and print the curve with its verdict."""
    options = parse_options(SkipOptions, argv, verb="skip")
    if options.draws < 1:
        raise RequestError(f"--draws must be at least 1, got {options.draws}")
    if any(each < 0 for each in options.thresholds):
        raise RequestError(f"--thresholds must be 0 or more, got {options.thresholds}")
    with contextlib.closing(Ledger(options.home)) as ledger:
        record = find_run(ledger, options.run)
        others = trained_beside(ledger, record)
    found = _skipped(record, others, options)
    talk(f"one row per sequence and threshold in {found.path}")
    if options.json:
        print_json(skip_document(found))
    else:
        print_curves(found)
    return 0


def trained_beside(ledger: Ledger, run: TrialRecord) -> list[TrialRecord]:
    """Runs of the home on the same text, measured on the same windows, trained for no more FLOPs
    and cheaper at inference."""
    records = [each for sweep in ledger.sweep_names() for each in ledger.trials(sweep)]
    found = {each.config_hash: each for each in records if _is_comparable(each, run)}
    return [each for each in found.values() if _flops(each, run) < _flops(run, run)]


def _flops(other: TrialRecord, run: TrialRecord) -> float:
    """Forward FLOPs per token in the convention of a run."""
    convention = run.proposal.budget.convention
    return forward_flops_per_token(other.proposal.config.architecture)[convention]


def _is_comparable(other: TrialRecord, run: TrialRecord) -> bool:
    one, another = other.proposal.config, run.proposal.config
    if other.outcome is None or other.outcome.loss_nats is None or not one.architecture.is_known:
        return False
    same = (
        one.text_fingerprint == another.text_fingerprint
        and one.eval_sequences == another.eval_sequences
        and one.architecture.context_length == another.architecture.context_length
    )
    return same and other.proposal.train_flops <= SAME_BUDGET * run.proposal.train_flops


def _skipped(record: TrialRecord, others: list[TrialRecord], options: SkipOptions) -> Skipped:
    from runners.machine.device import device_name
    from runners.probes.exit_curve import validation_batches
    from runners.trial.trained import load_trained

    trained = load_trained(record, options.home, device=options.device)
    batches = validation_batches(trained)
    rows = _rows(trained, batches, options)
    whole, curves = exit_curves(
        rows,
        list(_beside(others, record, batches, options)),
        convention=record.proposal.budget.convention,
        context_length=record.proposal.config.architecture.context_length,
    )
    path = options.out or options.home / "probes" / f"skip-{record.config_hash}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
    return Skipped(
        record=record,
        whole=whole,
        curves=curves,
        num_sequences=rows["sequence"].n_unique(),
        device=device_name(trained.model.head.weight.device),
        path=path,
    )


def _beside(
    others: list[TrialRecord], run: TrialRecord, batches: Sequence[Batch], options: SkipOptions
) -> Iterator[TrainedRun]:
    """The best of the others at each cost, with every sequence's loss where they left weights."""
    from runners.probes.exit_curve import sequence_nats
    from runners.trial.trained import load_trained

    records = {each.config_hash: each for each in others}
    for each in frontier(_known(record, run) for record in others):
        try:
            trained = load_trained(records[each.config_hash], options.home, device=options.device)
        except RequestError as error:
            talk(f"no interval beside {each.config_hash}: {error}")
            yield each
        else:
            yield replace(each, nats_S=sequence_nats(trained.model, batches))


def _known(record: TrialRecord, run: TrialRecord) -> TrainedRun:
    assert record.outcome is not None
    assert record.outcome.loss_nats is not None
    return TrainedRun(
        config_hash=record.config_hash,
        arm=record.proposal.config.architecture.arm,
        flops_per_token=_flops(record, run),
        loss_nats=record.outcome.loss_nats,
    )


def _rows(trained: Trained, batches: Sequence[Batch], options: SkipOptions) -> pl.DataFrame:
    from runners.probes.early_exit import exits_of, require_exits
    from runners.probes.exit_curve import measure_exits, usual_thresholds

    model = trained.model
    for by in options.by:
        require_exits(model, by)
    ways = dict.fromkeys(options.by or exits_of(model))
    thresholds = {
        by: sorted(set(options.thresholds)) or usual_thresholds(model, batches, by) for by in ways
    }
    return measure_exits(
        model,
        batches,
        thresholds,
        name=trained.record.config_hash,
        draws=options.draws,
        seed=options.seed,
    )


def skip_document(found: Skipped) -> dict[str, Any]:
    """The curves as JSON."""
    return {
        "config_hash": found.record.config_hash,
        "arm": found.record.proposal.arm,
        "convention": found.record.proposal.budget.convention,
        "rows": str(found.path),
        "num_sequences": found.num_sequences,
        "device": found.device,
        "whole": _point(found.whole),
        "curves": [
            {
                "by": curve.by,
                "points": [_point(each) for each in curve.points],
                "law": None if curve.law is None else asdict(curve.law),
                "refusal": curve.refusal,
                "verdict": verdict(curve, found.whole),
            }
            for curve in found.curves
        ],
    }


def _point(point: ExitPoint) -> dict[str, Any]:
    """A threshold without the sequences of the trained run beside it."""
    beside = None if point.trained is None else replace(point.trained, nats_S=None)
    document = asdict(replace(point, trained=beside))
    if beside is not None:
        del document["trained"]["nats_S"]
    return document


def print_curves(found: Skipped) -> None:
    """Each curve as a table, and what it says."""
    from rich.console import Console
    from rich.table import Table

    record, whole = found.record, found.whole
    print(
        f"{record.config_hash} ({record.proposal.arm}) as it is: {whole.loss_nats:.4f} nats per "
        f"token at {whole.flops_per_token:,.0f} FLOPs "
        f"({record.proposal.budget.convention}) and {whole.microseconds_per_token:.3g} "
        f"microseconds per token on {found.device}; ± is half a 95 % interval over "
        f"{found.num_sequences} validation sequences"
    )
    for curve in found.curves:
        table = Table(title=f"tokens leave by {curve.by}", title_justify="left")
        for column in (
            "threshold", "loops", "FLOPs/token", "us/token", "nats", "less whole", "less random",
            "trained", "less trained",
        ):  # fmt: skip
            table.add_column(column, justify="right")
        for point in curve.points:
            table.add_row(*_cells(point, whole))
        Console(width=130).print(table)
        for sentence in verdict(curve, whole):
            print(f"  {sentence}")
        print(f"  {_law_in_words(curve)}")


def _cells(point: ExitPoint, whole: ExitPoint) -> list[str]:
    trained = point.trained
    return [
        f"{point.threshold:.4g}",
        f"{point.loops:.2f}",
        f"{point.flops_per_token:,.0f} ({point.flops_per_token / whole.flops_per_token:.0%})",
        f"{point.microseconds_per_token:.3g}",
        f"{point.loss_nats:.4f}",
        _difference(point.less_whole, point.less_whole_interval),
        _difference(point.less_random, point.less_random_interval) or "all alike",
        "none"
        if trained is None
        else f"{trained.loss_nats:.4f} {trained.arm} {trained.config_hash[:4]}",
        _difference(point.less_trained, point.less_trained_interval),
    ]


def _difference(value: float | None, interval: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    spread = "" if interval is None else f" ± {(interval[1] - interval[0]) / 2:.4f}"
    return f"{value:+.4f}{spread}"


def _law_in_words(curve: ExitCurve) -> str:
    if curve.law is None:
        return f"no law of compute at inference: {curve.refusal}"
    low, high = curve.law.interval
    return (
        f"law: {curve.law.nats_per_doubling:.4f} nats less per doubling of FLOPs per token "
        f"(95 % {low:.4f} to {high:.4f}); no point is more than "
        f"{curve.law.largest_miss_nats:.4f} nats off it"
    )
