"""What several verbs are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import run
from tests.experiments.toy import TOML


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``toy.toml``, a sweep of two arms that keeps its weights, and its ``home``."""
    folder = tmp_path_factory.mktemp("swept")
    toy = TOML.replace("trials = 6", 'trials = 2\narms = ["dual", "standard"]')
    toy = toy.replace("[1e9, 2e9]", "[1e9]").replace(
        "[training]", "[training]\nsave_weights = true"
    )
    (folder / "toy.toml").write_text(toy)
    assert run(["sweep", str(folder / "toy.toml"), "--home", str(folder / "home")]) == 0
    return folder
