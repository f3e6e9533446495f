"""Train the prediction: what is forecast stands in the ledger before it trains, and ever after."""

from __future__ import annotations

import random
import sqlite3
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

import isoflop
from analysis.sweep.confirmation import confirmations
from experiments.cli import run
from experiments.confirming import Confirmed, confirm
from runners.driver import SweepSummary
from runners.ground import prepare_ground
from runners.mlflow.projection import MlflowProjection
from runners.mlflow.saved_view import local_tracking_uri
from search.asked.experiment import Experiment, load_experiment
from search.propose.cells import Cell, Ground, resolve
from search.propose.contract import first_of
from search.propose.listed import ListedProposer
from search.record.ledger import Ledger
from search.record.trial import Proposal
from spaces.errors import InfeasibleError, RequestError
from spaces.parameters import count_parameters
from tests.experiments.recorded import run_on_paper
from tests.experiments.toy import run_json

pytestmark = pytest.mark.filterwarnings("default")

TOML = """
name = "toy"
arms = ["dual", "standard"]
trials = 200

[budget]
train_flops = [4e9, 8e9, 1.6e10, 3.2e10]

[axes]
num_loops = [2]
wide_multiplier = [2]
num_layers = [1, 2]
d_model = [8, 16, 24, 32, 40, 48, 64, 80, 96]

[architecture]
head_dim = 8
context_length = 32

[training]
batch_tokens = 1024
batch_reference_flops = 4e9
eval_sequences = 16
eval_points = 2

[search]
replicates_per_budget = 0

[workers]
pool = "inline"
device = "cpu"
"""
FLOPS = 6.4e10
NOISE = 0.002


def planted_loss(proposal: Proposal, *, noise: float = NOISE) -> float:
    """Chinchilla's law with its optimum at 5 tokens a parameter, and the luck of a seed."""
    luck = random.Random(zlib.crc32(proposal.config_hash.encode())).gauss(0, noise)
    size = count_parameters(proposal.config.architecture).total
    return 2.0 + 20 * size**-0.35 + 20 * 5**0.35 * proposal.config.tokens**-0.35 + luck


def planted_sweep(folder: Path, *, changes: tuple[tuple[str, str], ...] = ()) -> tuple[str, Path]:
    """The experiment's file, and a home in which every shape has its planted loss."""
    file, home, text = folder / "toy.toml", folder / "home", TOML
    for before, after in changes:
        text = text.replace(before, after)
    file.write_text(text)
    experiment = load_experiment(str(file))
    ledger = Ledger(home, create=True)
    _, ground = prepare_ground(experiment, home)
    ledger.record_sweep(
        "toy",
        experiment_json=experiment.model_dump_json(),
        text_fingerprint=ground.text_fingerprint,
        code_version="test",
    )
    for proposal in grid(experiment, ground):
        run_on_paper(ledger, "toy", proposal, planted_loss)
    ledger.close()
    return str(file), home


def grid(experiment: Experiment, ground: Ground) -> list[Proposal]:
    """Every shape of the axes that fits, at every budget; the second width on another seed, too."""
    found = []
    for arm in experiment.arms:
        for budget in experiment.budget.budgets():
            for depth in experiment.axes.num_layers:
                for place, width in enumerate(experiment.axes.d_model):
                    axes = {"num_layers": depth, "d_model": width, "num_loops": 2}
                    axes |= {"wide_multiplier": 2, "learning_rate_multiplier": 1.0}
                    axes |= {"deep_multiplier": 8 / 3, "step_scales": "own", "step_scale_init": 1.0}
                    cell = Cell(arm=arm, budget=budget)
                    try:
                        proposal = resolve(experiment, ground, cell, axes, purpose="search")
                    except InfeasibleError:
                        continue
                    found.append(proposal)
                    if place == 1:
                        config = replace(proposal.config, init_seed=1, data_seed=1)
                        found.append(replace(proposal, config=config, purpose="replicate"))
    return found


def on_paper(home: Path) -> Any:
    """Training that takes no time: planted losses."""

    def train(experiment: Experiment, make_proposer: Any) -> SweepSummary:
        proposer: ListedProposer = make_proposer(experiment, None)
        ledger, summary = Ledger(home, create=True), SweepSummary()
        ledger.record_sweep(
            experiment.name,
            experiment_json=experiment.model_dump_json(),
            text_fingerprint="0" * 64,
            code_version="test",
        )
        while (proposal := first_of(proposer.next(ledger.trials(experiment.name)))) is not None:
            run_on_paper(ledger, experiment.name, proposal, planted_loss)
            summary.num_run += 1
        ledger.close()
        return summary

    return train


def confirmed_on_paper(file: str, home: Path, *, flops: float = FLOPS, seeds: int = 3) -> Confirmed:
    experiment = load_experiment(file)
    return confirm(experiment, home, flops, num_seeds=seeds, train=on_paper(home))


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Confirmed]:
    file, home = planted_sweep(tmp_path_factory.mktemp("planted"))
    return file, home, confirmed_on_paper(file, home)


