"""The benchmark of the search: an exact optimum, honest contenders, parts that merge."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks.search.search_quality import Options, run
from experiments.benchmarks.search.simulated_search import (
    OURS,
    benchmark_experiment,
    rate_multipliers,
    simulate,
)
from experiments.benchmarks.search.truth import (
    DEFAULT_TRUTH,
    Points,
    ask,
    failure_of,
    load_truth,
    optimum,
)
from search.propose.cells import Cell, Ground, resolve
from spaces.errors import InfeasibleError, RequestError

TRUTH = load_truth(DEFAULT_TRUTH)


def test_the_default_truth_is_the_stated_formula():
    """By hand, for one dual configuration."""
    points = Points(
        num_loops=2,
        wide_multiplier=4,
        deep_multiplier=2,
        num_layers=4,
        d_model=256,
        learning_rate=0.0042,
    )
    answer = ask(TRUTH, "dual", 1e16, points)
    d, layers = 256, 4
    attention = 4 * d * d + d
    deep = layers * (attention + 3 * d * 2 * d + d + 2)
    wide = layers * (attention + 3 * d * 4 * d + d + 1)
    shared = layers * (2 * (d + 1) + d + 2) + d
    loss = 1.587 + 43.7 * (shared + 2**0.46 * deep + 0.6 * wide) ** -0.232
    loss += 312 * float(answer.tokens) ** -0.308 + 0.02 * np.log(8 * 32 / 256) ** 2
    loss += 0.03 * np.log(6 / 6) ** 2 + 0.05 * np.log10(0.0042 / (0.006 * 0.7)) ** 2
    assert float(answer.loss) == pytest.approx(loss, rel=1e-12)
    assert float(answer.noise) == pytest.approx(0.004 * (loss - 1.587))
    assert float(answer.rate_excess) == pytest.approx(1 / 6)
    total = deep + wide + shared + 2 * 4096 * d
    assert float(answer.memory_bytes) == 16 * total + 40 * d * 8 * 16384


def test_failures_are_the_wall_and_the_rate():
    point = {"num_loops": 1, "wide_multiplier": 1, "deep_multiplier": 1, "num_layers": 2}
    fits = ask(TRUTH, "dual", 1e16, Points(d_model=128, learning_rate=1e-3, **point))
    fast = ask(TRUTH, "dual", 1e16, Points(d_model=1024, learning_rate=3e-2, **point))
    deep = point | {"num_layers": 24, "num_loops": 8}
    large = ask(TRUTH, "dual", 1e17, Points(d_model=1024, learning_rate=1e-4, **deep))
    found = [failure_of(TRUTH, answer) for answer in (fits, fast, large)]
    assert found == [None, "diverged", "out_of_memory"]


def test_no_sampled_point_beats_the_exact_optimum():
    best, chance = optimum(TRUTH, "dual", 1e16), np.random.default_rng(0)
    grids = {
        name: chance.choice(TRUTH.space.values(name), size=20_000)
        for name in ("num_loops", "wide_multiplier", "deep_multiplier", "num_layers", "d_model")
    }
    rates = np.exp(chance.uniform(np.log(1e-4), np.log(3e-2), size=20_000))
    answer = ask(TRUTH, "dual", 1e16, Points(learning_rate=rates, **grids))
    fits = (answer.memory_bytes <= TRUTH.memory.wall_bytes) & (answer.rate_excess <= 1)
    assert answer.loss[fits].min() >= best.loss
    again = ask(TRUTH, "dual", 1e16, Points(learning_rate=None, **best.point))
    assert float(again.loss) == pytest.approx(best.loss)


def test_our_rates_reach_over_the_whole_range_and_stay_in_it():
    experiment = benchmark_experiment(TRUTH, "dual", search=OURS["ours-tpe"], seed=0)
    ground = Ground(
        text_fingerprint="x",
        vocab_size=TRUTH.model.vocab_size,
        num_validation_sequences=10**6,
        precision="float32",
    )
    cell = Cell(arm="dual", budget=experiment.budget.budgets()[2])
    for d_model, num_layers, num_loops in ((128, 2, 1), (256, 8, 1), (512, 8, 2)):
        rates = []
        for multiplier in rate_multipliers(TRUTH, "dual"):
            point = {
                "num_loops": num_loops,
                "wide_multiplier": 1.0,
                "deep_multiplier": 1.0,
                "num_layers": num_layers,
                "d_model": d_model,
                "learning_rate_multiplier": multiplier,
                "step_scale_init": experiment.axes.step_scale_init[0],
            }
            try:
                proposal = resolve(experiment, ground, cell, point, purpose="search")
            except InfeasibleError:
                continue
            rates.append(proposal.config.training.learning_rate)
        assert min(rates) < 1.5e-4
        assert max(rates) > 2e-2


def test_ours_beats_stock_and_wastes_less():
    ours = simulate(TRUTH, "dual", "ours-tpe", seed=0, trials=32)[-1]
    stock = simulate(TRUTH, "dual", "stock-tpe", seed=0, trials=32)[-1]
    assert np.median(ours.regrets) < 0.5 * np.median(stock.regrets)
    assert ours.duplicates == 0
    assert ours.infeasible_after_16 <= 0.05 < stock.infeasible_after_16


def test_parts_merge_into_what_one_run_gives(tmp_path):
    def part(first: int, seeds: int, path: Path) -> dict:
        options = Options(
            seeds=seeds, first_seed=first, trials=16, contenders=("stock-tpe",), jobs=1, out=path
        )
        return run(options)

    whole = part(0, 2, tmp_path / "whole.json")
    part(0, 1, tmp_path / "a.json")
    part(1, 1, tmp_path / "b.json")
    figure = tmp_path / "regret.png"
    merged = run(Options(merge=(tmp_path / "a.json", tmp_path / "b.json"), figure=figure))
    assert merged["results"] == whole["results"]
    assert figure.stat().st_size > 10_000
    json.dumps(merged, allow_nan=False)
    other = tmp_path / "truth.toml"
    other.write_text(DEFAULT_TRUTH.read_text().replace("1.587", "1.6"))
    with pytest.raises(RequestError, match="another truth"):
        run(Options(truth=other, merge=(tmp_path / "a.json",)))


def test_a_wrong_truth_is_a_wrong_request(tmp_path):
    broken = tmp_path / "truth.toml"
    broken.write_text(DEFAULT_TRUTH.read_text().replace("irreducible", "irreducibel"))
    with pytest.raises(RequestError, match="irreducible"):
        load_truth(broken)
    with pytest.raises(RequestError, match="cannot read"):
        load_truth(tmp_path / "none.toml")
