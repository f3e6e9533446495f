"""Is a parametrisation its papers' table, nothing at its base, and just its multipliers?"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spaces.model import LanguageModel
from spaces.parametrization import (
    STANDARD,
    Factors,
    Parametrization,
    ResolvedParametrization,
    absorbed,
)
from spaces.parts.weights import residual_std
from tests.runners.small import SIZES, small_architecture

RULES = [
    Parametrization(name=name, base_width=16, base_layers=2, base_loops=2, loop_factor=loops)
    for name in ("mup", "complete-p")
    for loops in ("none", "inverse")
]
NOTHING = Factors()


def kinds_of(arm: str) -> dict[str, set[str]]:
    """Parameters by kind, without the numbers of their layers."""
    found: dict[str, set[str]] = {}
    for each in LanguageModel(small_architecture(arm)).declared():
        name = ".".join(word for word in each.name.split(".") if not word.isdigit())
        found.setdefault(each.weight.kind, set()).add(name)
    return found


def test_every_weight_of_the_dual_arm_is_of_its_kind() -> None:
    attention = {f"layers.{path}.block.attention" for path in ("deep", "wide")}
    ffn = {f"layers.{path}.block.ffn" for path in ("deep", "wide")}
    norms = {f"{each}_norm" for each in attention | ffn}
    assert kinds_of("dual") == {
        "embedding": {"embedding.weight"},
        "vector": {f"{norm}.weight" for norm in norms}
        | {"layers.deep.step_scales", "layers.wide.step_scale", "final_norm.weight"}
        | {"layers.gate.linear.bias", "layers.deep.router.bias"},
        "hidden": {f"{each}.qkv.weight" for each in attention}
        | {f"{each}.gate_up.weight" for each in ffn},
        "branch": {f"{each}.output.weight" for each in attention | ffn},
        "readout": {"head.weight", "layers.gate.linear.weight", "layers.deep.router.weight"},
    }


def test_experts_are_hidden_and_branch_and_their_router_reads_out() -> None:
    kinds = kinds_of("moe")
    assert "layers.deep.block.ffn.gate_up" in kinds["hidden"]
    assert "layers.deep.block.ffn.output" in kinds["branch"]
    assert "layers.deep.block.ffn.router.weight" in kinds["readout"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("arm", list(SIZES))
def test_at_its_base_shape_nothing_is_scaled(arm: str, rule: Parametrization) -> None:
    a = small_architecture(arm)
    base = replace(rule, base_loops=a.num_loops)
    assert replace(base.at(a), rule=STANDARD.rule) == STANDARD


def test_the_standard_parametrization_has_no_base_shape() -> None:
    assert Parametrization(base_width=7).at(small_architecture("dual")) == STANDARD


def resolved(name: Any, **changes: Any) -> ResolvedParametrization:
    """Four times the width, eight times the layers, and three times the loops of the base."""
    rule = Parametrization(name=name, base_width=16, base_layers=2, base_loops=2, **changes)
    return rule.at(small_architecture("dual", d_model=64, num_layers=16, num_loops=6))


def test_mup_is_table_8_of_tensor_programs_v() -> None:
    found = resolved("mup")
    hidden = Factors(std=1 / 2, rate=1 / 4, epsilon=1 / 4, decay=4)
    assert found.hidden == found.branch == found.looped_branch == hidden
    assert found.embedding == found.vector == Factors(epsilon=1 / 4)
    assert found.readout == Factors(std=1 / 4, rate=1 / 4, epsilon=1, decay=4)


def test_complete_p_is_its_table_1_with_the_branch_multiplier_absorbed() -> None:
    found = resolved("complete-p")
    assert found.hidden == Factors(std=1 / 2, rate=1 / 4, epsilon=1 / 32, decay=4)
    assert found.vector == Factors(epsilon=1 / 32)
    assert found.embedding == Factors(epsilon=1 / 4)
    assert found.readout == resolved("mup").readout
    a = small_architecture("dual", num_layers=16)
    base_start = residual_std(small_architecture("dual", num_layers=2))
    start = residual_std(a) * found.branch.std
    assert start == pytest.approx(base_start / 2 / 8)
    assert found.branch.rate == pytest.approx(1 / 4 / 8)
    assert found.branch.epsilon == pytest.approx(1 / 4)
    assert found.branch.decay == pytest.approx(4 * 8)


@pytest.mark.parametrize("name", ["mup", "complete-p"])
def test_the_loop_factor_divides_what_a_looped_block_adds_and_nothing_else(name: str) -> None:
    without, with_it = resolved(name), resolved(name, loop_factor="inverse")
    differing = {
        each.name
        for each in fields(ResolvedParametrization)
        if getattr(without, each.name) != getattr(with_it, each.name)
    }
    assert differing == {"rule", "looped_branch"}
    assert with_it.looped_branch == without.looped_branch * absorbed(1 / 3)


@pytest.mark.parametrize("arm", ["wide", "standard", "moe"])
def test_where_nothing_loops_the_loop_factor_does_nothing(arm: str) -> None:
    rule = Parametrization(name="mup", base_loops=2, loop_factor="inverse")
    found = rule.at(small_architecture(arm))
    assert found.looped_branch == found.branch


def test_a_start_is_scaled_and_otherwise_the_same_draw() -> None:
    a = small_architecture("dual", d_model=64)
    rule = RULES[0].at(a)
    plain, scaled = LanguageModel(a, seed=3), LanguageModel(a, seed=3, parametrization=rule)
    for one, other in zip(plain.declared(), scaled.declared(), strict=True):
        factor = 1.0 if not one.weight.std else one.factors(rule).std
        torch.testing.assert_close(other.parameter, factor * one.parameter, rtol=1e-6, atol=0)


class Multiplied(nn.Module):
    """Two linear maps, the second with a multiplier in the forward pass."""

    def __init__(self, multiplier: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.multiplier = multiplier
        self.into = nn.Parameter(torch.randn(8, 6, generator=generator, dtype=torch.float64))
        self.out = nn.Parameter(torch.randn(5, 8, generator=generator, dtype=torch.float64))

    def forward(self, x_NI: Tensor) -> Tensor:
        return self.multiplier * F.linear(F.silu(F.linear(x_NI, self.into)), self.out)


def trained_product(multiplier: float, factors: Factors) -> Tensor:
    """The map's matrix with its multiplier after steps of AdamW, the second matrix by factors."""
    model = Multiplied(multiplier)
    with torch.no_grad():
        model.out.mul_(factors.std)
    rate, epsilon, decay = 0.05, 0.02, 0.3  # an epsilon and a decay that matter
    optimizer = torch.optim.AdamW(
        [
            {"params": [model.into], "lr": rate, "eps": epsilon, "weight_decay": decay},
            {
                "params": [model.out],
                "lr": rate * factors.rate,
                "eps": epsilon * factors.epsilon,
                "weight_decay": decay * factors.decay,
            },
        ]
    )
    generator = torch.Generator().manual_seed(2)
    for _ in range(8):
        x_NI = torch.randn(16, 6, generator=generator, dtype=torch.float64)
        labels_N = torch.randint(0, 5, (16,), generator=generator)
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(model(x_NI), labels_N))
        optimizer.step()
    return (multiplier * model.out).detach()


@pytest.mark.parametrize("multiplier", [1 / 8, 0.3, 4.0])
def test_a_multiplier_in_the_forward_pass_is_absorbed_exactly(multiplier: float) -> None:
    explicit = trained_product(multiplier, NOTHING)
    found = trained_product(1.0, absorbed(multiplier))
    torch.testing.assert_close(found, explicit, rtol=1e-11, atol=1e-12)
    assert not torch.allclose(trained_product(1.0, Factors(std=multiplier)), explicit, rtol=1e-3)
