"""What do the runs say? ``isoflop fit``: laws with intervals and certificates, on any table."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from experiments.command import default_home, parse_options, print_json, talk
from spaces.errors import RequestError

if TYPE_CHECKING:
    import polars as pl

    from analysis.isoflop.isoflop_fit import IsoflopFit
    from analysis.laws.law import Law
    from analysis.points.checked_points import Points
    from analysis.sweep.confirmation import Confirmation
    from search.record.ledger import TrialRecord

Words = tyro.conf.UseAppendAction[tuple[str, ...]]
Numbers = tyro.conf.UseAppendAction[tuple[float, ...]]


TABLE_NAME = re.compile(r"\.(csv|tsv|jsonl|ndjson|parquet)(\.(gz|bz2|xz))?$")
"""Names, in lower case, that no sweep has."""


def default_reference() -> Path:
    """``shared/reference`` beside this checkout."""
    return Path(__file__).resolve().parents[2].parent / "shared" / "reference"


@dataclass(frozen=True)
class FitOptions:
    """Fit scaling laws to a sweep or to any table; a statistical refusal is a result."""

    experiment: tyro.conf.Positional[str | None] = None
    """Name or TOML path of a sweep of the home, or a table's path as with --table; left out with
    --table or --gauntlet."""
    table: Path | None = None
    """A .csv, .tsv, .jsonl or .parquet file to fit instead of a sweep (docs/inputs.md)."""
    law: str | None = None
    """power, chinchilla, isoflop, loop-power, loop-bounded, loop-linear, compute-capacity;
    left out: chinchilla for a table, every arm's surface and curves for a sweep."""
    estimator: str = "huber"
    """huber, lad, log-mse or mse."""
    delta: float = 1e-3
    """Where Huber's parabola ends, in log residuals (in standard deviations with loss_std)."""
    column: Words = ()
    """ROLE=COLUMN, repeatable; roles: params, tokens, flops, loss, budget, loss_std, weight,
    num_loops, num_loops_test, params_once, params_deep, params_wide, epochs, data_seed,
    trunk, schedule."""
    tokens_from_flops: str | None = None
    """6nd: tokens = flops / (6 params)."""
    keep: Words = ()
    """SQL condition on columns, repeatable; rows that break it are left out and listed."""
    fix: Words = ()
    """NAME=VALUE, repeatable: hold E, an exponent or a shape parameter there; for example E=0."""
    every_row: bool = False
    """Of a sweep, use runs of fewer tokens than parameters or more than four epochs too."""
    law_rows: bool = False
    """Of a table, leave such runs out; a sweep's are, a table's rows count as they are given."""
    score: str | None = None
    """The law of a score against compute, -ln(score) = A flops^-alpha: of a sweep TASK.RULE
    (isoflop evaluate), of a table the column with shares of right answers."""
    chance: float | None = None
    """Of a table with --score: what guessing scores, between 0 and 1."""
    items: int | None = None
    """Of a table with --score: how many questions a score is over, for the test against chance."""
    over: str | None = None
    """Column role of the power law: flops, params or tokens; left out: the one the table has."""
    resample: str = "auto"
    """components, jackknife, pairs, clusters, residual, wild, hessian; auto: components (noise
    drawn anew, its share per budget, data seed and trunk estimated) where there are four budgets,
    the jackknife over budgets beside it; else pairs."""
    bootstrap: int = 1000
    """Resamples, for the kinds that draw."""
    seed: int = 0
    """Seed of the resamples."""
    at_flops: Numbers = ()
    """FLOPs at which optimal size, tokens and loss are given, repeatable."""
    target_loss: Numbers = ()
    """Loss whose cost is given, repeatable."""
    curve: str | None = None
    """Where iso-FLOP exponents come from: pooled (one curve over all budgets; the default of a
    sweep), or every budget's own minimum by parabola (the default of a table), cubic or akima."""
    hold_out: str = "auto"
    """Rehearsal: largest-budget, largest-budgets:K, a fraction of the FLOPs, sizes:K, or none;
    auto: the largest budget of five or more, else a fifth by FLOPs, where the fit predicts."""
    profile: Words = ()
    """Parameter to profile, repeatable; weak ones are profiled unasked."""
    sensitivity: bool = False
    """Also refit without each row, the worst rows and each budget."""
    figures: Path | None = None
    """Folder for figures as PNG and SVG; a sweep's go into its home unless told."""
    full: bool = False
    """Of a sweep, print every law with its whole certificate and checklist."""
    gauntlet: bool = False
    """Refit the reference data and print published against ours."""
    reference: Path = field(default_factory=default_reference)
    """Folder of the reference data."""
    home: Path = field(default_factory=default_home)
    """Where the ledger lives."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


def run(argv: list[str]) -> int:
    """Fit and print; 0 for a refusal too, 1 where the gauntlet differs from what is published."""
    options = _parsed(argv)
    asked = sum([options.experiment is not None, options.table is not None, options.gauntlet])
    if asked != 1:
        raise RequestError("fit takes one of EXPERIMENT, --table FILE and --gauntlet")
    if options.bootstrap < 2:
        raise RequestError(f"--bootstrap takes at least 2 resamples, got {options.bootstrap}")
    if options.seed < 0:
        raise RequestError(f"--seed takes a whole number from 0, got {options.seed}")
    _require_read(options)
    from analysis.objective.progress import listening
    from analysis.report.progress_line import ProgressLine

    with listening(ProgressLine(talk)):
        return _run(options)


def _parsed(argv: list[str]) -> FitOptions:
    """The options; what changes fields of the experiment tells which sweep is meant."""
    from experiments.setup import changed_name, parted

    kept, given = parted(argv, FitOptions)
    options = _with_table(parse_options(FitOptions, kept, verb="fit"))
    if not given:
        return options
    if options.experiment is None:
        raise RequestError(
            f"{given[0]} changes a field of an experiment, but a table or the gauntlet is fitted; "
            "leave it out, or name an EXPERIMENT"
        )
    return replace(options, experiment=changed_name(options.experiment, given, verb="fit"))


def _with_table(options: FitOptions) -> FitOptions:
    """The options, a table's path among them where EXPERIMENT is one."""
    name = options.experiment
    if name is None or options.table is not None or name.lower().endswith(".toml"):
        return options
    if TABLE_NAME.search(name.lower()):
        return replace(options, experiment=None, table=Path(name))
    return options


