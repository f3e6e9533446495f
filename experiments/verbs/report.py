"""``isoflop report``: one HTML page of a sweep, and its figures for papers beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import print_json, talk
from experiments.setup import SweepOptions, parse_sweep_options
from spaces.errors import RequestError

if TYPE_CHECKING:
    from analysis.report.report_page import WrittenReport


@dataclass(frozen=True)
class ReportOptions(SweepOptions):
    """One HTML page that needs nothing else: question, answer, figures, laws, how to reproduce."""

    out: Path | None = None
    """Folder to write into; left out: sweeps/NAME/report of the home."""


def run(argv: list[str]) -> int:
    """Write the report and say where it is."""
    options, name = parse_sweep_options(ReportOptions, argv, verb="report")
    written = _write(name, options)
    problem = _log(name, options.home, written)
    if problem is not None:
        talk(f"not logged to MLflow: {problem}")
    if options.json:
        print_json(report_document(written, logged=problem is None))
    else:
        print_report(written)
    return 0


def _write(name: str, options: ReportOptions) -> WrittenReport:
    from analysis.objective.progress import listening
    from analysis.report.progress_line import ProgressLine
    from analysis.report.report_page import report

    try:
        with listening(ProgressLine(talk)):
            return report(name, options.home, out=options.out)
    except OSError as error:
        raise RequestError(
            f"a report needs a folder that can be written: {error.filename}: {error.strerror}; "
            "--out names another"
        ) from error


def _log(name: str, home: Path, written: WrittenReport) -> str | None:
    """Put the report on the sweep's run in MLflow; what went wrong, or None."""
    import contextlib

    from runners.mlflow.projection import log_report
    from search.record.ledger import Ledger

    with contextlib.closing(Ledger(home)) as ledger:
        sweep = ledger.sweep(name)
    return log_report(home, sweep, written.files)


def report_document(written: WrittenReport, *, logged: bool) -> dict[str, Any]:
    """The report as JSON: where it is, and what it says first."""
    said = written.report
    return {
        "page": str(written.page),
        "bytes": written.page.stat().st_size,
        "figures": [str(path) for path in written.figures],
        "experiment": str(written.experiment),
        "in_mlflow": logged,
        "question": said.question,
        "answer": said.answer,
        "caveats": [asdict(each) for each in said.caveats],
        "sections": [each.title for each in said.sections],
    }


def print_report(written: WrittenReport) -> None:
    """The answer, and where the page is."""
    print(written.report.answer)
    megabytes = written.page.stat().st_size / 1e6
    print(f"\nreport: {written.page} ({megabytes:.1f} MB, one file that needs no network)")
    print(f"figures for papers: {len(written.figures)} PNG and SVG in {written.page.parent}")
