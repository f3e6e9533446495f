"""Does the model compute the published block, in every arm and variant?"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from spaces.architecture import PAPER_STEP_SCALE_INIT, Architecture
from spaces.errors import RequestError
from spaces.model import LanguageModel
from spaces.parts.attention import Rotation, rotation_tables
from spaces.parts.layers import Layer
from tests.spaces.reference import reference_logits
from tests.spaces.strategies import ARMS, architectures, small

GOLDEN_LOSSES_NATS = (4.143955, 4.062285, 3.988296)
"""Loss before each of three AdamW steps of a small dual model; see the test's message."""


def some_tokens(architecture: Architecture, *, batch: int = 2) -> Tensor:
    """Random tokens of a full context."""
    shape = (batch, architecture.context_length)
    generator = torch.Generator().manual_seed(7)
    return torch.randint(architecture.vocab_size, shape, generator=generator)


def shaken(model: LanguageModel, *, std: float = 0.3) -> LanguageModel:
    """The model with every weight moved, so that nothing stands at a start that hides it."""
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, std, generator=generator))
    return model


def layer_of(model: LanguageModel, index: int = 0) -> Layer:
    """One layer, typed."""
    layer = model.layers[index]
    assert isinstance(layer, Layer)
    return layer


def rotation_of(model: LanguageModel) -> Rotation:
    """The rotary tables of the full context."""
    return Rotation(model.rotation_cos_TC, model.rotation_sin_TC)


def root_mean_square(x: Tensor) -> float:
    """Over all elements."""
    return float(x.square().mean().sqrt())


@given(architectures())
@settings(max_examples=40, deadline=None, derandomize=True, database=None)
def test_model_computes_the_published_equations(architecture: Architecture) -> None:
    model = shaken(LanguageModel(architecture)).double()
    a = architecture
    for name, table in rotation_tables(a.context_length, a.head_dim, a.rope_base).items():
        getattr(model, name).copy_(table)  # they were rounded to float32
    tokens = some_tokens(architecture, batch=1)
    with torch.no_grad():
        logits = model(tokens)
    expected = reference_logits(architecture, model.state_dict(), tokens[0])
    torch.testing.assert_close(logits[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_gives_finite_logits_and_gradients_everywhere(arm: str) -> None:
    model = LanguageModel(small(arm))
    logits = model(some_tokens(model.architecture))
    assert logits.shape == (2, 16, 64)
    logits.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_fresh_dual_layer_with_the_papers_preset_is_the_identity_within_a_thousandth() -> None:
    architecture = small(
        "dual",
        num_layers=1,
        num_loops=4,
        d_model=768,
        head_dim=64,
        deep_ffn=1280,
        wide_ffn=7680,
        step_scale_init=PAPER_STEP_SCALE_INIT,
    )
    model = LanguageModel(architecture)
    x_BTD = torch.randn(2, 16, 768, generator=torch.Generator().manual_seed(3))
    x_BTD = F.rms_norm(x_BTD, (768,))
    with torch.no_grad():
        out_BTD, _, _ = layer_of(model)(x_BTD, rotation_of(model))
    assert 0 < root_mean_square(out_BTD - x_BTD) < 1e-3
    assert not torch.equal(out_BTD, x_BTD)


@pytest.mark.parametrize("num_loops", [1, 2, 5])
def test_mixture_weights_sum_to_one(num_loops: int) -> None:
    model = shaken(LanguageModel(small("dual", num_loops=num_loops)))
    _, readings = model.hidden_with_readings(some_tokens(model.architecture))
    assert readings["loop_weights_LBTK"].shape == (2, 2, 16, num_loops)
    assert readings["gates_LBT2"].shape == (2, 2, 16, 2)
    assert (readings["loop_weights_LBTK"] >= 0).all()
    sums = readings["loop_weights_LBTK"].sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-6)


@pytest.mark.parametrize("arm", ["dual", "loop"])
@pytest.mark.parametrize("loop_output", ["mixture", "final", "average"])
def test_changing_k_changes_no_parameter_but_the_step_scales(arm: str, loop_output: str) -> None:
    one = LanguageModel(small(arm, num_loops=1, loop_output=loop_output), seed=5).state_dict()
    four = LanguageModel(small(arm, num_loops=4, loop_output=loop_output), seed=5).state_dict()
    assert one.keys() == four.keys()
    changed = {name for name in one if one[name].shape != four[name].shape}
    assert changed == {f"layers.{index}.deep.step_scales" for index in range(2)}
    assert all(torch.equal(one[name], four[name]) for name in one.keys() - changed)


@given(architectures())
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
def test_future_tokens_change_nothing(architecture: Architecture) -> None:
    model = shaken(LanguageModel(architecture))
    tokens = some_tokens(architecture, batch=1)
    changed = tokens.clone()
    split = architecture.context_length // 2
    changed[:, split:] = (changed[:, split:] + 1) % architecture.vocab_size
    before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :split], after[:, :split], rtol=1e-5, atol=1e-5)
    assert not torch.equal(before[:, split:], after[:, split:])


@pytest.mark.parametrize(
    ("arm", "gate_biases"), [("loop", (200.0, -200.0)), ("wide", (-200.0, 200.0))]
)
def test_single_path_arm_equals_the_dual_layer_without_the_other_path(
    arm: str, gate_biases: tuple[float, float]
) -> None:
    dual = shaken(LanguageModel(small("dual")))
    with torch.no_grad():
        for layer in dual.layers:
            assert isinstance(layer, Layer)
            assert layer.gate is not None
            assert layer.gate.linear is not None
            layer.gate.linear.weight.zero_()
            layer.gate.linear.bias.copy_(torch.tensor(gate_biases))  # sigmoid: exactly 1 and 0
    single = LanguageModel(small(arm))
    missing, _ = single.load_state_dict(dual.state_dict(), strict=False)
    assert not missing
    tokens = some_tokens(dual.architecture)
    assert torch.equal(single(tokens), dual(tokens))


