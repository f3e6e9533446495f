"""Does ``isoflop evaluate`` score a run, keep that, and show it in MLflow and the leaderboard?"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from mlflow import MlflowClient

import isoflop
from experiments.cli import run
from runners.mlflow.saved_view import local_tracking_uri
from search.record.ledger import Ledger
from search.record.runs import find_run
from tests.experiments.toy import run_json

ROOT = Path(__file__).resolve().parents[2]
NO_RAY = """
import sys
import experiments.cli, experiments.verbs.evaluate
import runners.probes.items, runners.probes.tasks, runners.trial.trained
import analysis.evaluation.scores, runners.mlflow.projection
print([name for name in sys.modules if name.partition(".")[0] == "ray"])
"""

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module", autouse=True)
def tasks(swept: Path) -> Path:
    """Two tasks beside the home."""
    folder = swept / "tasks"
    folder.mkdir()
    pairs = [
        {"sentence_good": f"the states of {n:02}", "sentence_bad": f"XQJ ZZKQXJ ZQ {n:02}"}
        for n in range(30)
    ]
    (folder / "blimp.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    texts = [{"text": "the people of the United States " * n} for n in range(1, 6)]
    (folder / "wiki.jsonl").write_text("\n".join(map(json.dumps, texts)))
    return folder


def test_a_run_is_scored_kept_and_shown(swept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = swept / "home"
    words = ["--tasks", str(swept / "tasks"), "--home", str(home)]
    found = run_json(capfd, "evaluate", "toy/0", "--against", "toy/1", *words)
    by_task = {task["task"]: task for task in found["tasks"]}
    assert set(by_task) == {"blimp", "wiki"}
    scores = {score["rule"]: score for score in by_task["blimp"]["scores"]}
    assert scores["acc"]["value"] > 0.9
    assert scores["acc"]["p_chance"] < 1e-6
    assert {each["rule"] for each in by_task["blimp"]["paired"]} == scores.keys() - {"acc_pmi"}
    items = pl.read_parquet(next((home / "evaluations" / found["config_hash"]).glob("blimp-*")))
    assert items.height == 30
    # the leaderboard and MLflow
    board = isoflop.best("toy", home)
    entries = {entry.record.config_hash: entry for entry in board.budgets[0].entries}
    for config_hash in (found["config_hash"], found["against"]):
        assert "eval.blimp.acc" in entries[config_hash].numbers
    record = entries[found["config_hash"]].record
    client = MlflowClient(tracking_uri=local_tracking_uri(home))
    assert record.mlflow_run_id is not None
    shown = client.get_run(record.mlflow_run_id).data.metrics
    assert shown["eval.wiki.bits_per_byte"] == by_task["wiki"]["scores"][0]["value"]
    assert run(["doctor", "--home", str(home)]) == 0, capfd.readouterr()
    # what is known is not scored again
    again = run_json(capfd, "evaluate", "toy/0", *words)
    assert again["tasks"][0]["evaluated_at"] == found["tasks"][0]["evaluated_at"]
    assert run(["evaluate", "toy/0", "--against", "toy/0", *words]) == 0
    table = capfd.readouterr().out
    assert "acc *" in table
    assert "+0.0000" in table
    frame = isoflop.sweep_frame("toy", home)
    assert frame["eval.blimp.acc"].null_count() == 0


def test_no_ray_is_imported_to_evaluate() -> None:
    """It takes seconds to import, and what scores may have none."""
    said = subprocess.run(
        [sys.executable, "-c", NO_RAY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "[]"


def test_best_by_a_score(swept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(swept / "home")]
    words = ["--tasks", str(swept / "tasks"), *home]
    run_json(capfd, "evaluate", "toy/0", "--against", "toy/1", *words)
    for metric, falls in (("wiki.bits_per_byte", False), ("eval.blimp.acc", True)):
        found = run_json(capfd, "best", str(swept / "toy.toml"), "--metric", metric, *home)
        name = f"eval.{metric.removeprefix('eval.')}"
        values = [entry[name] for entry in found["budgets"][0]["leaderboard"]]
        assert values == sorted(values, reverse=falls)
    assert run(["best", str(swept / "toy.toml"), "--metric", "blimp.acc", *home]) == 0
    assert "eval.blimp.acc" in capfd.readouterr().out
    assert run(["best", str(swept / "toy.toml"), "--metric", "blimp.none", *home]) == 2
    assert "eval.wiki.bits_per_byte" in capfd.readouterr().err


def test_a_limited_score_is_not_kept(swept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(Ledger(swept / "home")) as ledger:
        before = ledger.trials("toy")
    found = run_json(
        capfd, "evaluate", "toy/0", "--tasks", str(swept / "tasks" / "wiki.jsonl"), "--limit", "2",
        "--home", str(swept / "home"),
    )  # fmt: skip
    assert found["tasks"][0]["num_items"] == 2
    with contextlib.closing(Ledger(swept / "home")) as ledger:
        assert ledger.trials("toy") == before


def test_mmlu_is_asked_in_both_forms(
    swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for subject in ("anatomy", "world_religions"):
        for part, count in (("dev", 2), ("test", 6)):
            file = tmp_path / "mmlu" / part / f"{subject}_{part}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = [
                f'"Which, of {n}?",one {n},two,"three, {n}",4,{"ABCD"[n % 4]}' for n in range(count)
            ]
            file.write_text("\n".join(rows) + "\n")
    words = ["evaluate", "toy/0", "--against", "toy/1", "--tasks", str(tmp_path / "mmlu")]
    words += ["--few-shot", "--home", str(swept / "home")]
    found = run_json(capfd, *words)
    assert [(e["task"], e["headline"]) for e in found["tasks"]] == [
        ("mmlu", "acc"),
        ("mmlu_cloze", "acc_norm"),
    ]
    assert [each["config_hash"] for each in found["olmes"]] == [
        found["config_hash"],
        found["against"],
    ]
    assert all(each["num_groups"] == 2 for each in found["olmes"])
    assert all(each["value"] >= max(each["others"].values()) for each in found["olmes"])
    assert run(words) == 0
    assert "mean of 2 groups by mmlu" in capfd.readouterr().out


def test_a_home_of_the_schema_before_opens_and_follows(
    swept: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """It has no evaluations, is read as it is, and has the table once a score is kept."""

    home = tmp_path / "home"
    shutil.copytree(swept / "home", home)
    with contextlib.closing(sqlite3.connect(home / "ledger.sqlite")) as older, older:
        older.execute("DROP TABLE evaluations")
        older.execute("PRAGMA user_version = 3")
    assert isoflop.best("toy", home).budgets[0].entries[0].record.evaluations == ()
    assert not (home / "ledger.schema-3.sqlite").exists()
    words = ["--tasks", str(swept / "tasks" / "wiki.jsonl"), "--home", str(home)]
    run_json(capfd, "evaluate", "toy/0", *words)
    assert (home / "ledger.schema-3.sqlite").exists()
    with contextlib.closing(Ledger(home)) as ledger:
        assert [len(record.evaluations) for record in ledger.trials("toy")] == [1, 0]


def test_scores_are_shown_where_a_driver_holds_the_home(
    swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The ledger has one writer: what cannot be kept is said, and the scores are printed."""
    (tmp_path / "held.jsonl").write_text('{"text": "the people of the United States"}\n')
    words = ["--tasks", str(tmp_path / "held.jsonl"), "--home", str(swept / "home")]
    with contextlib.closing(Ledger(swept / "home")) as driver, driver.held():
        assert run(["evaluate", "toy/0", *words, "--json"]) == 0
    said = capfd.readouterr()
    assert "the scores are not in the ledger" in said.err
    assert json.loads(said.out)["tasks"][0]["scores"][0]["standard_error"] is None
    run_json(capfd, "evaluate", "toy/0", *words)
    with contextlib.closing(Ledger(swept / "home")) as ledger:
        assert "held" in [each.task for each in ledger.trials("toy")[0].evaluations]


def test_what_was_scored_before_a_kill_is_kept(swept: Path, tmp_path: Path) -> None:
    home = swept / "home"
    pairs = (swept / "tasks" / "blimp.jsonl").read_text().splitlines()[:7]
    (tmp_path / "blimp.jsonl").write_text("\n".join(pairs))
    text = {"text": "the people of the United States " * 4000}
    (tmp_path / "wiki.jsonl").write_text("\n".join([json.dumps(text)] * 40))
    words = ["evaluate", "toy/1", "--tasks", str(tmp_path), "--home", str(home)]

    def items_kept() -> dict[str, int]:
        with contextlib.closing(Ledger(home)) as ledger:
            return {each.task: each.num_items for each in find_run(ledger, "toy/1").evaluations}

    until = time.monotonic() + 120
    with subprocess.Popen([sys.executable, "-m", "experiments", *words], cwd=ROOT) as scoring:
        while items_kept().get("blimp") != 7 and time.monotonic() < until:
            assert scoring.poll() is None
            time.sleep(0.1)
        scoring.kill()
    assert items_kept()["blimp"] == 7
    assert items_kept().get("wiki") != 40
