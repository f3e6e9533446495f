"""Is what gathered tokens compute what a masked model computes, and is its cost what is counted?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from runners.probes.early_exit import (
    EVERY_TOKEN,
    NO_TOKEN,
    By,
    Given,
    Threshold,
    early_exit_hidden,
    exits_of,
    require_exits,
)
from spaces.arms.contract import Readings
from spaces.arms.early_exit import early_exit_pass
from spaces.errors import RequestError
from spaces.flops import CONVENTIONS, forward_flops_per_sequence, prices_of
from spaces.model import LanguageModel
from spaces.parts.attention import Attention, Rotation
from spaces.parts.block import step_scales_of
from spaces.parts.gate import deep_share
from spaces.parts.layers import DeepPath, Layer
from spaces.parts.mixing_price import gate_price, loop_router_price
from tests.runners.small import small_architecture
from tests.runners.test_interventions import routing_model, some_tokens

WAYS: list[tuple[str, By]] = [("dual", "gate"), ("dual", "router"), ("loop", "router")]
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def leaving_model(arm: str) -> LanguageModel:
    """A model of three loops whose gates and routers differ widely between tokens."""
    model = routing_model(arm, num_loops=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate.linear" in name or "router" in name:
                parameter.mul_(20 if name.endswith("weight") else 0)
    return model


def masked_attention(attention: Attention, x: Tensor, rotation: Rotation, is_in: Tensor) -> Tensor:
    """Over the whole square, with a mask: tokens of the loop see those before them in it."""
    q, k, v = (each.transpose(1, 2) for each in attention.position(attention.qkv(x), rotation))
    length = x.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=x.device)
    mask = (causal & is_in[:, None, :] & is_in[:, :, None]) | itself
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None])
    return attention.output(mixed.transpose(1, 2).reshape(x.shape))


def masked_deep(
    deep: DeepPath, x: Tensor, rotation: Rotation, enters: Tensor, by: By, threshold: float
) -> tuple[Tensor, Tensor]:
    is_in, block = enters, deep.block
    out, left, loops = (
        torch.zeros_like(x),
        torch.ones_like(x[..., :1]),
        torch.zeros_like(enters, dtype=torch.long),
    )
    for loop, scale in enumerate(step_scales_of(deep.step_scales, deep.num_loops)):
        loops = loops + is_in
        state = x + scale * masked_attention(
            block.attention, block.attention_norm(x), rotation, is_in
        )
        state = state + scale * block.ffn(block.ffn_norm(state))
        x = torch.where(is_in[..., None], state, x)
        is_last = loop == deep.num_loops - 1
        position = torch.full_like(x[..., :1], loop / max(1, deep.num_loops - 1))
        stop = deep.router(torch.cat((x, position), dim=-1)).sigmoid()
        weight = left if is_last else stop * left
        goes_on = is_in & (left - weight >= threshold)[..., 0] if by == "router" else is_in
        weight = torch.where((is_in & ~goes_on)[..., None], left, weight)
        out = out + torch.where(is_in[..., None], weight * x, 0)
        left, is_in = left - weight, goes_on
    return out, loops


def masked_hidden(
    model: LanguageModel, tokens: Tensor, by: By, threshold: float
) -> tuple[Tensor, Tensor]:
    """The same rule without gathering: every token passes everything, masks choose."""
    counts = []

    def layer_of(layer: Layer, x: Tensor, rotation: Rotation) -> Tensor:
        enters = torch.ones_like(x[..., 0], dtype=torch.bool)
        gates = None if layer.gate is None else layer.gate(x)
        if by == "gate":
            enters = deep_share(gates) >= threshold
        deep, loops = masked_deep(layer.deep, x, rotation, enters, by, threshold)
        counts.append(loops)
        if gates is None:
            return deep
        wide = layer.wide(x, rotation)
        both = gates[..., :1] * deep + gates[..., 1:] * wide
        return torch.where(enters[..., None], both, gates.sum(-1, keepdim=True) * wide)

    def body(x: Tensor, rotation: Rotation) -> tuple[Tensor, Readings]:
        for layer in model.layers:
            x = layer_of(layer, x, rotation)
        return x, {}

    with torch.no_grad():
        hidden, _ = model.hidden_with_readings(tokens, body=body)
    return hidden, torch.stack(counts)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("arm", "by"), WAYS)
@pytest.mark.parametrize("threshold", [0.2, 0.35, 0.5, 0.65, 0.8])
def test_gathered_tokens_give_what_a_masked_model_gives(
    arm: str, by: By, threshold: float, device: str
) -> None:
    model, tokens = leaving_model(arm).to(device), some_tokens().to(device)
    found, loops = early_exit_hidden(model, tokens, Threshold(by=by, threshold=threshold))
    expected, expected_loops = masked_hidden(model, tokens, by, threshold)
    assert torch.equal(loops, expected_loops)
    assert len(loops.unique()) > 1, "some leave, some stay"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    again, same_loops = early_exit_hidden(model, tokens, Given(loops))
    assert torch.equal(loops, same_loops)
    torch.testing.assert_close(found, again, rtol=0, atol=0)


@pytest.mark.parametrize(("arm", "by"), WAYS)
def test_with_every_token_in_it_is_the_model(arm: str, by: By) -> None:
    model, tokens = routing_model(arm), some_tokens()
    found, loops = early_exit_hidden(model, tokens, Threshold(by=by, threshold=EVERY_TOKEN))
    assert (loops == model.architecture.num_loops).all()
    with torch.no_grad():
        torch.testing.assert_close(found, model.hidden(tokens), rtol=1e-10, atol=1e-10)


def test_the_future_decides_nothing() -> None:
    model, tokens = leaving_model("dual"), some_tokens(1)
    other = tokens.clone()
    other[0, 9:] = 7
    for by, threshold in (("gate", 0.5), ("router", 0.5)):
        rule = Threshold(by=by, threshold=threshold)
        one, another = (early_exit_hidden(model, each, rule)[0] for each in (tokens, other))
        torch.testing.assert_close(one[:, :9], another[:, :9], rtol=0, atol=1e-12)


def per_sequence(model: LanguageModel, loops: Tensor, convention: str) -> list[int]:
    work = early_exit_pass(model.architecture, loops.numpy())
    return [int(each) for each in work.flops(convention)]


@pytest.mark.parametrize(("arm", "by"), WAYS)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_token_in_every_loop_costs_the_certificate(arm: str, by: By, convention: str) -> None:
    model = routing_model(arm)
    _, loops = early_exit_hidden(model, some_tokens(), Threshold(by=by, threshold=EVERY_TOKEN))
    whole = forward_flops_per_sequence(model.architecture)[convention]
    assert per_sequence(model, loops, convention) == [whole] * 3


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_token_in_the_deep_path_costs_the_certificate_less_that_path(convention: str) -> None:
    model = routing_model()
    a = model.architecture
    _, loops = early_exit_hidden(model, some_tokens(), Threshold(by="gate", threshold=NO_TOKEN))
    assert not loops.any()
    routers = loop_router_price(a.d_model, a.context_length) * (a.num_layers * a.num_loops)
    deep = prices_of(a)["deep"] + routers
    whole = forward_flops_per_sequence(a)[convention]
    left = whole - deep.inference.flops(convention)
    assert per_sequence(model, loops, convention) == [left] * 3
    gates = gate_price(a.gate_mode, a.d_model, a.context_length) * a.num_layers
    wide = forward_flops_per_sequence(small_architecture("wide"))[convention]
    assert left == wide + gates.inference.flops(convention), "a wide model and its gates"


def test_no_token_after_the_first_loop_costs_a_model_of_one_loop() -> None:
    model = routing_model("loop", num_loops=3)
    _, loops = early_exit_hidden(model, some_tokens(), Threshold(by="router", threshold=NO_TOKEN))
    one = forward_flops_per_sequence(small_architecture("loop", num_loops=1))
    assert per_sequence(model, loops, "full") == [one.full] * 3


@pytest.mark.parametrize("seed", range(3))
def test_who_attends_whom_is_counted(seed: int) -> None:
    """Scores are of the squares of those who are there, all else of how many they are."""
    a = small_architecture("dual", num_loops=3)
    loops = np.random.default_rng(seed).integers(0, 4, size=(2, 1, 16))
    full, nobody = early_exit_pass(a, loops), early_exit_pass(a, np.zeros_like(loops))
    is_in = [loops[layer, 0] > loop for layer in range(2) for loop in range(3)]
    pairs = sum(int(np.outer(each, each).sum()) for each in is_in)
    assert int((full.scores - nobody.scores)[0]) == 4 * a.d_model * pairs
    per_token = 8 * a.d_model**2 + 6 * a.d_model * 24 + 2 * (a.d_model + 1)
    assert int((full.products - nobody.products)[0]) == per_token * loops.sum()


@pytest.mark.parametrize(
    ("arm", "changes", "by", "said"),
    [
        ("loop", {}, "gate", "the loop arm has none"),
        ("dual", {"num_loops": 1}, "router", "has 1 with loop output 'mixture'"),
        ("dual", {"loop_output": "final"}, "router", "loop output 'final'"),
    ],
)
def test_a_score_that_a_model_lacks_is_refused(
    arm: str, changes: dict[str, object], by: By, said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        require_exits(LanguageModel(small_architecture(arm, **changes)), by)


def test_a_model_that_cannot_leave_is_refused() -> None:
    with pytest.raises(RequestError, match="the wide arm has neither gates nor a router"):
        exits_of(LanguageModel(small_architecture("wide")))
    assert exits_of(LanguageModel(small_architecture("dual"))) == ["gate", "router"]
