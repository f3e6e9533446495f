"""``isoflop status``: the contract's keys, and FLOPs by purpose that sum to what was spent."""

from __future__ import annotations

import pytest

from experiments.cli import run
from search.trial import Proposal
from tests.experiments.recorded import record_sweep, write_experiment
from tests.experiments.toy import run_json
from tests.search.records import bowl
from tests.sweeps import GROUND


def judge(proposal: Proposal) -> float | str:
    """Wide models run out of memory."""
    return "out_of_memory" if proposal.config.architecture.d_model > 16 else bowl(proposal)


@pytest.fixture
def words(tmp_path):
    file = write_experiment(tmp_path, trials=30)
    record_sweep(file, tmp_path, GROUND, judge=judge)  # type: ignore[arg-type]
    return ("status", str(file), "--home", str(tmp_path))


def test_flops_by_purpose_sum_to_what_was_spent(words, capfd):
    document = run_json(capfd, *words)
    flops = document["flops"]
    assert set(flops["by_purpose"]) == {
        "search",
        "tuning",
        "replicates",
        "pruned",
        "failed",
        "lost",
    }
    assert sum(flops["by_purpose"].values()) == flops["spent"]
    assert flops["by_purpose"]["failed"] > 0
    assert flops["by_purpose"]["tuning"] > 0
    assert flops["counted"] == flops["spent"] - flops["by_purpose"]["failed"]
    contract = {"config_hash", "state", "attempts", "step", "steps", "pid", "node"}
    assert all(contract <= set(trial) for trial in document["trials"])


def test_a_person_reads_what_failed_and_where_flops_went(words, capfd):
    assert run(list(words)) == 0
    said = capfd.readouterr().out
    assert "out_of_memory" in said
    assert "spent on: search" in said
