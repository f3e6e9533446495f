"""Does ``isoflop gates`` say where a trained model's tokens go, and what it cannot do?"""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import polars as pl
import pytest

from analysis.report.token_page import pieces_of
from experiments.cli import run
from runners.text.corpus import prepare_corpus
from runners.trial.training import TrainingOptions, run_trial
from search.record.ledger import Ledger
from search.record.trial import Outcome, Proposal
from spaces.budget import Budget
from tests.experiments.toy import run_json
from tests.runners.small import small_trial
from tests.runners.test_gate_probes import TEXT, written


def trained(home: Path, arm: str = "dual", *, keeps_weights: bool = True) -> str:
    """A home whose sweep ``toy`` is one small trial, trained; its hash."""
    corpus = prepare_corpus(None, cache_dir=home / "cache")
    config = small_trial(corpus, arm)
    budget = Budget(train_flops=1e9)
    proposal = Proposal(config=config, arm=arm, budget=budget, axes={}, purpose="search")
    options = TrainingOptions(weights_path=home / "w.safetensors" if keeps_weights else None)
    *_, outcome = run_trial(config, corpus, options)
    assert isinstance(outcome, Outcome)
    ledger = Ledger(home, create=True)
    ledger.record_sweep(
        "toy", experiment_json="{}", text_fingerprint=corpus.fingerprint, code_version="test"
    )
    ledger.add_trial("toy", proposal)
    attempt = ledger.start_attempt("toy", config.config_hash)
    ledger.accept(attempt.id, outcome, spent_flops=1e9)
    ledger.close()
    return config.config_hash


def words_of(folder: Path, *others: str) -> list[str]:
    return ["gates", *others, "--conllu", str(written(folder, TEXT)), "--home", str(folder / "h")]


def test_a_run_is_probed_by_its_hash_or_as_the_best(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = trained(tmp_path / "h")
    found = run_json(capfd, *words_of(tmp_path, "toy", "--best"))
    assert (found["measure"], found["config_hash"]) == ("deep_share", name)
    assert {each["name"] for each in found["classes"]} >= {"function words", "punctuation"}
    assert all(each["interval"] is None for each in found["classes"]), "few sentences tell nothing"
    assert {each["verdict"] for each in found["against_published"]} == {"not resolved"}
    assert set(pl.read_parquet(found["rows"])["model"]) == {name}
    again = run_json(capfd, *words_of(tmp_path, name[:8], "--by", "tag"))
    assert {each["name"] for each in again["classes"]} == {"AUX", "NOUN", "PART", "PUNCT"}
    assert run(words_of(tmp_path, name, "--by", "layer")) == 0
    by_layer = capfd.readouterr().out
    assert "95 % intervals over" in by_layer
    assert "published" not in by_layer
    assert run(words_of(tmp_path, name)) == 0
    assert "punctuation: published deep, here not resolved" in capfd.readouterr().out


def test_what_cannot_be_probed_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name = trained(tmp_path / "h", keeps_weights=False)
    for words, said in (
        (words_of(tmp_path, "toy", "--best"), "--training.save-weights"),
        (words_of(tmp_path, "0000"), "begins those of 0"),
        (["gates", name, "--home", str(tmp_path / "h")], "needs --conllu FILE"),
    ):
        assert run(words) == 2
        assert said in capfd.readouterr().err
    wide = trained(tmp_path / "w", "wide")
    assert run([*words_of(tmp_path, wide)[:-1], str(tmp_path / "w")]) == 2
    assert "the wide arm has neither" in capfd.readouterr().err


def test_several_runs_are_set_beside_each_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = trained(tmp_path / "h")
    alone = run_json(capfd, *words_of(tmp_path, name))
    found = run_json(capfd, *words_of(tmp_path, "toy", "--all"))
    assert found["config_hash"] == alone["config_hash"], "one run is shown as one"
    assert run(words_of(tmp_path, name, "--best", "--all")) == 2
    assert "use one of both" in capfd.readouterr().err


def test_a_page_and_figures_of_a_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, text = trained(tmp_path / "h"), tmp_path / "own.txt"
    text.write_text("A <b>café</b> & </script> 12 + 3 = 15.\nNext line, 日本.")
    page, figures = tmp_path / "out" / "page.html", tmp_path / "figures"
    words = ["gates", name, "--text", str(text), "--home", str(tmp_path / "h")]
    assert run(words) == 2
    assert "add --page FILE" in capfd.readouterr().err
    assert run([*words, "--page", str(page), "--figures", str(figures)]) == 0
    written_page = page.read_text()
    shown = re.findall(r'<span style="--t: [-0-9.]+">(.*?)</span>', written_page, re.DOTALL)
    assert "<" not in "".join(shown)
    assert html.unescape("".join(shown)).strip() == text.read_text()
    data = json.loads(written_page.split('id="data">')[1].split("</script>")[0])
    rows = pl.read_parquet(tmp_path / "h" / "probes" / f"gates-{name}-own.parquet")
    first = rows.filter(layer=0)["deep_share"].to_list()
    assert data["layers"][0] == pytest.approx(first, abs=1e-4)
    assert {"gates-layer.png", "gates-layer.svg"} <= {path.name for path in figures.iterdir()}


def test_characters_belong_to_the_piece_that_ends_them() -> None:
    assert pieces_of(["aé日"], [1, 1, 1, 2, 1]) == ["a", "", "é", "", "日"]
    assert pieces_of(["ab", "", "é"], [2, 1, 1]) == ["ab\n\n", "", "é"]


@pytest.mark.browser
def test_a_browser_tints_every_token_and_asks_for_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from tests.experiments.test_report import visit

    if shutil.which("chromium") is None:
        pytest.skip("Debian's chromium is not installed")
    name, text, page = trained(tmp_path / "h"), tmp_path / "own.txt", tmp_path / "page.html"
    text.write_text("Four & twenty <i>blackbirds</i>.")
    words = ["gates", name, "--text", str(text), "--home", str(tmp_path / "h"), "--page", str(page)]
    assert run(words) == 0
    script = """
      document.querySelector('input[value="0"]').click();
      const first = document.querySelector("#text span");
      first.dispatchEvent(new MouseEvent("mouseover", {bubbles: true}));
    """
    opened = tmp_path / "opened.html"
    opened.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    found = visit(opened, tmp_path / "visit")
    assert (found.console, found.requests) == ([], [])
    data = json.loads(page.read_text().split('id="data">')[1].split("</script>")[0])
    tints = [float(each) for each in re.findall(r'<span style="--t: ([-0-9.]+)', found.document)]
    first = [(each - data["centre"]) / data["reach"] for each in data["layers"][0]]
    assert tints == pytest.approx([max(-1, min(1, each)) for each in first], abs=2e-3)
    about = found.document.split('id="about"')[1]
    assert f"{data['layers'][0][0]:.3f}" in about
