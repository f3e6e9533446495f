"""Do the values of the public functions show themselves in a notebook, true to what they hold?"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import isoflop
from experiments.run_tutorial import PAGE, executed
from spaces.shown import Shown
from tests.experiments.toy import write_toy

pytestmark = pytest.mark.filterwarnings("default")


class _Cells(HTMLParser):
    """The text of every cell, and whether each tag that was opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


def cells(value: Shown) -> list[str]:
    return _Cells(value._repr_html_()).cells


def test_a_sweep_shows_itself_at_every_station(tmp_path: Path) -> None:
    experiment, home = isoflop.load_experiment(write_toy(tmp_path)), tmp_path / "home"
    experiment = experiment.model_copy(update={"trials": 3})
    plan = isoflop.plan(experiment, home)
    assert "3 of 3 trials to run" in plan._repr_html_()
    assert cells(plan).count("new") + cells(plan).count("open") == 3
    assert "3 trials run (0 failed)" in isoflop.run_sweep(experiment, home)._repr_html_()
    board = isoflop.best("toy", home)
    losses = [f"{e.numbers['loss_nats']:.4g}" for b in board.budgets for e in b.entries]
    assert [cell for cell in cells(board) if cell in losses] == losses
    status = isoflop.status("toy", home)
    assert "3 of 3 trials: 3 complete" in status._repr_html_()
    laws = isoflop.fit_sweep(isoflop.sweep_frame("toy", home))
    assert cells(laws).count("refused") == len(laws.arms) + (laws.capacity is not None)
    assert "certificate: refused" in laws.arms[0]._repr_html_()


def test_a_law_shows_its_parameters_and_its_certificate() -> None:
    params, tokens = np.meshgrid(np.geomspace(1e6, 1e9, 6), np.geomspace(1e7, 1e11, 6))
    loss = 1.7 + 400 * params**-0.34 + 410 * tokens**-0.28
    table = pl.DataFrame({"params": params.ravel(), "tokens": tokens.ravel(), "loss": loss.ravel()})
    fitted = isoflop.fit("chinchilla", table, num_resamples=50)
    assert {"0.34", "0.28"} <= set(cells(fitted))
    assert set(cells(fitted.certificate)) <= set(cells(fitted))


def test_a_flop_certificate_shows_every_part_and_convention() -> None:
    architecture = isoflop.Architecture(
        arm="standard", num_layers=1, d_model=16, deep_ffn=32, head_dim=16, context_length=8,
        vocab_size=64,
    )  # fmt: skip
    certificate = isoflop.certify(architecture)
    shown = cells(certificate)
    assert f"{certificate.parameters.total:,}" in shown
    assert f"{certificate.train_flops_per_token.causal:,}" in shown
    assert "three counters agree" in certificate._repr_html_()


def code_cells() -> list[str]:
    """The code of the tutorial, cell by cell."""
    notebook = json.loads(PAGE.read_text())
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def test_the_tutorial_uses_only_names_that_exist() -> None:
    known = set(dir(builtins))
    for code in code_cells():
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, each.name) for each in node.names), code
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "isoflop":
                assert node.attr in isoflop.__all__, node.attr
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {each.asname or each.name for each in node.names}
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
        used = {n.id for n in ast.walk(ast.parse(code)) if isinstance(n, ast.Name)}
        assert used <= known, (used - known, code)


def test_the_tutorial_s_experiment_can_be_planned(tmp_path: Path) -> None:
    (toml,) = re.findall(r'"""\n(name = .*?)"""', "\n".join(code_cells()), re.DOTALL)
    (tmp_path / "first.toml").write_text(toml)
    experiment = isoflop.load_experiment(str(tmp_path / "first.toml"))
    assert isoflop.plan(experiment, tmp_path / "home").totals.to_run == 23


def test_the_tutorial_is_stored_small_with_what_it_showed() -> None:
    assert PAGE.stat().st_size < 100_000
    cells = [c for c in json.loads(PAGE.read_text())["cells"] if c["cell_type"] == "code"]
    kinds = {kind for c in cells for each in c["outputs"] for kind in each.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert all(each["output_type"] != "error" for c in cells for each in c["outputs"])


@pytest.mark.slow
def test_the_tutorial_runs_from_an_experiment_to_a_law() -> None:
    started = time.perf_counter()
    shown = [each for c in executed().cells if c.cell_type == "code" for each in c.outputs]
    assert time.perf_counter() - started < 600  # under three minutes where nothing else runs
    assert any("N* = n_coefficient C^a" in str(each.get("data", {})) for each in shown)