def _require_read(options: FitOptions) -> None:
    """Raises `RequestError` for an option that what is asked for would not read."""
    whole_sweep = options.experiment is not None and options.law is None and not options.score
    of_table = options.score is not None and options.table is not None
    surface = not whole_sweep and not options.gauntlet and options.law != "isoflop"
    unread = {
        "--over": options.over is not None and options.law != "power",
        "--score": options.score is not None and (options.law is not None or options.gauntlet),
        "--chance": options.chance is not None and not of_table,
        "--items": options.items is not None and not of_table,
        "--fix": bool(options.fix) and not surface,
        "--target-loss": bool(options.target_loss) and not surface,
        "--profile": bool(options.profile) and not surface,
        "--sensitivity": options.sensitivity and not surface,
        "--keep": bool(options.keep) and whole_sweep,
        "--law-rows": options.law_rows and options.experiment is not None,
        "--every-row": options.every_row and options.table is not None,
        "--at-flops": bool(options.at_flops) and whole_sweep,
        "--tokens-from-flops": options.tokens_from_flops is not None and whole_sweep,
    }
    given = [name for name, is_unread in unread.items() if is_unread]
    if given:
        raise RequestError(
            f"{' and '.join(given)} would not be read here; --over is for --law power, --score is "
            "a law of its own (--chance and --items: of a table), the others are for one law on "
            "one table: name it with --law, for example --law chinchilla"
        )


def _run(options: FitOptions) -> int:
    if options.gauntlet:
        return run_gauntlet(options)
    if options.score is not None:
        document, text = _fit_score(options, options.score)
    elif options.experiment is not None and options.law is None:
        return run_sweep(options)
    else:
        document, text = fit_table(options, options.table or _rows_of_one_law(options))
    if options.json:
        print_json(document)
    else:
        print(text)
    return 0


def run_gauntlet(options: FitOptions) -> int:
    """Print every published case beside ours."""
    from analysis.gauntlet.all_cases import run_gauntlet as compare
    from analysis.report.fit_text import gauntlet_text

    found = compare(options.reference)
    for what in found.skipped:
        talk(f"skipped: {what}")
    if options.json:
        print_json(found.to_dict())
    else:
        print(gauntlet_text(found))
    return 0 if found.passed else 1


def _sweep_frame(options: FitOptions) -> pl.DataFrame:
    from analysis.points.sweep_frame import sweep_frame
    from experiments.setup import sweep_name

    assert options.experiment is not None
    return sweep_frame(sweep_name(options.experiment), options.home)


