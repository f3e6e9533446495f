"""An ordinary transformer may have what the arms that it is compared with have."""

from __future__ import annotations

import pytest

from analysis.sweep.freedoms import arm_freedoms, unequal_freedoms
from search.propose.cells import cell_axes
from search.record.trial_records import TrialRecord
from spaces.architecture import UNIT_STEP_SCALE_INIT, Architecture
from spaces.certificate import built_parameters, certify
from spaces.errors import RequestError
from spaces.identity import canonical_form
from spaces.model import LanguageModel
from spaces.parameters import count_parameters
from tests.search.records import bowl, play
from tests.sweeps import toy_experiment


def standard(**changes: object) -> Architecture:
    fields = {
        "arm": "standard",
        "num_layers": 3,
        "d_model": 32,
        "head_dim": 16,
        "deep_ffn": 64,
        "context_length": 16,
        "vocab_size": 50,
    }
    return Architecture(**(fields | changes))  # type: ignore[arg-type]


def test_trained_scales_are_priced_built_and_start_at_one() -> None:
    plain, scaled = standard(), standard(step_scales="trained")
    added = count_parameters(scaled).total - count_parameters(plain).total
    assert added == plain.num_layers
    for architecture in (plain, scaled):
        certify(architecture)  # raises where a counter, or a built model, disagrees with the price
        model = LanguageModel(architecture)
        assert built_parameters(model) == count_parameters(architecture)
        scales = [name for name, _ in model.named_parameters() if "step_scales" in name]
        assert len(scales) == (plain.num_layers if architecture is scaled else 0)


def test_an_architecture_of_before_keeps_its_form() -> None:
    assert "step_scales" not in canonical_form(standard())
    assert canonical_form(standard(step_scales="trained"))["step_scales"] == "trained"


def test_what_always_has_scales_is_not_told_to() -> None:
    with pytest.raises(RequestError, match="always trains its step scales"):
        standard(arm="loop", step_scales="trained")


def test_arms_of_an_experiment_are_as_free_as_the_others() -> None:
    together = toy_experiment(arms=["standard", "unrolled", "dual"])
    for arm in ("standard", "unrolled"):
        axes = cell_axes(together, arm)
        assert axes["step_scales"] == ("trained",)
        assert axes["step_scale_init"] == (UNIT_STEP_SCALE_INIT,)
        assert len(axes["deep_multiplier"]) > 1
    assert cell_axes(together, "dual")["deep_multiplier"] == (8 / 3,)
    alone = cell_axes(toy_experiment(arms=["standard", "unrolled"]), "standard")
    assert alone["step_scales"] == ("own",)
    assert "step_scale_init" not in alone
    assert alone["deep_multiplier"] == (8 / 3,)


def test_what_the_experiment_says_wins() -> None:
    axes = {"step_scales": ["own"], "deep_multiplier": [3]}
    asked = cell_axes(toy_experiment(arms=["standard", "dual"], axes=axes), "standard")
    assert asked["step_scales"] == ("own",)
    assert asked["deep_multiplier"] == (3,)


def played(**changes: object) -> list[TrialRecord]:
    return play(toy_experiment(trials=24, arms=["standard", "dual"], **changes), bowl)


def test_unequal_freedoms_are_named() -> None:
    assert unequal_freedoms(arm_freedoms(played())) is None
    axes = {"step_scales": ["own"], "deep_multiplier": [3], "d_model": [16, 32]}
    found = arm_freedoms(played(axes=axes))
    said = unequal_freedoms(found)
    assert said is not None
    assert "step scales (fixed: dual; none: standard)" in said
    assert "feed-forward ratio (fixed: standard; searched: dual)" in said