def test_a_planted_law_is_confirmed(swept: tuple[str, Path, Confirmed]) -> None:
    _, _, confirmed = swept
    assert confirmed.refused == ()
    assert [each.forecast.family for each in confirmed.confirmations] == ["dual", "standard"]
    assert confirmed.summary is not None
    assert confirmed.summary.num_run == 6
    for each in confirmed.confirmations:
        forecast = each.forecast
        assert forecast.largest_train_flops == pytest.approx(3.2e10, rel=1e-2)
        assert forecast.proposal.train_flops == pytest.approx(FLOPS, rel=1e-3)
        ratio = forecast.proposal.config.tokens / forecast.parameters
        assert 2 < ratio < 12  # planted: 5, and widths are a grid
        assert len(each.losses_nats) == 3
        truth = planted_loss(forecast.proposal, noise=0.0)
        low, high = forecast.run_interval_nats
        assert low < truth < high
        assert high - low < 0.05
        assert each.is_inside
        assert abs(each.miss_nats or 1) < 0.02
        assert each.seed_spread_nats == pytest.approx(NOISE, abs=2 * NOISE)
        assert forecast.seed_noise_nats == pytest.approx(NOISE, rel=0.7)


def test_runs_of_a_forecast_share_data_orders_and_stay_out_of_the_laws(
    swept: tuple[str, Path, Confirmed],
) -> None:
    _, home, _ = swept
    ledger = Ledger(home)
    records = ledger.trials("toy-confirm-6_4e10")
    budgets = {record.proposal.budget.train_flops for record in ledger.trials("toy")}
    ledger.close()
    seeds = {
        arm: [r.proposal.config.data_seed for r in records if r.proposal.arm == arm]
        for arm in ("dual", "standard")
    }
    assert seeds == {"dual": [0, 1, 2], "standard": [0, 1, 2]}
    assert FLOPS not in budgets


def test_a_forecast_stands_however_many_rows_come_later(tmp_path: Path) -> None:
    file, home = planted_sweep(tmp_path, changes=(('["dual", "standard"]', '["standard"]'),))
    first = confirmed_on_paper(file, home, seeds=1)
    ledger = Ledger(home)
    before = ledger.forecasts("toy")
    experiment = load_experiment(file)
    _, ground = prepare_ground(experiment, home)
    for proposal in (each for each in grid(experiment, ground) if each.purpose == "search"):
        config = replace(proposal.config, init_seed=7, data_seed=7)
        again = replace(proposal, config=config, purpose="replicate")
        run_on_paper(ledger, "toy", again, lambda each: planted_loss(each) + 0.3)
    ledger.close()
    second = confirmed_on_paper(file, home, seeds=3)
    ledger = Ledger(home)
    assert ledger.forecasts("toy") == before == [second.confirmations[0].forecast]
    (written,) = before
    moved = replace(written, loss_nats=1.0, written_at=0.0)
    assert not ledger.keep_forecast("toy", moved)
    assert ledger.forecasts("toy") == before
    assert confirmations(ledger, "toy")[0].losses_nats[:1] == first.confirmations[0].losses_nats
    ledger.close()
    assert second.summary is not None
    assert second.summary.num_run == 2
    with sqlite3.connect(home / "ledger.sqlite") as file_itself:
        for change in ("UPDATE forecasts SET forecast_json = '{}'", "DELETE FROM forecasts"):
            with pytest.raises(sqlite3.IntegrityError, match="written once and never changed"):
                file_itself.execute(change)
    file_itself.close()


