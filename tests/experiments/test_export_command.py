"""Does ``isoflop export`` find a run, and say what is wrong where it cannot leave?"""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts

import isoflop
from experiments.cli import run
from runners.mlflow.saved_view import local_tracking_uri
from tests.experiments.toy import run_json

pytestmark = pytest.mark.filterwarnings("default")


def test_a_run_is_found_by_each_of_its_names(
    swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(swept / "home")]
    trials = run_json(capfd, "status", str(swept / "toy.toml"), *home)["trials"]
    for number, name in enumerate((trials[0]["config_hash"][:6], f"toy/{trials[0]['number']}")):
        folder = tmp_path / f"model-{number}"
        document = run_json(capfd, "export", name, "--hf", str(folder), *home)
        assert document["config_hash"] == trials[0]["config_hash"]
        assert sorted(path.name for path in folder.iterdir()) == document["files"]


@pytest.mark.parametrize(
    ("name", "said"), [("no-such-run", "holds no run"), ("toy/99", "holds no run")]
)
def test_what_is_no_run_is_refused(
    swept: Path, tmp_path: Path, name: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["export", name, "--hf", str(tmp_path / "model"), "--home", str(swept / "home")]
    assert run(words) == 2
    assert said in capfd.readouterr().err


def test_a_run_without_weights_is_refused(
    swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(tmp_path / "home")]
    toy = (swept / "toy.toml").read_text().replace("save_weights = true", "save_weights = false")
    (tmp_path / "toy.toml").write_text(toy.replace("trials = 2", "trials = 1"))
    assert run(["sweep", str(tmp_path / "toy.toml"), *home]) == 0
    assert run(["export", "toy/0", "--hf", str(tmp_path / "model"), *home]) == 2
    assert "left no weights; sweep with --training.save-weights" in capfd.readouterr().err


def test_the_champion_is_registered_once_with_its_lineage(
    swept: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home = ["--home", str(swept / "home")]
    words = ["export", "--best", str(swept / "toy.toml"), *home]
    first = run_json(capfd, *words, "--hf", str(tmp_path / "model"))
    board = isoflop.best("toy", swept / "home").budgets[-1]
    assert first["config_hash"] == board.recommended.config_hash
    registered = first["registered"]
    assert (registered["name"], registered["version"], registered["is_new"]) == ("toy", "1", True)
    again = run_json(capfd, *words, "--alias", "again")["registered"]
    assert (again["version"], again["is_new"]) == ("1", False)
    uri = local_tracking_uri(swept / "home")
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version_by_alias("toy", "champion")
    assert version.run_id == board.recommended.mlflow_run_id
    assert version.tags["isoflop.config_hash"] == first["config_hash"]
    assert version.tags["isoflop.convention"] == "full"
    assert set(version.aliases) == {"again", "champion"}
    place = download_artifacts(artifact_uri=version.source, dst_path=str(tmp_path / "taken"))
    assert {path.name for path in Path(place).iterdir()} == set(first["files"])
    card = (tmp_path / "model" / "README.md").read_text()
    assert "## Law" in card
    assert run(["doctor", *home]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name one RUN"),
        (["toy/0", "--best", "toy"], "name one RUN"),
        (["toy/0"], "--hf DIR"),
        (["--best", "toy", "--budget", "3e9"], "its budgets: 1e+09"),
        (["--best", "toy", "--metric", "blimp.acc"], "none yet, see isoflop evaluate"),
    ],
)
def test_a_wrong_request_is_explained(
    swept: Path, words: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", *words, "--home", str(swept / "home")]) == 2
    assert said in capfd.readouterr().err