def _rows_of_one_law(options: FitOptions) -> pl.DataFrame:
    from analysis.sweep.sweep_fit import with_head_used_once

    return with_head_used_once(_sweep_frame(options))


def _records(options: FitOptions) -> tuple[list[TrialRecord], list[Confirmation]]:
    """The trials of the sweep, and its forecasts beside what tested them."""
    from analysis.sweep.confirmation import confirmations
    from experiments.setup import sweep_name
    from search.record.ledger import Ledger

    assert options.experiment is not None
    name = sweep_name(options.experiment)
    with contextlib.closing(Ledger(options.home)) as ledger:
        return ledger.trials(name), confirmations(ledger, name)


def run_sweep(options: FitOptions) -> int:
    """Fit every arm of a sweep, draw, log both to its run in MLflow, and print."""
    from analysis.points.column_roles import parse_roles
    from analysis.report.fit_text import sweep_text
    from analysis.report.sweep_summary import sweep_summary
    from analysis.sweep.freedoms import arm_freedoms
    from analysis.sweep.sweep_fit import fit_sweep
    from experiments.comparisons import print_confirmations, print_rates, print_trends
    from experiments.fit_logging import draw_into, log_sweep_fit
    from experiments.setup import sweep_name
    from search.belief.rate_standing import rate_standings

    assert options.experiment is not None
    records, confirmed = _records(options)
    fitted = fit_sweep(
        _sweep_frame(options),
        method=_curve(options, "pooled"),
        roles=parse_roles(options.column),
        seed=options.seed,
        every_row=options.every_row,
        freedoms=arm_freedoms(records),
    )
    name = sweep_name(options.experiment)
    figures = draw_into(options.figures, fitted, options.home / "sweeps" / name / "figures")
    standings = rate_standings(records)
    document = fitted.to_dict() | {"figures": [str(path) for path in figures]}
    document["learning_rates"] = [asdict(standing) for standing in standings]
    document["confirmations"] = [each.to_dict() for each in confirmed]
    problem = log_sweep_fit(name, options.home, document, figures)
    if problem is not None:
        talk(f"not logged to MLflow: {problem}")
    if options.json:
        print_json(document)
    else:
        print(sweep_text(fitted) if options.full else sweep_summary(fitted))
        print_trends(fitted.trends)
        print_confirmations(confirmed)
        print_rates(standings)
        print("\n" + "\n".join(f"figure: {path}" for path in figures if path.suffix == ".png"))
        if not options.full:
            print("every parameter, reason and the checklist: --full, or --json")
    return 0


def _curve(options: FitOptions, otherwise: str) -> Any:
    """The method of iso-FLOP exponents; checked where they are fitted."""
    return options.curve or otherwise


def _told(paths: list[Path]) -> list[str]:
    for path in paths:
        talk(f"wrote {path}")
    return [str(path) for path in paths]


def fit_table(options: FitOptions, table: Path | pl.DataFrame) -> tuple[dict[str, Any], str]:
    """The JSON document and the text of one law on one table."""
    if options.law == "isoflop":
        return _isoflop(options, table)
    return _surface(options, table)


def _isoflop(options: FitOptions, table: Path | pl.DataFrame) -> tuple[dict[str, Any], str]:
    from analysis.isoflop.isoflop_fit import fit_isoflop
    from analysis.points.column_roles import parse_roles
    from analysis.report.fit_text import isoflop_text

    roles = parse_roles(options.column)
    fitted = fit_isoflop(
        _read_points(options, table, ("params", "tokens"), roles),
        method=_curve(options, "parabola"),
        at_flops=options.at_flops,
    )
    document = fitted.to_dict()
    if options.figures is not None:
        document["figures"] = _told(_draw_isoflop(fitted, options.figures))
    return document, isoflop_text(fitted)


def _read_points(
    options: FitOptions, table: Path | pl.DataFrame, needed: Sequence[str], roles: dict[str, str]
) -> Points:
    """The rows that a law is to use; of a sweep, units are certain, since we counted them."""
    from analysis.judge.rows_for_laws import rows_for_laws
    from analysis.points.table_reading import points_from

    points = points_from(
        table,
        needed,
        roles=roles,
        tokens_from_flops=options.tokens_from_flops,
        keep=options.keep,
        own_count=not isinstance(table, Path),
    )
    is_chosen = options.law_rows if isinstance(table, Path) else not options.every_row
    return rows_for_laws(points) if is_chosen else points


