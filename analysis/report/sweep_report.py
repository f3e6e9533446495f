"""What does a report say of a sweep? Everything on the page, from the ledger, before it is drawn.

`isoflop.report` writes it; ``isoflop report`` prints where.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.points.sweep_frame import frame_of
from analysis.report.page_parts import Report, ReportFigure, Section, Table, counted, flops, listed
from analysis.report.report_answer import answer_of, caveats_of, question_of
from analysis.report.report_figures import FigureData, figure_data, interactive_figures
from analysis.report.report_laws import laws_sections, training_of
from analysis.report.report_survival import survival_of
from analysis.report.report_tables import (
    conventions_table,
    crossings_table,
    environment_table,
    failures_table,
    gains_table,
    gaps_table,
    leaderboard_table,
    overview_table,
    pareto_table,
    rates_table,
    routing_table,
    spending_table,
    trends_table,
)
from analysis.show.palette import arm_styles
from analysis.sweep.confirmation import confirmations
from analysis.sweep.conventions import ConventionStanding, convention_standings
from analysis.sweep.leaderboard import Leaderboard, leaderboard
from analysis.sweep.pareto import COSTS, ParetoFront, pareto_fronts
from analysis.sweep.sweep_fit import SweepFit, fit_sweep
from search.asked.experiment_text import as_toml
from search.record.ledger import Ledger
from search.record.redaction import redact
from search.record.spending import spending
from search.record.trial_records import SweepRecord, TrialRecord
from spaces.arms.registry import BUILT_IN
from spaces.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class SweepFindings:
    """What is known of a sweep: records, and what analysis makes of them."""

    sweep: SweepRecord
    records: tuple[TrialRecord, ...]
    board: Leaderboard
    fitted: SweepFit | None
    why_no_fit: str
    """Why there is no fit; empty where there is one."""
    fronts: tuple[ParetoFront, ...]
    standings: tuple[ConventionStanding, ...]

    @property
    def arms(self) -> list[str]:
        """Arms and families, as they are named anywhere."""
        found = {name for r in self.records for name in (r.proposal.arm, r.proposal.family)}
        return sorted(found)

    @property
    def experiment_toml(self) -> str:
        """The experiment as it was last run, as a file."""
        return redact(as_toml(self.asked))

    @property
    def asked(self) -> dict[str, Any]:
        """The experiment's fields."""
        fields: dict[str, Any] = json.loads(self.sweep.experiment_json)
        return fields


def find_out(sweep: str, home: Path) -> SweepFindings:
    """Read the ledger and fit. Raises `RequestError` where there is no such sweep."""
    with contextlib.closing(Ledger(home)) as ledger:
        record, records = ledger.sweep(sweep), ledger.trials(sweep)
        confirmed = tuple(confirmations(ledger, sweep))
    return findings_of(record, records, confirmed)


def findings_of(
    sweep: SweepRecord, records: Sequence[TrialRecord], confirmed: Sequence[Any] = ()
) -> SweepFindings:
    """What records say."""
    from dataclasses import replace

    board = replace(leaderboard(sweep, records), confirmations=tuple(confirmed))
    fitted, why = None, ""
    try:
        fitted = fit_sweep(frame_of(records), freedoms=board.freedoms)
    except RequestError as error:
        why = str(error)
    return SweepFindings(
        sweep=sweep,
        records=tuple(records),
        board=board,
        fitted=fitted,
        why_no_fit=why,
        fronts=pareto_fronts(records),
        standings=convention_standings(records, board.rates),
    )


def report_of(found: SweepFindings, data: FigureData) -> Report:
    """The page's contents."""
    styles = arm_styles(found.arms)
    figures = interactive_figures(data, styles)
    training = training_of(found.sweep, found.asked, found.records)
    sections = [
        _leaderboards(found),
        _curves(figures),
        _arms(found, figures),
        _conventions(found),
        _pareto(found, figures),
        *laws_sections(found.fitted, found.why_no_fit, found.board.confirmations, training),
        _rates(found),
        _routing(found),
        _spending(found),
        _reproduce(found),
    ]
    return Report(
        name=found.sweep.name,
        question=question_of(found.sweep),
        answer=answer_of(found.board, found.fitted, found.standings),
        caveats=caveats_of(found.board, found.fitted, found.records),
        sections=tuple(each for each in sections if each is not None),
        arm_styles=styles,
        facts=_facts(found),
    )


def _facts(found: SweepFindings) -> dict[str, str]:
    results = sum(record.is_result for record in found.records)
    updated = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.sweep.updated_at))
    spent = sum(spending(found.records).values())
    return {
        "results": f"{results:,} of {counted(len(found.records), 'trial')}",
        "training FLOPs spent": flops(spent),
        "last run": updated,
        "code": found.sweep.code_version,
        "text": found.sweep.text_fingerprint[:16],
    }


