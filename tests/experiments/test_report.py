"""``isoflop report``: what it writes and says, and what a real browser makes of the page."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import pytest

import isoflop
from experiments.cli import run
from experiments.verbs.report import print_report
from search.record.trial import Proposal
from tests.experiments.recorded import record_sweep, write_experiment
from tests.experiments.toy import run_json
from tests.search.records import bowl
from tests.sweeps import GROUND

pytestmark = pytest.mark.filterwarnings("default")

NOT_A_PAGE_S = (None, "not an origin")
"""Who asks for what Chromium itself wants from the network."""


def judge(proposal: Proposal) -> float:
    luck = random.Random(zlib.crc32(proposal.config_hash.encode())).gauss(0, 0.01)
    return bowl(proposal) + luck - (0.02 if proposal.arm == "dual" else 0)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    home = tmp_path_factory.mktemp("report")
    file = write_experiment(home, trials=45)
    record_sweep(file, home, GROUND, judge=judge)
    return ("report", str(file), "--home", str(home))


@pytest.fixture(scope="module")
def written(
    words: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> isoflop.WrittenReport:
    return isoflop.report("toy", words[-1], out=tmp_path_factory.mktemp("written") / "mine")


def test_a_page_its_figures_and_its_experiment_are_written(
    words: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    document = run_json(capfd, *words)
    page = Path(document["page"])
    assert page == Path(words[-1]) / "sweeps" / "toy" / "report" / "report.html"
    assert document["bytes"] == page.stat().st_size < 20e6
    assert all(Path(figure).exists() for figure in document["figures"])
    assert {Path(figure).suffix for figure in document["figures"]} == {".png", ".svg"}
    assert isoflop.load_experiment(document["experiment"]).name == "toy"
    assert document["answer"].startswith("At 4e+10 training FLOPs (full)")
    assert not document["in_mlflow"]
    board = isoflop.best("toy", words[-1])
    recommended = board.budgets[-1].recommended
    assert f"{recommended.proposal.arm} is recommended" in document["answer"]


def test_python_writes_the_page_and_a_person_is_told_where(
    written: isoflop.WrittenReport, capfd: pytest.CaptureFixture[str]
) -> None:
    assert written.page.read_text().startswith("<!doctype html>")
    assert written.page in written.files
    print_report(written)
    said = capfd.readouterr().out
    assert written.report.answer in said
    assert str(written.page) in said


def test_a_folder_that_cannot_be_written_is_named(
    words: tuple[str, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run([*words, "--out", str(tmp_path / "file")]) == 2
    said = capfd.readouterr().err
    assert str(tmp_path / "file") in said
    assert "--out names another" in said


def test_the_fronts_are_printed(words: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    best = ("best", *words[1:], "--pareto")
    fronts = {each["cost"]: each["front"] for each in run_json(capfd, *best)["pareto"]}
    assert set(fronts) == {"parameters", "forward_flops_per_token", "peak_memory_bytes"}
    for cost in ("parameters", "forward_flops_per_token"):
        losses = [each["loss_nats"] for each in fronts[cost]]
        costs = [each[cost] for each in fronts[cost]]
        assert losses == sorted(losses, reverse=True)
        assert costs == sorted(costs)
    assert fronts["peak_memory_bytes"] == []
    assert run(list(best)) == 0
    said = capfd.readouterr().out
    assert f"{fronts['parameters'][-1]['loss_nats']:.4f}" in said
    assert "no result has recorded it: peak training memory" in said


@dataclass(frozen=True)
class Visit:
    """A page as a browser has it."""

    document: str
    console: list[str]
    requests: list[str]
    """Addresses that the page asked the network for."""


def visit(page: Path, folder: Path, *options: str) -> Visit:
    """Open a file; what it became, said and asked for."""
    from tests.experiments.test_browser import CHROMIUM_OPTIONS

    folder.mkdir(exist_ok=True)
    log = folder / "net.json"
    places = (f"--user-data-dir={folder / 'browser'}", f"--log-net-log={log}")
    done = subprocess.run(
        [
            *("chromium", *CHROMIUM_OPTIONS, "--enable-logging=stderr", *places, *options),
            *("--dump-dom", page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    asked = [event["params"] for event in _events(log) if "url" in event.get("params", {})]
    return Visit(
        document=done.stdout,
        console=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
        requests=[
            each["url"]
            for each in asked
            if each.get("initiator") not in NOT_A_PAGE_S and each["url"].startswith("http")
        ],
    )


def _events(log: Path) -> list[dict[str, dict[str, str]]]:
    """One a line, of a log that the browser may not have closed."""
    lines = [line.strip().rstrip(",") for line in log.read_text().splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{") and '"params"' in line[:-1]]


@pytest.mark.browser
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_a_browser_draws_every_figure_and_asks_for_nothing(
    words: tuple[str, ...], written: isoflop.WrittenReport, tmp_path: Path, scheme: int
) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("Debian's chromium is not installed")
    seen = visit(written.page, tmp_path, f"--blink-settings=preferredColorScheme={scheme}")
    assert seen.console == []
    assert seen.requests == []
    panels = [p for s in written.report.sections for f in s.figures for p in f.panels]
    drawn = re.findall(r'<div class="plot js-plotly-plot" id="plot-', seen.document)
    assert len(drawn) == len(panels) > 3
    assert seen.document.count("scatterlayer mlayer") == len(panels)
    paths = seen.document.count('class="point"')
    assert paths > sum(len(json.loads(p.figure_json)["data"]) for p in panels) / 4
    for board in isoflop.best("toy", words[-1]).budgets:
        assert f"{board.seed_noise_nats:.4f}" in seen.document


@pytest.mark.browser
def test_the_legend_shows_and_hides(written: isoflop.WrittenReport, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("Debian's chromium is not installed")
    (figure,) = written.report.section("pareto").figures
    press = "document.querySelector('#figure-pareto .legend button').click();"
    page = tmp_path / "pressed.html"
    page.write_text(written.page.read_text().replace("</body>", f"<script>{press}</script></body>"))
    before, after = visit(written.page, tmp_path / "a"), visit(page, tmp_path / "b")
    assert after.console == []
    hidden = sum(
        len(clouds["text"])
        for panel in figure.panels
        for clouds in json.loads(panel.figure_json)["data"]
        if clouds.get("meta") == figure.legend[0].name
    )
    points = [each.document.count('class="point"') for each in (before, after)]
    assert points[0] - points[1] == hidden > 0
    assert after.document.count('aria-pressed="false" data-name=') == 1


@pytest.mark.browser
def test_the_visit_would_notice_a_request_and_an_error(tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("Debian's chromium is not installed")
    page = tmp_path / "page.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>throw Error("wrong")</script>')
    seen = visit(page, tmp_path)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert any("wrong" in line for line in seen.console)
