"""The surrogate: gradients, recovery, belief, failures; and Optuna's door."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad

from search.belief.arm_models import denoised_losses, recommend
from search.belief.gaussian_process import (
    REFIT_GROWTH,
    Surrogate,
    Warp,
    _negative_log_posterior,
    expected_improvement,
    failure_probability,
    milestone,
)
from search.propose.samplers import CellStudy, Observation
from tests.search.records import bowl, play
from tests.sweeps import toy_experiment

CHANCE = np.random.default_rng(0)
X = CHANCE.normal(size=(60, 4))


def surface(x):
    return 3 + 0.3 * x[:, 0] ** 2 + 0.1 * x[:, 1] * x[:, 0] + 0.2 * np.abs(x[:, 2])


def test_the_posteriors_gradient_is_its_gradient():
    y = surface(X) - surface(X).mean()
    prior = np.array([0.0, -1.0, 0.7, 0.7, 0.7, 0.7, -4.0])
    theta = prior + np.array([0.3, 0.2, -0.4, 0.5, 0.1, -0.2, 0.6])
    error = check_grad(
        lambda t: _negative_log_posterior(t, X, y, prior)[0],
        lambda t: _negative_log_posterior(t, X, y, prior)[1],
        theta,
    )
    assert error < 1e-3


def test_the_noise_is_taken_out():
    truth = surface(X)
    model = Surrogate(X, truth + np.random.default_rng(1).normal(size=60) * 0.05)
    mean, deviation = model.predict(X)
    error = np.sqrt(np.mean((model.warp.inverse(mean) - truth)[truth < np.median(truth)] ** 2))
    assert error < 0.04
    assert np.all(deviation > 0)


def test_the_warp_is_inverted():
    warp = Warp(3.0, 0.5)
    losses = np.array([2.9, 3.0, 3.4, 3.5, 4.0, 9.0])
    assert warp.inverse(warp(losses)) == pytest.approx(losses)


def test_believing_a_running_trial_makes_its_place_certain_and_moves_nothing_else():
    model = Surrogate(X, surface(X))
    pending = np.array([[1.5, 1.5, 1.5, 1.5]])
    believer = model.believing(pending)
    before, after = model.predict(pending), believer.predict(pending)
    assert after[0] == pytest.approx(before[0], abs=1e-3)
    assert after[1] < before[1]


def test_expected_improvement_prefers_low_and_uncertain():
    ei = expected_improvement(np.array([0.0, 0.0, 1.0]), np.array([0.1, 0.5, 0.1]), 0.0)
    assert ei[1] > ei[0] > ei[2]


def test_a_wall_in_logs_is_learnt():
    failed = (X[:, 0] + X[:, 1] > 0.8).tolist()
    beyond, within = np.array([[2.0, 2.0, 0, 0]]), np.array([[-1.0, -1.0, 0, 0]])
    assert failure_probability(X, failed, beyond)[0] > 0.9
    assert failure_probability(X, failed, within)[0] < 0.02
    assert failure_probability(X, [False] * 60, beyond)[0] == 0


def test_milestones_grow_by_a_factor():
    counts = [milestone(n) for n in range(8, 200)]
    assert counts == sorted(counts)
    assert all(m <= n < m * REFIT_GROWTH + 1 for m, n in zip(counts, range(8, 200), strict=True))


AXES = {"a": tuple(range(12)), "b": (1.0, 2.0, 4.0), "gate": ("x", "y"), "c": (7,)}


def observations(count: int, *, wall: int = 99) -> list[Observation]:
    chance = np.random.default_rng(3)
    found = []
    for _ in range(count):
        a = int(chance.integers(12))
        axes = {"a": a, "b": float(chance.choice([1.0, 2.0, 4.0])), "gate": "x", "c": 7}
        failed = a >= wall
        found.append(
            Observation(
                axes=axes, loss=None if failed else abs(a - 6.0), failure=1.0 if failed else -1.0
            )
        )
    return found


def asked(sampler, seen, count, *, seed=0):
    study = CellStudy(AXES, seen, sampler=sampler, startup_trials=4, seed=seed)
    return [study.ask() for _ in range(count)]


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi-random", "grid"])
def test_points_lie_on_the_lists_and_hold_every_axis(sampler):
    for point in asked(sampler, observations(20), 10):
        assert point is not None
        assert list(point) == list(AXES)
        assert all(point[name] in values for name, values in AXES.items())


def test_quasi_random_points_go_on_where_the_records_end():
    whole = asked("quasi-random", [], 8)
    assert asked("quasi-random", observations(5), 3) == whole[5:]
    assert asked("quasi-random", [], 8, seed=1) != whole


def test_tpe_keeps_away_from_what_failed():
    seen = observations(60, wall=8)
    first = [asked("tpe", seen, 1, seed=seed)[0] for seed in range(40)]
    assert np.mean([point["a"] >= 8 for point in first if point]) < 0.1  # a third by chance


def test_tpe_learns_what_is_known_to_be_too_much_from_refusals():
    seen = [replace(each, excess=float(each.axes["a"]) - 3.5) for each in observations(12)]

    study = CellStudy(AXES, seen, sampler="tpe", startup_trials=4, seed=0)
    within = []
    for _ in range(80):
        point = study.ask()
        assert point is not None
        within.append(point["a"] <= 3)
        if not within[-1]:
            study.refuse(float(point["a"]) - 3.5)
    assert np.mean(within) > 0.45  # a third by chance


def test_a_pruned_trial_is_told_as_pruned():
    seen = [*observations(8), Observation(axes=AXES_POINT, loss=None, pruned_losses={3: 4.0})]
    study = CellStudy(AXES, seen, sampler="tpe", startup_trials=4, seed=0)
    last = study._study.trials[-1]
    assert (last.state.name, last.value, last.intermediate_values) == ("PRUNED", None, {3: 4.0})


def test_all_fixed_axes_are_one_point():
    study = CellStudy({"c": (7,)}, [], sampler="tpe", startup_trials=4, seed=0)
    assert [study.ask(), study.ask()] == [{"c": 7}, None]


AXES_POINT = {"a": 5, "b": 1.0, "gate": "x", "c": 7}


def test_a_large_sweep_is_modelled_by_the_best_of_each_budget(monkeypatch):
    experiment = toy_experiment(trials=40, arms=["dual"], search={"sampler": "random"})
    records = play(experiment, bowl)
    monkeypatch.setattr("search.belief.arm_models.MAX_RESULTS", 16)
    losses = denoised_losses(records)
    assert set(losses) == {record.config_hash for record in records}
    for budget, best in recommend(records).items():
        there = [r for r in records if r.proposal.budget.train_flops == budget]
        assert bowl(best.proposal) < np.quantile([bowl(r.proposal) for r in there], 0.2)