def _leaderboards(found: SweepFindings) -> Section:
    boards = found.board.budgets
    tables = [overview_table(found.board)] if len(boards) > 1 else []
    tables += [leaderboard_table(each, folded=each is not boards[-1]) for each in reversed(boards)]
    return Section(
        name="leaderboard",
        title="Leaderboard of every budget",
        words=(
            "Means over seeds, lowest first. * recommended: the lowest once the luck of seeds is "
            "taken out; = cannot be told from the first at 5 %.",
        ),
        tables=tuple(tables),
    )


def _curves(figures: dict[str, ReportFigure]) -> Section | None:
    drawn = tuple(figures[name] for name in ("isoflop_curves", "frontier") if name in figures)
    if not drawn:
        return None
    return Section(name="curves", title="Iso-FLOP curves and frontier", figures=drawn)


def _arms(found: SweepFindings, figures: dict[str, ReportFigure]) -> Section | None:
    board = found.board
    if not board.gaps and not board.trends:
        return None
    tables = [gaps_table(board.gaps)] if board.gaps else []
    if board.trends:
        tables += [crossings_table(board.trends), trends_table(board.trends)]
    tables += [gains_table(board.gains)] if any(gain.gain for gain in board.gains) else []
    return Section(
        name="arms",
        title="The gap between arms",
        figures=(figures["arm_gaps"],) if "arm_gaps" in figures else (),
        tables=tuple(tables),
    )


def _conventions(found: SweepFindings) -> Section | None:
    if len({each.arm for each in found.standings}) < 2:
        return None
    return Section(
        name="conventions",
        title="Does the ranking survive another count of FLOPs?",
        words=(
            "Full counts attention scores over the whole square, causal half of them, projection "
            "none. Trials of a budget cost the same only in the sweep's own convention. In the "
            "others each arm's best configuration is moved to the FLOPs of the budget's first arm, "
            "by the slope of loss over ln C between neighbouring budgets (the median over arms); "
            "these losses have no interval of their own.",
            survival_of(found.standings, found.board.gaps),
        ),
        tables=(conventions_table(found.standings),),
    )


def _pareto(found: SweepFindings, figures: dict[str, ReportFigure]) -> Section | None:
    if "pareto" not in figures:
        return None
    unknown = [COSTS[front.cost].name for front in found.fronts if not front.front]
    words = [f"Not recorded, hence no front: {listed(unknown)}."] if unknown else []
    return Section(
        name="pareto",
        title="Loss against parameters, inference and memory",
        words=tuple(words),
        figures=(figures["pareto"],),
        tables=(pareto_table(found.fronts),),
    )


def _rates(found: SweepFindings) -> Section | None:
    if not found.board.rates:
        return None
    return Section(
        name="rates",
        title="Learning rates, and what they may cost",
        words=("Where no other rate was tried, its cost is unknown, not zero.",),
        tables=(rates_table(found.board.rates),),
    )


def _routing(found: SweepFindings) -> Section | None:
    table = routing_table(found.board.budgets)
    return Section(name="routing", title="Routing", tables=(table,)) if table.rows else None


def _spending(found: SweepFindings) -> Section:
    parts = {str(name): spent for name, spent in spending(found.records).items()}
    tables: list[Table] = [spending_table(parts)]
    failures = failures_table(found.records)
    words = () if failures.rows else ("Every trial has a result.",)
    tables += [failures] if failures.rows else []
    tables.append(environment_table(found.records))
    return Section(
        name="spending",
        title="Where the FLOPs went, failures, environment",
        words=words,
        tables=tuple(tables),
    )


def _reproduce(found: SweepFindings) -> Section:
    sweep = found.sweep
    commit = sweep.commit.rstrip("+")
    checkout = f"git checkout {commit}\n" if commit else ""
    words = [
        f"Code {sweep.code_version or 'of unknown version'}; text fingerprint "
        f"{sweep.text_fingerprint}. Identities are hashes of architecture, recipe, tokens, text "
        "and seeds: the same experiment on the same text asks for the same trials.",
    ]
    if sweep.commit.endswith("+"):
        words.append("The checkout had changes that are in no commit.")
    own = [arm for arm in found.asked["arms"] if arm not in BUILT_IN]
    if own:
        words.append(f"FILE is the Python file of {listed(own)}, which is not part of isoflop.")
    arms = " --arms-from FILE" if own else ""
    command = (
        f"{checkout}isoflop sweep {sweep.name}.toml{arms}\nisoflop report {sweep.name}.toml{arms}"
    )
    return Section(
        name="reproduce",
        title="How to reproduce",
        words=tuple(words),
        code={"Command": command, f"{sweep.name}.toml": found.experiment_toml},
    )


def data_of(found: SweepFindings) -> FigureData:
    """What its figures draw."""
    return figure_data(found.fitted, found.fronts)
