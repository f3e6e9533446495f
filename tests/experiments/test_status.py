"""``isoflop status``: the contract's keys, and FLOPs by purpose that sum to what was spent."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import replace

import pytest

from analysis.sweep.sweep_status import status
from experiments.cli import run
from experiments.verbs.status import lines_of, watch
from search.record.ledger import Ledger
from search.record.spending import speed, worker_seconds
from search.record.trial import Proposal
from tests.experiments.recorded import record_sweep, write_experiment
from tests.experiments.toy import run_json
from tests.search.records import bowl
from tests.sweeps import GROUND, complete_outcome, open_ledger, toy_experiment, toy_proposals


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


def test_worker_seconds_are_told_apart_and_sum_to_the_attempts(tmp_path):
    experiment = toy_experiment(trials=1)
    ledger, proposal = open_ledger(tmp_path, experiment), toy_proposals(tmp_path, 1)[0]
    ledger.add_trial(experiment.name, proposal)
    attempt = ledger.start_attempt(experiment.name, proposal.config_hash)
    outcome = replace(
        complete_outcome(proposal), wall_seconds=1e-3, setup_seconds=2e-3, measuring_seconds=0.0
    )
    time.sleep(0.01)
    ledger.accept(attempt.id, outcome, spent_flops=1.0)
    records = ledger.trials(experiment.name)
    ledger.close()
    found, ended = worker_seconds(records), records[0].attempts[0].ended_at
    assert (found["training"], found["setup"], found["measuring"]) == (1e-3, 2e-3, 0.0)
    assert ended is not None
    seconds = ended - records[0].attempts[0].started_at
    assert sum(found.values()) == pytest.approx(seconds)
    assert speed(records).trials_per_worker_hour == pytest.approx(3600 / seconds)
    assert speed(records).median_utilization is None
    on_gpu = [replace(records[0], outcome=replace(outcome, model_flops_utilization=0.2))]
    assert speed(on_gpu).median_utilization == 0.2


def test_a_person_reads_what_failed_and_where_flops_went(words, capfd):
    assert run(list(words)) == 0
    said = capfd.readouterr().out
    assert "out_of_memory" in said
    assert "spent on: search" in said
    assert "trials a worker-hour" in said


def test_a_cap_says_what_it_no_longer_pays_for(tmp_path, capfd):
    file = write_experiment(tmp_path, trials=30)
    file.write_text(file.read_text() + "\n[limits]\nmax_flops = 1.05e11\nmax_hours = 100\n")
    record_sweep(file, tmp_path, GROUND)
    words = ("status", str(file), "--home", str(tmp_path))
    document = run_json(capfd, *words)
    assert document["trials_asked"] == 30 > len(document["trials"])
    flops, hours = document["caps"]
    assert "limits.max_flops = 1.05e+11" in flops
    assert "pays for no further trial" in flops
    assert "limits.max_hours = 100" in hours
    assert run(list(words)) == 0
    said = capfd.readouterr().out
    assert f"{len(document['trials'])} of 30 trials" in said
    assert "the same command with a higher cap goes on" in said


def test_watching_ends_with_the_driver(words, capfd):
    assert run([*words, "--watch"]) == 0  # nobody drives it
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert "of 30 trials" in out
    assert run([*words, "--watch", "--json"]) == 2


def test_a_driver_is_watched_until_it_ends(tmp_path):
    file = write_experiment(tmp_path, trials=12)
    record_sweep(file, tmp_path, GROUND)
    arguments = {"name": "toy", "home": tmp_path, "seconds": 0.05}
    watching = threading.Thread(target=watch, kwargs=arguments)
    with contextlib.closing(Ledger(tmp_path)) as ledger, ledger.held():
        watching.start()
        time.sleep(0.5)
        assert watching.is_alive()
    watching.join(timeout=10)
    assert not watching.is_alive()


def test_a_thousand_open_trials_fit_a_screen(tmp_path):
    asked = toy_experiment(trials=1000)
    file = write_experiment(tmp_path, trials=12)
    record_sweep(file, tmp_path, GROUND)
    found = status("toy", tmp_path)
    many = [replace(found.trials[0], number=n, state="queued", outcome=None) for n in range(1000)]
    lines = lines_of(replace(found, trials=tuple(many), trials_asked=asked.trials), most=24)
    assert len(lines) <= 24
    assert any("and 9" in line and "more" in line for line in lines)


def test_every_verb_takes_the_fields_of_an_experiment(words, capfd):
    for verb in ("status", "best", "report"):
        given = [verb, *words[1:], "--text.source", "elsewhere", "--seeds.search", "0"]
        assert run(given) == 0, verb
    capfd.readouterr()
    with pytest.raises(SystemExit, match="2"):
        run([*words, "--text.nosuch", "1"])
    assert "nosuch" in capfd.readouterr().err
    assert run([*words, "--name", "another"]) == 2
    assert "holds no sweep 'another'" in capfd.readouterr().err
