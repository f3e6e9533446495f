"""``isoflop plan``: what, why, how large, how long, for how much, and where it stops."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import run
from experiments.setup import parse_experiment_options
from experiments.verbs.plan import PlanOptions
from runners.ground import prepare_ground
from search.asked.experiment import load_experiment
from search.propose.proposer import Ground
from spaces.errors import RequestError
from tests.experiments.recorded import record_sweep, write_experiment
from tests.experiments.toy import run_json


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("plan")


@pytest.fixture(scope="module")
def file(folder) -> Path:
    return write_experiment(folder, trials=40)


@pytest.fixture(scope="module")
def ground(file, folder) -> Ground:
    return prepare_ground(load_experiment(str(file)), folder / "home")[1]


def test_a_new_plan_says_what_runs_and_why(file, folder, ground, capfd):
    document = run_json(capfd, "plan", str(file), "--home", str(folder / "home"))
    trials = document["trials"]
    assert len(trials) == document["totals"]["to_run"] == 40
    assert [each["fate"] for each in trials[:8]] == ["new"] * 8
    assert "tunes dual: 0.5 x the rate" in trials[0]["why"]
    assert {each["fate"] for each in trials[8:]} == {"open"}
    assert sum(each["purpose"] == "replicate" for each in trials) == 9
    for each in trials:
        parts = [f"parameters_{p}" for p in ("embedding", "head", "deep", "wide", "shared")]
        assert sum(each[part] for part in parts) == each["parameters"]
        assert each["predicted_memory_bytes"] > 16 * each["parameters"]
        assert each["predicted_seconds"] is None
        assert each["train_flops"] == pytest.approx(each["target_train_flops"], rel=1e-3)
    assert document["totals"]["train_flops_to_run"] == sum(each["train_flops"] for each in trials)
    assert document["totals"]["worker_hours_to_run"] is None


def test_a_plan_goes_on_from_records_with_time_and_cost(file, tmp_path, ground, capfd):
    record_sweep(file, tmp_path, ground, limit=15)
    arguments = ("plan", str(file), "--home", str(tmp_path), "--price", "36000")
    document = run_json(capfd, *arguments)
    trials, totals = document["trials"], document["totals"]
    assert [each["fate"] for each in trials[:15]] == ["done"] * 15
    assert totals["to_run"] == 25
    # the recorded rate is 1e9 training FLOPs a second, at every size
    seconds = [each["train_flops"] / 1e9 for each in trials[15:]]
    assert [each["predicted_seconds"] for each in trials[15:]] == pytest.approx(seconds)
    assert totals["worker_hours_to_run"] == pytest.approx(sum(seconds) / 3600)
    assert totals["cost"] == pytest.approx(10 * sum(seconds))


def test_a_plan_shows_the_whole_tuning(file, folder, ground, tmp_path, capfd):
    stages = tmp_path / "stages.toml"
    text = file.read_text().replace("check_largest = false", "step_scale_inits = [-7, -2]")
    stages.write_text(text)
    document = run_json(capfd, "plan", str(stages), "--home", str(folder / "home"))
    tuning = [each for each in document["trials"] if each["purpose"] == "tuning"]
    fates = [each["fate"] for each in tuning]
    assert fates[:10] == ["new"] * 4 + ["open"] * 2 + ["new"] * 4
    assert set(fates[10:]) == {"open"}
    whys = [each["why"] for each in tuning]
    assert whys[4:6] == [f"tunes dual: 1 x the rate, steps from {start}" for start in (-7, -2)]
    for arm in ("dual", "standard"):
        assert {f"checks {arm}: {rate} x the rate" for rate in ("0.5", "2")} <= set(whys[10:])
    assert len(document["trials"]) == 40


def test_results_of_another_sweep_are_reused(file, tmp_path, ground, capfd):
    record_sweep(file, tmp_path, ground, limit=6)
    other = tmp_path / "other.toml"
    other.write_text(file.read_text().replace('name = "toy"', 'name = "other"'))
    document = run_json(capfd, "plan", str(other), "--home", str(tmp_path))
    assert [each["fate"] for each in document["trials"][:7]] == ["reused"] * 6 + ["new"]
    assert document["totals"]["reused"] == 6


def test_caps_end_a_plan_in_order(file, folder, ground, tmp_path, capfd):
    home = str(folder / "home")
    whole = run_json(capfd, "plan", str(file), "--home", home)["trials"]
    capped = run_json(capfd, "plan", str(file), "--home", home, "--max-flops", "1.05e11")
    hashes = [each["config_hash"] for each in capped["trials"]]
    assert hashes == [each["config_hash"] for each in whole[: len(hashes)]]
    assert capped["totals"]["train_flops_to_run"] <= 1.05e11
    assert "limits.max_flops" in capped["stopped_by"]
    record_sweep(file, tmp_path, ground, limit=15)
    timed = run_json(capfd, "plan", str(file), "--home", str(tmp_path), "--max-hours", "0.001")
    assert "limits.max_hours" in timed["stopped_by"]


@pytest.mark.parametrize("words", [("--price", "-1"), ("--max-flops", "0"), ("--max-hours", "-2")])
def test_wrong_caps_and_prices_are_wrong_requests(file, folder, words, capfd):
    assert run(["plan", str(file), "--home", str(folder / "home"), *words]) == 2
    assert words[0] in capfd.readouterr().err


def test_the_table_for_a_person(file, folder, ground, capfd):
    assert run(["plan", str(file), "--home", str(folder / "home")]) == 0
    said = capfd.readouterr()
    assert "40 of 40 trials to run" in said.out
    assert "time: not known" in said.out
    assert "open:" in said.err


def test_two_hundred_trials_are_planned_in_seconds(file, folder, ground):
    """Without torch, Ray, MLflow and Optuna. Processor seconds, since machines are shared."""
    program = (
        "import sys; from experiments.cli import run; "
        "code = run(sys.argv[1:]); "
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'matplotlib', 'polars'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    home = str(folder / "home")
    words = ["plan", str(file), "--home", home, "--trials", "200", "--json"]
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert sorted(took)[1] < 6.0, "2 s on an idle core"


def test_the_experiment_is_the_one_named_not_an_options_value(file, tmp_path):
    def named(*words):
        return parse_experiment_options(PlanOptions, list(words), verb="plan")

    for words in (("--home", "confirm", file), ("--trials", "12", "--home", "confirm", file)):
        options, experiment = named(*map(str, words))
        assert (str(options.home), experiment.name) == ("confirm", "toy")
    assert named("--trials", "17", str(file))[1].trials == 17
    for words in (("--home", "confirm", "nosuch"), ("--trials", "8", "nosuch"), ("nosuch",)):
        with pytest.raises(RequestError, match="nosuch"):
            named(*words)


def test_a_plan_counts_what_set_aside_trials_spent(file, tmp_path, ground, capfd):
    record_sweep(file, tmp_path, ground, limit=6)
    words = ("plan", str(file), "--home", str(tmp_path))
    spent = run_json(capfd, "status", *words[1:])["flops"]["spent"]
    changed = (*words, "--training.weight-decay", "0.3", "--limits.max-flops", str(spent))
    document = run_json(capfd, *changed)
    assert document["totals"]["to_run"] == 0
    assert "limits.max_flops" in document["stopped_by"]


def test_a_home_that_no_sweep_could_use_is_not_planned_in(file, tmp_path, capfd):
    assert run(["plan", str(file), "--home", str(tmp_path / "a?b")]) == 2
    assert "use another --home" in capfd.readouterr().err
    assert not (tmp_path / "a?b").exists()


def test_plan_names_what_would_mend_its_laws(file, folder, ground, capfd):
    words = ("plan", str(file), "--home", str(folder / "home"))
    assert run([*words]) == 0
    assert "--mend looks for the cheapest change" in capfd.readouterr().out
    change = run_json(capfd, *words, "--mend")["change"]
    assert change["changes"]
    assert change["train_flops"] > 0
    assert run([*words, "--mend"]) == 0
    assert "; ".join(change["changes"]) in capfd.readouterr().out
