"""Does an arm of one's own go all the way: certified, planned, swept, ranked, fitted, outlived?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import isoflop
from experiments.cli import run
from spaces.arms.registry import BUILT_IN
from tests.experiments.toy import TOML, run_json
from tests.spaces.conformance import EXAMPLE, ROOT

pytestmark = pytest.mark.filterwarnings("default")

ARMS = (*BUILT_IN, "parallel")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with a sweep of every arm that ships and the example of the docs."""
    folder = tmp_path_factory.mktemp("own")
    toy = TOML.replace("trials = 6", f"trials = 28\narms = {list(ARMS)}".replace("'", '"'))
    (folder / "toy.toml").write_text(toy.replace("[1e9, 2e9]", "[5e8, 1e9, 2e9, 4e9]"))
    assert run(words(folder, "sweep", "--arms-from", str(EXAMPLE))) == 0
    return folder


def words(folder: Path, verb: str, *more: str) -> list[str]:
    return [verb, str(folder / "toy.toml"), "--home", str(folder / "home"), *more]


def test_every_arm_is_planned_with_axes_of_its_own(
    swept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    plan = run_json(
        capfd,
        *words(swept, "plan", "--arms-from", str(EXAMPLE), "--axes.num-experts", "2"),
        "--axes.ffn-multiplier=4",
    )
    assert {each["arm"] for each in plan["trials"]} == set(ARMS)
    experts = {each["num_experts"] for each in plan["trials"] if each["arm"] == "moe"}
    assert 2 in experts
    new = [e for e in plan["trials"] if e["arm"] == "parallel" and e["fate"] == "new"]
    assert all(each["ffn"] == 4 * each["d_model"] for each in new)


def test_every_arm_has_results_with_numbers_of_its_own(swept: Path) -> None:
    board = isoflop.best("toy", swept / "home")
    entries = [entry for budget in board.budgets for entry in budget.entries]
    assert {entry.record.proposal.arm for entry in entries} == set(ARMS)
    of = {entry.record.proposal.arm: entry.numbers for entry in entries}
    assert of["moe"]["active_parameters"] < of["moe"]["parameters"]
    assert 0.9 < of["moe"]["mean_expert_balance"] < 4
    assert of["parallel"]["ffn"] % 8 == 0
    assert 0 < of["dual"]["mean_deep_share"] < 1


def test_laws_are_fitted_to_every_family(swept: Path, capfd: pytest.CaptureFixture[str]) -> None:
    document = run_json(capfd, *words(swept, "fit"))
    assert set(document["arms"]) == {"dual", "loop", "wide", "standard", "moe", "parallel"}


@pytest.mark.parametrize("verb", ["status", "best", "fit", "doctor"])
def test_a_home_is_read_where_its_arm_cannot_be_imported(swept: Path, verb: str) -> None:
    """In a process that never heard of the arm."""
    line = words(swept, verb)
    if verb == "doctor":
        line = [verb, "--home", str(swept / "home")]
    command = [sys.executable, "-W", "ignore", "-m", "experiments", *line]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "parallel" in done.stdout or verb in ("doctor", "status")


def test_an_experiment_that_asks_for_an_arm_nobody_brought_is_a_wrong_request(
    swept: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "experiments", *words(swept, "plan")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "got 'parallel'; an arm of your own is named on the command line" in done.stderr


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"deep": (layer', '"deep": (layer + layer', "price must count the model's parameters"),
        ("from torch import nn\n", "from torch import nn, no_such_name\n", "ImportError"),
        ("class Parallel(Arm)", "class Parallel(Nothing)", "NameError"),
    ],
)
def test_a_wrong_arm_is_one_message_and_exit_2(
    tmp_path: Path, before: str, after: str, message: str
) -> None:
    arm = tmp_path / "wrong_arm.py"
    text = EXAMPLE.read_text()
    assert before in text
    arm.write_text(text.replace(before, after).replace('"parallel"', '"wrong"'))
    more = ["--arms-from", str(arm), "--arms", "standard", "wrong"]
    home = tmp_path / "home"
    (tmp_path / "toy.toml").write_text(TOML)
    command = [sys.executable, "-m", "experiments", "sweep", str(tmp_path / "toy.toml")]
    done = subprocess.run(
        [*command, "--home", str(home), *more], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.faults
def test_an_arm_travels_to_ray_workers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    toy = TOML.replace("trials = 6", 'trials = 2\narms = ["parallel"]')
    (tmp_path / "toy.toml").write_text(toy.replace('pool = "inline"', 'pool = "ray"\ncount = 1'))
    best = run_json(capfd, *words(tmp_path, "sweep", "--arms-from", str(EXAMPLE)))
    entries = [entry for budget in best["budgets"] for entry in budget["leaderboard"]]
    assert [entry["arm"] for entry in entries] == ["parallel"] * 2
