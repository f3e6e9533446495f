"""Is what the documentation shows true? Its code runs, its commands are parsed, its links lead."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import isoflop
from experiments.cli import VERBS, run
from experiments.command_reference import PAGE, reference
from tests.experiments.toy import write_toy

pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def code_of(page: str) -> str:
    """All Python blocks of a page, one after the other."""
    text = (ROOT / page).read_text()
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))


@pytest.fixture
def toy(tmp_path: Path) -> isoflop.Experiment:
    return isoflop.load_experiment(write_toy(tmp_path))


def test_what_extending_shows_runs(
    toy: isoflop.Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names: dict[str, Any] = {}
    exec(code_of("docs/extending.md"), names)
    tokens = np.geomspace(1e6, 1e9, 12)
    table = pl.DataFrame({"tokens": tokens, "loss": 2.0 + 400 * tokens**-0.4})
    found = isoflop.fit("tokens-only", table, num_resamples=50)
    assert found.parameters["beta"] == pytest.approx(0.4, rel=1e-3)
    summary = isoflop.run_sweep(
        toy,
        tmp_path / "home",
        make_proposer=names["SmallestFirst"],
        make_pool=names["TalkingPool"],
    )
    assert summary.num_run == 6
    assert capsys.readouterr().out.count("starting") == 6


def test_the_readme_s_python_runs(
    toy: isoflop.Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = code_of("README.md").replace('"loops.toml"', repr(str(tmp_path / "toy.toml")))
    names: dict[str, Any] = {}
    exec(code.replace('"loops"', '"toy"'), names)
    assert names["summary"].num_run == 6
    assert names["laws"].arms
    assert names["board"].budgets[0].entries[0].numbers["loss_nats"] > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(
        r"`((?:spaces|search|runners|analysis|experiments|tests)/[\w/.]+)`", text
    ):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ((?:experiments)[\w.]+)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module


def test_commands_of_the_documentation_name_verbs_and_options_that_exist(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [
        line.split("#")[0].split("  ")[0] if "…" in line else line.split("#")[0]
        for page in PAGES
        for block in re.findall(r"^```(?:bash|sh)?\n(.*?)^```", page.read_text(), re.S | re.M)
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip().startswith("isoflop ")
    ]
    assert len(lines) > 10
    for line in lines:
        _, verb, *words = shlex.split(line)
        assert verb in VERBS, line
        options = {word.split("=")[0] for word in words if word.startswith("--")}
        options -= {"--arms-from", "--num-experts", "--top-k", "--expert-ffn", "--ffn"}
        options = {each for each in options if not each.startswith("--axes.ffn")}
        with pytest.raises(SystemExit):
            run([verb, "--help"])
        said = re.sub(r"\s+", " ", capsys.readouterr().out)
        assert all(option in said for option in options), (line, options)


def test_the_first_experiment_of_one_s_own_can_be_planned(tmp_path: Path) -> None:
    (toml,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/first_sweep.md").read_text(), re.S)
    (tmp_path / "mine.toml").write_text(toml)
    (tmp_path / "mytext").mkdir()
    (tmp_path / "mytext" / "book.txt").write_text("A line of a book.\n\n" * 20_000)
    plan = isoflop.plan(isoflop.load_experiment(str(tmp_path / "mine.toml")), tmp_path / "home")
    assert plan.totals.to_run >= 10  # each arm at each budget; results decide what comes then


def test_the_index_names_every_page() -> None:
    named = set(re.findall(r"\]\(([\w.]+)\)", (ROOT / "docs/README.md").read_text()))
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs").glob("*.ipynb")]
    assert {page.name for page in pages} == {*named, "README.md"}


def test_the_command_reference_says_what_verbs_parse() -> None:
    assert PAGE.read_text() == reference(), "stale: python -m experiments.command_reference"