def test_a_home_of_the_schema_before_opens_and_follows(tmp_path: Path) -> None:
    """It has no forecasts, is read as it is, and has the table once a driver writes to it."""
    file, home = planted_sweep(tmp_path, changes=(('["dual", "standard"]', '["standard"]'),))
    with sqlite3.connect(home / "ledger.sqlite") as older:
        older.execute("DROP TABLE forecasts")
        older.execute("PRAGMA user_version = 2")
    older.close()
    assert isoflop.best("toy", home).confirmations == ()
    assert not (home / "ledger.schema-2.sqlite").exists()
    assert len(confirmed_on_paper(file, home, seeds=1).confirmations) == 1
    assert (home / "ledger.schema-2.sqlite").exists()
    followed = sqlite3.connect(home / "ledger.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="never changed"):
        followed.execute("DELETE FROM forecasts")
    followed.close()


def test_what_the_judge_refuses_is_not_trained(tmp_path: Path) -> None:
    """Two budgets support no law; widths that end before the optimum hold no best one."""
    short = (('["dual", "standard"]', '["standard"]'), ("4e9, 8e9, 1.6e10, 3.2e10", "4e9, 8e9"))
    few = (*short, ("[8, 16, 24, 32, 40, 48, 64, 80, 96]", "[16, 24]"), ("[1, 2]", "[1]"))
    (tmp_path / "few").mkdir()
    confirmed = confirmed_on_paper(*planted_sweep(tmp_path / "few", changes=few))
    assert confirmed.summary is None
    assert confirmed.confirmations == ()
    assert [each.family for each in confirmed.refused] == ["standard"]
    assert confirmed.refused[0].why
    (tmp_path / "narrow").mkdir()
    file, home = planted_sweep(tmp_path / "narrow", changes=short[:1])
    text = Path(file).read_text()
    Path(file).write_text(text.replace("[8, 16, 24, 32, 40, 48, 64, 80, 96]", "[8, 16, 24]"))
    confirmed = confirmed_on_paper(file, home, flops=2e11)
    assert confirmed.summary is None
    assert "must lie among those that may be trained" in confirmed.refused[0].why
    ledger = Ledger(home)
    assert ledger.forecasts("toy") == []  # so that wider axes may be tried
    ledger.close()


def test_requests_that_make_no_forecast_are_refused(swept: tuple[str, Path, Confirmed]) -> None:
    file, home, _ = swept
    with pytest.raises(RequestError, match=r"more FLOPs than the largest budget .* 3.2e\+10"):
        confirmed_on_paper(file, home, flops=3.2e10)
    with pytest.raises(RequestError, match="--confirm-seeds takes a whole number from 1, got 0"):
        confirmed_on_paper(file, home, seeds=0)
    experiment = load_experiment(file).model_copy(update={"name": "other"})
    with pytest.raises(RequestError, match="holds no sweep 'other'"):
        confirm(experiment, home, FLOPS, num_seeds=1, train=on_paper(home))


def test_what_is_known_cannot_be_forecast(tmp_path: Path) -> None:
    file, home = planted_sweep(tmp_path, changes=(('["dual", "standard"]', '["standard"]'),))
    before = confirmed_on_paper(file, home, seeds=1)
    assert len(before.confirmations) == 1
    other = Path(file).with_name("other.toml")
    other.write_text(Path(file).read_text().replace('name = "toy"', 'name = "other"'))
    ledger, experiment = Ledger(home, create=True), load_experiment(str(other))
    _, ground = prepare_ground(experiment, home)
    ledger.record_sweep(
        "other",
        experiment_json=experiment.model_dump_json(),
        text_fingerprint=ground.text_fingerprint,
        code_version="test",
    )
    for proposal in grid(experiment, ground):
        ledger.add_trial("other", proposal)  # reused from the first sweep
    ledger.close()
    again = confirmed_on_paper(str(other), home, seeds=1)
    assert again.confirmations == ()
    assert "what is known cannot be forecast" in again.refused[0].why


def test_a_cap_that_does_not_pay_leaves_the_forecast_written(tmp_path: Path) -> None:
    file, home = planted_sweep(tmp_path, changes=(('["dual", "standard"]', '["standard"]'),))
    experiment = load_experiment(file)
    limits = experiment.limits.model_copy(update={"max_flops": 1e10})
    capped = experiment.model_copy(update={"limits": limits})
    with pytest.raises(RequestError, match="higher --max-flops or fewer --confirm-seeds"):
        confirm(capped, home, FLOPS, num_seeds=1, train=on_paper(home))
    ledger = Ledger(home)
    assert len(ledger.forecasts("toy")) == 1
    ledger.close()


def test_the_command_forecasts_trains_and_reports(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real runs of a tiny model; planted losses are none of real text, so the miss is outside."""
    few = (
        ('["dual", "standard"]', '["standard"]'),
        ("[1, 2]", "[1]"),
        (", 64, 80, 96]", ", 64]"),
        ("4e9, 8e9, 1.6e10, 3.2e10", "2e9, 4e9, 8e9, 1.6e10"),
    )
    file, home = planted_sweep(tmp_path, changes=few)
    ledger = Ledger(home, create=True)
    uri = local_tracking_uri(home)
    MlflowProjection(ledger, "toy", tracking_uri=uri).finish(interrupted=False)
    run_id = ledger.sweep("toy").mlflow_run_id
    ledger.close()
    assert run_id is not None
    words = [file, "--home", str(home)]
    options = ["--confirm", "2e10", "--confirm-seeds", "2"]
    document = run_json(capfd, "sweep", *words, *options)
    (found,) = document["confirmations"]
    assert document["refused"] == []
    assert len(found["measured_losses_nats"]) == 2
    assert found["miss_nats"] == found["mean_loss_nats"] - found["predicted_loss_nats"]
    assert found["is_inside"] is False
    best = run_json(capfd, "best", *words)
    assert best["confirmations"] == document["confirmations"]
    assert run(["best", *words]) == 0
    assert "OUTSIDE the interval; seed noise of the sweep" in capfd.readouterr().out
    fitted = run_json(capfd, "fit", *words)
    assert fitted["confirmations"] == document["confirmations"]
    client = MlflowClient(tracking_uri=uri)
    metrics = client.get_run(run_id).data.metrics
    assert metrics["confirm.2e10.standard.miss_nats"] == found["miss_nats"]
    artifacts = [each.path for each in client.list_artifacts(run_id, "confirm")]
    assert artifacts == ["confirm/2e10-standard.json"]
    status = run_json(capfd, "status", "toy-confirm-2e10", "--home", str(home))
    assert [trial["state"] for trial in status["trials"]] == ["complete"] * 2
    assert run(["doctor", "--home", str(home)]) == 0
