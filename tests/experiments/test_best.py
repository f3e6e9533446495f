"""``isoflop best``: ties, tuning and gains beside the leaderboard's contract."""

from __future__ import annotations

import io
import random
import zlib
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from rich.console import Console

from analysis.sweep.leaderboard import best, leaderboard
from experiments.cli import run
from experiments.digits import decimals_for
from experiments.verbs.best import _shown, _table, print_best
from experiments.where import Condition, mlflow_filter
from search.record.ledger import Ledger, TrialRecord
from search.record.trial import Proposal
from search.record.trial_records import loss_of
from tests.experiments.recorded import record_sweep, write_experiment
from tests.experiments.toy import run_json
from tests.search.records import bowl
from tests.sweeps import GROUND

CONTRACT = {
    "arm",
    "architecture",
    "parameters",
    "tokens",
    "epochs",
    "forward_flops_per_token",
    "train_flops",
    "peak_learning_rate",
    "seed",
    "loss_nats",
    "bits_per_byte",
    "config_hash",
    "run_id",
}


def judge(proposal: Proposal) -> float:
    """A bowl with the luck of each seed; the dual arm is a little better."""
    luck = random.Random(zlib.crc32(proposal.config_hash.encode())).gauss(0, 0.01)
    return bowl(proposal) + luck - (0.02 if proposal.arm == "dual" else 0)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    home = tmp_path_factory.mktemp("best")
    file = write_experiment(home, trials=60)
    record_sweep(file, home, GROUND, judge=judge)
    return ("best", str(file), "--home", str(home))


def test_the_leaderboard_keeps_its_contract_and_marks_ties(words, capfd):
    document = run_json(capfd, *words, "--top", "0")
    assert document["link"] is None
    assert [budget["target_train_flops"] for budget in document["budgets"]] == [1e10, 2e10, 4e10]
    for budget in document["budgets"]:
        board = budget["leaderboard"]
        losses = [entry["loss_nats"] for entry in board]
        assert losses == sorted(losses)
        assert all(set(entry) >= CONTRACT for entry in board)
        assert budget["seed_noise_degrees_of_freedom"] == 3
        assert 0.001 < budget["seed_noise_nats"] < 0.05
        tied = [entry["tied_with_best"] for entry in board]
        assert True in tied
        assert False in tied
        assert budget["recommended"] in {entry["config_hash"] for entry in board}


def test_every_entry_says_how_its_arm_was_tuned(words, capfd):
    document = run_json(capfd, *words, "--top", "0")
    found = {
        (budget["target_train_flops"], entry["tuning"])
        for budget in document["budgets"]
        for entry in budget["leaderboard"]
    }
    assert found == {(1e10, "tuned"), (2e10, "transferred"), (4e10, "transferred")}
    assert {tuning["arm"] for tuning in document["tuning"]} == {"dual", "standard"}


def test_gains_have_intervals_or_a_reason(words, capfd):
    gains = run_json(capfd, *words)["compute_equivalent_gains"]
    assert [(gain["arm"], gain["train_flops"]) for gain in gains] == [
        ("dual", 1e10),
        ("dual", 2e10),
        ("dual", 4e10),
    ]
    for gain in gains:
        if gain["gain"] is None:
            assert "range" in gain["refused"] or "has no frontier there" in gain["refused"]
        else:
            assert gain["interval"][0] <= gain["gain"] <= gain["interval"][1]


def test_a_person_reads_ties_tuning_and_gains(words, capfd):
    assert run(list(words)) == 0
    said = capfd.readouterr()
    assert "=1" in said.out
    assert said.out.count("*") == 2 * 3  # each title's words, and the row that is recommended
    assert "seed noise" in said.out
    assert "first rates tried at 1e+10 FLOPs" in said.out
    assert "nats that it may still cost" in " ".join(said.out.split())
    assert "nats behind the best arm" in said.out
    assert "compute-equivalent gain" in said.out + said.err