def _draw_isoflop(fitted: IsoflopFit, folder: Path) -> list[Path]:
    from analysis.show.figure_data import CurvePanel, frontier_line, loss_frontier
    from analysis.show.figures import draw_frontier, draw_isoflop, save

    title = Path(fitted.points.source).name
    written = save(
        draw_isoflop([CurvePanel(title=title, curves=fitted.curves)]), folder, "isoflop_curves"
    )
    if fitted.certificate.refuses("n_star"):
        return written
    line, losses = frontier_line(title, fitted), loss_frontier(title, fitted.curves)
    return written + save(draw_frontier([line], [losses]), folder, "frontier")


def _surface(options: FitOptions, table: Path | pl.DataFrame) -> tuple[dict[str, Any], str]:
    from analysis.points.column_roles import parse_roles

    roles = parse_roles(options.column)
    law = _law(options, table, roles)
    return _fit_law(options, law, _read_points(options, table, law.roles, roles), {})


def _fit_score(options: FitOptions, name: str) -> tuple[dict[str, Any], str]:
    """A score against compute: of a table, or of what a sweep's runs were evaluated on."""
    import numpy as np

    from analysis.evaluation.downstream import (
        DIRECT_LAW,
        HELD,
        P_CHANCE,
        direct_points,
        p_of_shares,
        scores_of_sweep,
    )
    from analysis.points.column_roles import parse_roles

    roles = {**parse_roles(options.column), "loss": name}
    if options.table is not None:
        chance = _chance(options)
        points = _read_points(options, options.table, DIRECT_LAW.roles, roles)
        tested = p_of_shares(points.losses, chance=chance, num_items=options.items)
        return _fit_law(options, DIRECT_LAW, direct_points(points, tested), HELD)
    scores = scores_of_sweep(_sweep_frame(options), _records(options)[0], name)
    if scores.num_without:
        talk(f"{scores.num_without} results have no {scores.name}")
    roles["loss"] = scores.name
    points = _read_points(options, scores.frame, scores.law.roles, roles)
    if not scores.is_share:
        return _fit_law(options, scores.law, points, {})
    tested = scores.frame[P_CHANCE].to_numpy()[points.row_numbers - 1]
    return _fit_law(options, scores.law, direct_points(points, np.asarray(tested)), HELD)


def _chance(options: FitOptions) -> float:
    if options.chance is None or not 0 < options.chance < 1:
        raise RequestError(
            "--score of a table needs --chance, what guessing scores, between 0 and 1 (0.25 where "
            f"one of four answers is right); got {options.chance}"
        )
    if options.items is not None and options.items < 1:
        raise RequestError(f"--items is a number of questions, got {options.items}")
    return options.chance


def _fit_law(
    options: FitOptions, law: Law, points: Points, held: Mapping[str, float]
) -> tuple[dict[str, Any], str]:
    """The document and the text of one law on points."""
    from analysis.fit.fitting import fit
    from analysis.judge.held_parameters import parse_fixed
    from analysis.objective.estimators import Estimator
    from analysis.report.fit_text import fit_text
    from analysis.report.further_findings import extras_of

    fitted = fit(
        law,
        points,
        estimator=Estimator(name=options.estimator, delta=options.delta),  # type: ignore[arg-type]
        resample_kind=options.resample,  # type: ignore[arg-type]
        num_resamples=options.bootstrap,
        seed=options.seed,
        at_flops=options.at_flops,
        at_losses=options.target_loss,
        fixed={**held, **parse_fixed(options.fix)},
    )
    extras = extras_of(
        fitted,
        profiles=options.profile,
        hold_out=None if options.hold_out == "none" else options.hold_out,
        with_sensitivity=options.sensitivity,
        num_resamples=options.bootstrap,
        seed=options.seed,
    )
    document = fitted.to_dict() | extras.to_dict()
    if options.figures is not None:
        document["figures"] = _told(extras.draw(options.figures))
    return document, "\n".join([fit_text(fitted), *extras.lines()])


def _law(options: FitOptions, table: Path | pl.DataFrame, roles: dict[str, str]) -> Law:
    """The law that was asked for; the power law over the column that the table has."""
    from analysis.laws.law_registry import law_named, power_law_of
    from analysis.points.column_names import with_sweep_names
    from analysis.points.table_files import read_frame

    name = options.law or "chinchilla"
    if name != "power":
        return law_named(name)
    frame = read_frame(table) if isinstance(table, Path) else table
    offered = [*frame.columns, *with_sweep_names(frame.columns)]
    return power_law_of(offered, roles, options.over)