def test_standard_arm_equals_the_loop_arm_with_one_loop_at_step_scale_one() -> None:
    loop = LanguageModel(small("loop", num_loops=1))
    standard = LanguageModel(small("standard"))
    missing, unexpected = standard.load_state_dict(loop.state_dict(), strict=False)
    assert not missing
    assert {name.split(".", 3)[3] for name in unexpected} == {
        "step_scales",
        "router.weight",
        "router.bias",
    }
    tokens = some_tokens(loop.architecture)
    torch.testing.assert_close(standard(tokens), loop(tokens), rtol=1e-5, atol=1e-6)


def test_weightless_query_and_key_norm_commutes_with_the_rotation() -> None:
    before = shaken(LanguageModel(small("standard", qk_norm="before")))
    after = LanguageModel(small("standard", qk_norm="after"))
    none = LanguageModel(small("standard", qk_norm="none"))
    for model in (after, none):
        model.load_state_dict(before.state_dict())
    tokens = some_tokens(before.architecture)
    torch.testing.assert_close(before(tokens), after(tokens), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before(tokens), none(tokens), rtol=1e-2, atol=1e-2)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    tables = rotation_tables(32, 8, 10_000.0)
    rotation = Rotation(tables["rotation_cos_TC"], tables["rotation_sin_TC"])
    generator = torch.Generator().manual_seed(2)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=generator, dtype=torch.float64)
    queries, keys = (rotation.apply(x.expand(1, 32, 1, 8))[0, :, 0] for x in (query, key))
    scores = queries @ keys.T
    for distance in range(-31, 32):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert scores[0].std() > 0.1


@pytest.mark.parametrize("gate_mode", ["convex", "softmax", "fixed"])
def test_gates_of_the_dependent_modes_sum_to_one(gate_mode: str) -> None:
    model = shaken(LanguageModel(small("dual", gate_mode=gate_mode)))
    _, readings = model.hidden_with_readings(some_tokens(model.architecture))
    sums = readings["gates_LBT2"].sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums))


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, again = LanguageModel(small("dual"), seed=1), LanguageModel(small("dual"))
    again.initialize(1)
    other = LanguageModel(small("dual"), seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name
    assert not torch.equal(first.head.weight, other.head.weight)


def test_a_model_built_on_meta_and_materialized_equals_one_built_directly() -> None:
    with torch.device("meta"):
        model = LanguageModel(small("dual"))
    assert model.head.weight.is_meta
    model.to_empty(device="cpu").initialize(4)
    direct = LanguageModel(small("dual"), seed=4)
    tokens = some_tokens(direct.architecture)
    assert torch.equal(model(tokens), direct(tokens))


def test_weights_start_normal_with_residual_outputs_scaled_by_depth() -> None:
    architecture = small("dual", d_model=256, head_dim=64, deep_ffn=512, wide_ffn=1024)
    for name, weight in LanguageModel(architecture).state_dict().items():
        if name.endswith("output.weight"):
            assert float(weight.std()) == pytest.approx(0.02 / math.sqrt(4), rel=0.02), name
        elif name.endswith(("qkv.weight", "gate_up.weight", "embedding.weight", "head.weight")):
            assert float(weight.std()) == pytest.approx(0.02, rel=0.02), name
        elif "norm" in name:
            assert (weight == 1).all(), name
        elif "step_scale" in name:
            torch.testing.assert_close(F.softplus(weight), torch.ones_like(weight))
        elif ".gate." in name:
            assert (weight == 0).all(), name


def test_weight_decay_acts_on_projections_and_head_alone() -> None:
    model = LanguageModel(small("dual"))
    matrices = {each.name for each in model.declared() if each.weight.decays}
    assert {name.split(".", 2)[-1] for name in matrices} == {
        "weight",  # the head's
        *(
            f"{path}.block.{matrix}.weight"
            for path in ("deep", "wide")
            for matrix in ("attention.qkv", "attention.output", "ffn.gate_up", "ffn.output")
        ),
    }
    assert "embedding.weight" not in matrices


def test_a_model_wholly_in_bfloat16_runs_in_bfloat16() -> None:
    model = LanguageModel(small("dual")).bfloat16()
    assert model(some_tokens(model.architecture)).dtype == torch.bfloat16


def test_rotary_tables_are_not_part_of_the_weights() -> None:
    names = LanguageModel(small("dual")).state_dict().keys()
    assert not [name for name in names if "rotation" in name or "position" in name]


def test_a_sequence_longer_than_the_context_is_refused() -> None:
    model = LanguageModel(small("dual"))
    with pytest.raises(RequestError, match="17 tokens and 16"):
        model(torch.zeros(1, 17, dtype=torch.long))


def test_golden_training_steps() -> None:
    model = LanguageModel(small("dual"), seed=0)
    groups = [
        {
            "params": [each.parameter for each in model.declared() if each.weight.decays],
            "weight_decay": 0.1,
        },
        {
            "params": [each.parameter for each in model.declared() if not each.weight.decays],
            "weight_decay": 0.0,
        },
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95))
    tokens = some_tokens(model.architecture, batch=4)
    losses = []
    for _ in GOLDEN_LOSSES_NATS:
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == pytest.approx(GOLDEN_LOSSES_NATS, abs=2e-5), (
        f"the model, its start or its gradients changed: losses {losses}. If that is meant, put "
        f"these numbers into GOLDEN_LOSSES_NATS, raise RECORD_VERSION in search/record/trial.py "
        f"(old records no longer describe this model) and name both in the commit; if not, undo it"
    )
