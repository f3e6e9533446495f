"""A cap stops a sweep in order, everybody says so, and a higher one goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.cli import run
from tests.experiments.toy import run_json, write_toy

pytestmark = pytest.mark.filterwarnings("default")


def test_a_cap_stops_in_order_and_a_higher_one_goes_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (write_toy(tmp_path), "--home", str(tmp_path / "home"))
    assert run(["sweep", *words, "--max-flops", "3e9"]) == 0
    said = capfd.readouterr().err
    assert "stopped in order: limits.max_flops is 3e+09" in said
    assert f"with a higher cap `isoflop sweep {' '.join(words)} --max-flops 3e9` goes on" in said
    stopped = run_json(capfd, "status", *words)
    assert {trial["state"] for trial in stopped["trials"]} == {"complete"}
    assert stopped["flops"]["spent"] <= 3e9
    assert "pays for no further trial" in stopped["caps"][0]
    assert run(["sweep", *words, "--max-flops", "1e11"]) == 0
    assert "stopped" not in capfd.readouterr().err
    whole = run_json(capfd, "status", *words)
    assert whole["trials"][: len(stopped["trials"])] == stopped["trials"]
    assert len(whole["trials"]) == whole["trials_asked"] == 6
