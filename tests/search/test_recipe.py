"""Does a parametrisation reach a trial's recipe, its identity and its row in the ledger?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from search.asked.recipe import recipe
from search.asked.settings import TrainingSettings
from search.record.trial import TrainingRecipe
from spaces.architecture import Architecture
from spaces.parametrization import STANDARD
from tests.search.test_identity import CONFIG
from tests.sweeps import open_ledger, toy_experiment, toy_proposals

BASE = {"base_width": 128, "base_layers": 4, "base_loops": 2}


def recipe_of(architecture: Architecture = CONFIG.architecture, **settings: Any) -> TrainingRecipe:
    return recipe(
        TrainingSettings.model_validate(settings),
        arm="dual",
        architecture=architecture,
        train_flops=1e12,
        tokens=128_000,
        multiplier=2.0,
        precision="float32",
    )


def test_the_exponents_are_of_the_standard_parametrization_only() -> None:
    a = replace(CONFIG.architecture, d_model=256)
    assert recipe_of(a).learning_rate == pytest.approx(0.002 * 2.0 / 2)
    for name in ("mup", "complete-p"):
        assert recipe_of(a, parametrization=name).learning_rate == 0.004


def test_loops_may_be_left_out_of_the_rule() -> None:
    once, four = (replace(CONFIG.architecture, num_loops=loops) for loops in (1, 4))
    ratio = recipe_of(four).learning_rate / recipe_of(once).learning_rate
    assert ratio == pytest.approx(4**-0.3, rel=1e-3)
    assert recipe_of(four, loop_exponent=0).learning_rate == recipe_of(once).learning_rate
    assert recipe_of(four, loop_exponent=-0.3) == recipe_of(four)


def test_a_recipe_has_its_base_shape_and_its_factors() -> None:
    assert recipe_of().parametrization == STANDARD
    found = recipe_of(parametrization="complete-p", base_width=32, loop_factor="inverse")
    assert found.parametrization.rule.base_width == 32
    assert found.parametrization.hidden.rate == 1 / 2


def test_another_base_shape_or_another_factor_is_another_trial() -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"parametrization": "mup"},
        {"parametrization": "complete-p"},
        {"parametrization": "mup", "base_width": 64},
        {"parametrization": "mup", "loop_factor": "inverse"},
    ]
    recipes = [recipe_of(**each) for each in settings]
    rated = [replace(each, learning_rate=0.001) for each in recipes]
    assert len({replace(CONFIG, training=each).config_hash for each in rated}) == len(settings)


@pytest.mark.parametrize("base", BASE)
def test_a_base_shape_of_the_standard_parametrization_is_no_part_of_it(base: str) -> None:
    assert recipe_of(**{base: 7}) == recipe_of()


def test_a_row_of_the_ledger_gives_the_parametrization_back(tmp_path: Path) -> None:
    experiment = toy_experiment()
    (proposal,) = toy_proposals(tmp_path, 1)
    training = replace(
        proposal.config.training,
        parametrization=recipe_of(parametrization="complete-p").parametrization,
    )
    asked = replace(proposal, config=replace(proposal.config, training=training))
    ledger = open_ledger(tmp_path / "home", experiment)
    ledger.add_trial(experiment.name, asked)
    (record,) = ledger.trials(experiment.name)
    ledger.close()
    assert record.proposal.config == asked.config
    assert replace(record.proposal.config, eval_points=4) == replace(asked.config, eval_points=4)
    assert record.config_hash == asked.config_hash != proposal.config_hash


def test_a_loop_factor_needs_a_rule() -> None:
    with pytest.raises(ValidationError, match="use parametrization = 'mup' or 'complete-p'"):
        TrainingSettings(loop_factor="inverse")


@pytest.mark.parametrize("base", BASE)
def test_a_base_shape_is_positive(base: str) -> None:
    with pytest.raises(ValidationError, match=base):
        TrainingSettings.model_validate({"parametrization": "mup", base: 0})