def test_what_trials_warned_of_stands_under_their_table(words, capfd):
    """Once per kind, with every row shown that has it."""

    def warned(record: TrialRecord) -> TrialRecord:
        assert record.outcome is not None
        text = f"the text was seen {1 + record.number / 10:.2f} times"
        return replace(record, outcome=replace(record.outcome, warnings=(text,)))

    ledger = Ledger(Path(words[-1]))
    sweep, records = ledger.sweep("toy"), [warned(each) for each in ledger.trials("toy")]
    ledger.close()
    capfd.readouterr()
    print_best(leaderboard(sweep, records), top=2, server="http://127.0.0.1:5000")
    lines = [line for line in capfd.readouterr().out.splitlines() if line.startswith("!")]
    assert len(lines) == 3
    assert all(line.startswith("! #1, #2") for line in lines)
    assert all("the text was seen" in line for line in lines)


def test_where_shows_only_what_was_asked_for(words, capfd) -> None:
    whole = run_json(capfd, *words, "--top", "0")["budgets"]
    asked = "arm = dual and parameters < 5e4"
    found = run_json(capfd, *words, "--top", "0", "--where", asked)["budgets"]
    rows = [entry for budget in found for entry in budget["leaderboard"]]
    expected = [
        entry["config_hash"]
        for budget in whole
        for entry in budget["leaderboard"]
        if entry["arm"] == "dual" and entry["parameters"] < 5e4
    ]
    assert [entry["config_hash"] for entry in rows] == expected
    assert run([*words, "--where", asked]) == 0
    assert f"{len(expected)} of " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("arm dual", "is no comparison"),
        ("arm < dual", "takes = or !="),
        ("paramters < 5", "did you mean parameters"),
        ("parameters < many", "is a number"),
    ],
)
def test_where_says_what_is_wrong(asked, said, words, capfd) -> None:
    assert run([*words, "--where", asked]) == 2
    assert said in capfd.readouterr().err


def test_where_is_a_search_that_mlflow_takes(words, capfd) -> None:
    asked = (Condition("arm", "=", "dual"), Condition("parameters", "<", 5e6))
    assert mlflow_filter(asked).endswith(
        "and tags.`isoflop.arm` = 'dual' and metrics.`parameters` < 5000000"
    )


def test_the_table_is_right_at_80_columns(words, capfd):
    found = best("toy", Path(words[-1]))
    for board in found.budgets:
        table = _table(board, _shown(board, 5))
        table.title = None
        for width in (80, 160):
            console = Console(file=io.StringIO(), width=width)
            console.print(table)
            lines = console.file.getvalue().splitlines()
            assert max(len(line.rstrip()) for line in lines) <= width
            losses = [f"{fmean(map(loss_of, runs)):.9f}" for runs in _shown(board, 5).values()]
            decimals = decimals_for(board.seed_noise_nats)
            shown = "\n".join(lines)
            assert "\u2026" not in shown
            assert all(f"{float(loss):.{decimals}f}" in shown for loss in losses)


@pytest.mark.parametrize(
    ("noise", "decimals"),
    [(None, 4), (0.0, 4), (1e-6, 4), (0.0012, 4), (0.012, 3), (0.12, 2), (1.2, 1), (120.0, 1)],
)
def test_digits_end_where_noise_begins(noise, decimals):
    assert decimals_for(noise) == decimals


def test_every_missing_gain_is_told_in_full(words, capfd):
    gains = best("toy", Path(words[-1])).gains
    refused = [gain for gain in gains if gain.refused]
    assert run([*words, "--full"]) == 0
    said = capfd.readouterr().err
    assert said.count("gain of ") == len(refused)
    assert run(list(words)) == 0
    assert capfd.readouterr().err.count("compute-equivalent gains: ") == bool(refused)


def test_fit_takes_the_fields_of_an_experiment(words, capfd):
    assert run(["fit", *words[1:], "--text.source", "elsewhere", "--name", "another"]) == 2
    assert "holds no sweep 'another'" in capfd.readouterr().err
    assert run(["fit", "--table", "points.csv", "--text.source", "elsewhere"]) == 2
    assert "name an EXPERIMENT" in capfd.readouterr().err
