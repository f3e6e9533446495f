"""Do a few steps of Adam move state and logits equally far in models of every size?

The coordinate check of Tensor Programs V (arXiv 2203.03466, appendix D.1). It is necessary, not
sufficient: rates have failed to transfer where it passed (`docs/rates.md`).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from runners.engine.step import EagerEngine
from search.record.trial import TrainingRecipe
from spaces.architecture import UNIT_STEP_SCALE_INIT, Architecture
from spaces.model import LanguageModel
from spaces.parametrization import Parametrization

VOCABULARY = 64
WIDTHS = [{"d_model": size} for size in (32, 64, 128, 256)]
DEPTHS = [{"num_layers": size} for size in (2, 4, 8, 16)]
LOOPS = [{"num_loops": size} for size in (1, 2, 4, 8)]

HELD = 1.7
"""The most that a change may differ between sizes where it should not; measured: 1.6 (logits over
widths, as the start's part in them falls), 1.1 otherwise."""
GROWN = 2.5
"""The least that it must differ where it should; measured: 3.0 (depth) to 53 (width)."""


def architecture(arm: str, *, d_model: int = 32, **sizes: Any) -> Architecture:
    """Width 32, two layers, K = 1; unless asked otherwise, the last loop's state leaves a layer."""
    fields: dict[str, Any] = {"num_layers": 2, "num_loops": 1, "loop_output": "final"} | sizes
    if arm == "dual":
        fields["wide_ffn"] = 4 * d_model
    return Architecture(
        arm=arm,
        d_model=d_model,
        deep_ffn=3 * d_model,
        head_dim=16,
        context_length=32,
        vocab_size=VOCABULARY,
        step_scale_init=UNIT_STEP_SCALE_INIT,
        **fields,
    )


def state_and_logits(model: LanguageModel, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The state before the final norm, which would hide its size, and the logits."""
    states: list[Tensor] = []
    hook = model.final_norm.register_forward_pre_hook(lambda _, args: states.append(args[0]))
    with torch.no_grad():
        logits_BTV = model(tokens_BT)
    hook.remove()
    return states[0], logits_BTV


def changes(a: Architecture, rule: Parametrization) -> tuple[float, ...]:
    """Mean absolute change of the last state and of the logits after four steps at one rate."""
    scaled = rule.at(a)
    model = LanguageModel(a, parametrization=scaled)
    recipe = TrainingRecipe(learning_rate=0.01, batch_sequences=8, parametrization=scaled)
    engine = EagerEngine(model, recipe)
    tokens_BT = torch.randint(0, VOCABULARY, (8, 33), generator=torch.Generator().manual_seed(3))
    inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:]
    before = state_and_logits(model, inputs_BT)
    for _ in range(4):
        engine.step(inputs_BT, targets_BT, learning_rate=recipe.learning_rate)
    after = state_and_logits(model, inputs_BT)
    return tuple((new - old).abs().mean().item() for old, new in zip(before, after, strict=True))


def spreads(arm: str, sizes: list[dict[str, Any]], **rule: Any) -> list[float]:
    """Largest over smallest change of the state and of the logits."""
    base = Parametrization(base_width=32, base_layers=2, base_loops=1, **rule)
    found = [changes(architecture(arm, **size), base) for size in sizes]
    return [max(column) / min(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize(
    ("arm", "sizes", "rule"),
    [
        ("dual", WIDTHS, {"name": "mup"}),
        ("dual", WIDTHS, {"name": "complete-p"}),
        ("standard", WIDTHS, {"name": "complete-p"}),
        ("dual", DEPTHS, {"name": "complete-p"}),
        ("standard", DEPTHS, {"name": "complete-p"}),
        ("loop", LOOPS, {"name": "complete-p", "loop_factor": "inverse"}),
        ("dual", LOOPS, {"name": "mup", "loop_factor": "inverse"}),
    ],
)
def test_changes_are_alike_in_every_size(
    arm: str, sizes: list[dict[str, Any]], rule: dict[str, Any]
) -> None:
    assert max(spreads(arm, sizes, **rule)) < HELD


@pytest.mark.parametrize(
    ("arm", "sizes", "rule"),
    [
        ("dual", WIDTHS, {"name": "standard"}),
        ("standard", DEPTHS, {"name": "standard"}),
        ("dual", DEPTHS, {"name": "mup"}),
        ("loop", LOOPS, {"name": "complete-p"}),
    ],
)
def test_without_the_rule_the_state_moves_farther_in_larger_models(
    arm: str, sizes: list[dict[str, Any]], rule: dict[str, Any]
) -> None:
    smallest, largest = (
        changes(
            architecture(arm, **size),
            Parametrization(base_width=32, base_layers=2, base_loops=1, **rule),
        )
        for size in (sizes[0], sizes[-1])
    )
    assert largest[0] > GROWN * smallest[0]


@pytest.mark.parametrize("loop_factor", ["none", "inverse"])
def test_fresh_routers_bound_what_loops_add_with_and_without_a_loop_factor(
    loop_factor: str,
) -> None:
    """Half of what is left stops at each loop, so that two count, however many there are."""
    mixed = [{"loop_output": "mixture", **size} for size in LOOPS]
    rule = {"name": "complete-p", "loop_factor": loop_factor}
    assert max(spreads("loop", mixed, **rule)) < HELD
