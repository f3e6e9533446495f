"""How does a report become one file?

Whatever users named is escaped; nothing is loaded from anywhere, which the page itself forbids the
browser (its content security policy).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from analysis.report.page_parts import Report
from analysis.report.pages import rendered, source_of
from analysis.report.report_figures import as_data_address, draw_on_paper
from analysis.report.sweep_report import data_of, find_out, report_of
from analysis.show.interactive import plotly_script
from search.record.code_version import package_version

ARM_HEADERS = ("arm", "first arm", "second arm", "better arm", "other arm")
"""Columns whose cells get their arm's colour."""

WORDS_OF_STATUS = {"ok": "note", "warn": "warning", "refused": "refused"}

PAGE = "report.html"


@dataclass(frozen=True, kw_only=True)
class WrittenReport:
    """A report and where it lies."""

    page: Path
    """One HTML file, complete in itself."""
    figures: tuple[Path, ...]
    """The same figures as PNG and SVG, beside it."""
    experiment: Path
    """The experiment as it was last run, beside it."""
    report: Report
    """What the page says."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All of it."""
        return (self.page, *self.figures, self.experiment)


def report(
    sweep: str, home: Path | str = "runs", *, out: Path | str | None = None
) -> WrittenReport:
    """Write a sweep's report into a folder, by default ``sweeps/NAME/report`` of the home.

    Raises `RequestError` where there is no such sweep, OSError where the folder cannot be written.
    """
    found = find_out(sweep, Path(home))
    folder = Path(home) / "sweeps" / sweep / "report" if out is None else Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    data = data_of(found)
    figures = draw_on_paper(data, folder)
    contents = report_of(found, data)
    experiment = folder / f"{found.sweep.name}.toml"
    experiment.write_text(found.experiment_toml, encoding="utf-8")
    pictures = {path.stem: as_data_address(path) for path in figures if path.suffix == ".svg"}
    page = folder / PAGE
    page.write_text(render(contents, pictures), encoding="utf-8")
    return WrittenReport(page=page, figures=tuple(figures), experiment=experiment, report=contents)


def render(report: Report, pictures: Mapping[str, str]) -> str:
    """The page. ``pictures``: name of a figure to the address of what is printed of it."""
    return rendered(
        "report.html.jinja",
        report=report,
        pictures=pictures,
        arm_headers=ARM_HEADERS,
        words_of_status=WORDS_OF_STATUS,
        version=package_version() or "",
        css=source_of("report.css"),
        script=source_of("report.js"),
        plotly=Markup(plotly_script().replace("</script", "<\\/script")),
        figures=Markup(_figures(report)),
    )


def _figures(report: Report) -> str:
    """Every panel's data and layout as one JSON document that no script tag can end early."""
    panels = [
        f'"plot-{figure.name}-{place}": {panel.figure_json}'
        for section in report.sections
        for figure in section.figures
        for place, panel in enumerate(figure.panels)
    ]
    return "{" + ",\n".join(panels).replace("<", "\\u003c") + "}"
