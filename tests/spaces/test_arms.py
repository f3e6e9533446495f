"""Does every arm keep to the contract: shape, price, parameters, readouts, and errors in words?"""

from __future__ import annotations

import dataclasses
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from search.belief.gaussian_process import features_of
from search.limits.memory import training_memory_bytes
from search.record.trial import Proposal, TrainingRecipe, TrialConfig
from spaces.architecture import Architecture, UnknownFields, stored_architecture
from spaces.arms.contract import find_arm
from spaces.arms.registry import BUILT_IN, ArmFile, load_arm_file
from spaces.budget import Budget, solve
from spaces.certificate import certify
from spaces.errors import RequestError
from spaces.flops import (
    forward_flops_grid,
    forward_flops_per_sequence,
    layer_flops_per_token,
    train_flops_per_sequence,
)
from spaces.identity import canonical_form, canonical_json
from spaces.model import LanguageModel
from spaces.parameters import count_active_parameters, count_parameters
from spaces.parts.experts import Experts, balance
from spaces.price import CONVENTIONS, PARTS
from tests.spaces.conformance import (
    ARMS,
    COMMON,
    FFN_MULTIPLE,
    OWN,
    ROOT,
    architecture_of,
    point_of,
)

every_arm = pytest.mark.parametrize("name", ARMS)


@every_arm
def test_three_counters_agree_with_the_price(name: str) -> None:
    certificate = certify(architecture_of(name))
    assert certificate.agree
    assert certificate.active_parameters <= certificate.parameters.total


@every_arm
@pytest.mark.parametrize("mode", ["tokens", "deep_ffn", "wide_ffn", "both_ffn", "d_model"])
def test_solving_is_the_inverse_of_pricing(name: str, mode: Any) -> None:
    arm = find_arm(name)
    point = point_of(arm, mode)
    if "alpha" in point:
        return  # tests/spaces/test_budget.py
    planted = architecture_of(name)
    if mode in arm.derived:
        size = arm.derived[mode]
        planted = arm.shape(point, COMMON, d_model=32, ffn_multiple=FFN_MULTIPLE)
        planted = planted.with_size(size, 5 * FFN_MULTIPLE)
    target = layer_flops_per_token(planted).full
    asked = {"train_flops": 3e10} if mode == "tokens" else {"tokens": 160_000}
    if mode != "tokens":
        asked["layer_flops_per_token"] = target
    solution = solve(
        Budget(**asked),  # type: ignore[arg-type]
        arm=name,
        mode=mode,
        axes=point,
        common=COMMON,
        ffn_multiple=FFN_MULTIPLE,
    )
    assert solution.architecture == planted
    assert abs(solution.train_flops_error) <= 1e-3
    per_sequence = train_flops_per_sequence(solution.architecture).full
    assert solution.train_flops == per_sequence * (solution.tokens // COMMON.context_length)


@every_arm
def test_the_grid_equals_the_single_price(name: str) -> None:
    a = architecture_of(name)
    sizes = {each.name: getattr(a, each.name) for each in dataclasses.fields(a)}
    own = {} if a.own is None else vars(a.own)
    for dropped in ("arm", "own", "arm_source"):
        sizes.pop(dropped)
    sizes = {key: value for key, value in sizes.items() if value is not None} | own
    sizes["num_layers"] = np.array([1, 2]) * a.num_layers
    for convention in CONVENTIONS:
        grid = forward_flops_grid(arm=a.arm, convention=convention, **sizes)
        single = forward_flops_per_sequence(a)[convention] // a.context_length
        head = 2 * a.d_model * a.vocab_size
        assert list(grid) == [single, 2 * (single - head) + head]


@every_arm
def test_every_parameter_is_declared_and_starts_by_its_own_seed(name: str) -> None:
    a = architecture_of(name)
    model, again, other = (LanguageModel(a, seed=seed) for seed in (3, 3, 4))
    declared = list(model.declared())
    assert [each.name for each in declared] == [key for key, _ in model.named_parameters()]
    assert {each.part for each in declared} <= set(PARTS)
    assert sum(each.parameter.numel() for each in declared) == count_parameters(a).total
    for one, same, drawn_otherwise in zip(
        declared, again.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(one.parameter, same)
        assert torch.equal(one.parameter, drawn_otherwise) == (one.weight.std == 0)


@every_arm
def test_what_arms_share_starts_equal(name: str) -> None:
    if architecture_of(name).num_layers != 2:
        return  # the start of what ends a residual step follows the depth
    standard = dict(LanguageModel(architecture_of("standard"), seed=1).named_parameters())
    for key, parameter in LanguageModel(architecture_of(name), seed=1).named_parameters():
        if key in standard and standard[key].shape == parameter.shape and "ffn" not in key:
            assert torch.equal(standard[key], parameter), key


@every_arm
def test_a_value_of_an_arm_travels_and_comes_back(name: str) -> None:
    a = architecture_of(name)
    assert pickle.loads(pickle.dumps(a)) == a
    again = stored_architecture(canonical_form(a))
    assert again == a
    assert canonical_json(again) == canonical_json(a)


@every_arm
def test_readouts_memory_features_and_numbers_derive(name: str) -> None:
    a, arm = architecture_of(name), find_arm(architecture_of(name).arm)
    tokens = torch.zeros(2, 16, dtype=torch.long)
    _, readings = LanguageModel(a).hidden_with_readings(tokens)
    values = arm.read(readings)
    assert list(values) == [readout.name for readout in arm.readouts_of(a)]
    assert all(value.shape == (a.num_layers, 2, 16) for value in values.values())
    assert training_memory_bytes(a, sequences=4) > 14 * count_parameters(a).total
    assert all(math.isfinite(feature) for feature in features_of(proposal_of(a, name)))
    assert arm.sizes(a)
    assert arm.describe(a).startswith(f"{a.num_layers} x 32")


def proposal_of(a: Architecture, name: str) -> Proposal:
    """A proposal of an architecture."""
    config = TrialConfig(
        architecture=a,
        tokens=1600,
        training=TrainingRecipe(learning_rate=0.01, batch_sequences=2),
        text_fingerprint="0" * 64,
        eval_sequences=1,
    )
    budget = Budget(train_flops=1e9)
    return Proposal(config=config, arm=name, budget=budget, axes={}, purpose="search")


def test_standard_and_unrolled_are_one_family_and_all_others_their_own() -> None:
    families = {name: find_arm(name).family for name in ARMS}
    assert families == {name: name for name in ARMS} | {"unrolled": "standard"}
    assert architecture_of("unrolled").arm == "standard"


def test_own_fields_are_hashed_for_their_arm_alone() -> None:
    assert set(canonical_form(architecture_of("moe"))) >= {"own", "num_layers"}
    assert "gate_mode" not in canonical_form(architecture_of("moe"))
    assert "own" not in canonical_form(architecture_of("dual"))
    assert canonical_form(architecture_of(OWN))["arm_source"] == find_arm(OWN).source


def test_no_arm_is_named_outside_spaces_arms() -> None:
    names = "|".join((*BUILT_IN, "mod"))
    compared = re.compile(rf"(==|!=| in )[^#\n]*[\"']({names})[\"']")
    found = [
        f"{path}:{number}"
        for room in ("spaces", "search", "runners", "analysis")
        for path in sorted((ROOT / room).rglob("*.py"))
        if ROOT / "spaces" / "arms" not in path.parents
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if compared.search(line)
    ]
    assert found == []


# Mixture of experts


def test_experts_compute_what_each_token_s_own_experts_compute() -> None:
    experts = Experts(architecture_of("moe")).double()
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    x_BTD = torch.randn(2, 5, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    out_BTD, choice = experts(x_BTD)
    for place in np.ndindex(2, 5):
        expected = torch.zeros(32, dtype=torch.float64)
        for expert, weight in zip(
            choice.experts_BTK[place], choice.weights_BTK[place], strict=True
        ):
            gate, up = (x_BTD[place] @ experts.gate_up[expert]).chunk(2)
            hidden = torch.nn.functional.silu(gate) * up
            expected = expected + weight * (hidden @ experts.output[expert])
        torch.testing.assert_close(out_BTD[place], expected)
    torch.testing.assert_close(choice.weights_BTK.sum(-1), torch.ones(2, 5, dtype=torch.float64))


def test_gradients_of_experts_are_those_of_differences() -> None:
    experts = Experts(architecture_of("moe")).double()
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    x_BTD = torch.randn(1, 3, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: experts(x)[0], (x_BTD,), atol=1e-6)
    weights = [parameter.requires_grad_() for parameter in experts.parameters()]
    loss = experts(x_BTD)[0].square().sum()
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        flat, index = weight.data.view(-1), int(gradient.abs().argmax())
        before, step = flat[index].item(), 1e-6
        flat[index] = before + step
        higher = experts(x_BTD)[0].square().sum().item()
        flat[index] = before - step
        lower = experts(x_BTD)[0].square().sum().item()
        flat[index] = before
        assert gradient.view(-1)[index].item() == pytest.approx((higher - lower) / 2e-6, rel=1e-4)


def test_balance_is_one_where_experts_are_used_alike_and_e_where_one_is() -> None:
    logits = torch.zeros(1, 1, 4, 4)
    even = torch.arange(4).view(1, 1, 4, 1)
    assert balance(logits, even).item() == pytest.approx(1.0)
    logits[..., 0] = 50.0
    assert balance(logits, torch.zeros_like(even)).item() == pytest.approx(4.0)


def test_moe_reports_active_and_stored_parameters() -> None:
    a = architecture_of("moe")
    one_expert = 3 * a.d_model * a.own.expert_ffn * a.num_layers
    unused = a.own.num_experts - a.own.top_k
    assert count_parameters(a).total - count_active_parameters(a) == unused * one_expert


# Arms of one's own


def arm_text(**changes: str) -> str:
    """The example's source with some words changed."""
    text = (ROOT / "docs" / "examples" / "parallel_arm.py").read_text()
    text = text.replace('name = "parallel"', 'name = "broken"')
    for before, after in changes.values():
        assert before in text
        text = text.replace(before, after)
    return text


def broken_architecture() -> Architecture:
    return Architecture(
        arm="broken",
        num_layers=1,
        d_model=16,
        head_dim=8,
        context_length=8,
        vocab_size=32,
        own={"ffn": 24},
    )


STATE = """self.register_buffer("counts", torch.zeros(3))
                self.norms ="""
EXTRA = "self.extra = nn.Parameter(torch.zeros(3))\n                self.norms ="


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("* shape.num_layers}", "* shape.num_layers * 2}"), "price must count the model's param"),
        (("layer = attention", "layer = plain_price(products=8) + attention"), "price is wrong"),
        (
            ("self.norms =", EXTRA),
            "layers.extra of Layers has no weight",
        ),
        (("self.norms =", STATE), "layers.counts of Layers is not; make it with"),
        (('part = "deep"', "depth = 1"), "deep=0, wide=0, shared=2208"),
        (("+ ffn(normed_BTD)", "+ torch.fft.fft(ffn(normed_BTD)).real"), "fft"),
    ],
)
def test_an_arm_that_lies_is_refused_in_words(change: tuple[str, str], message: str) -> None:
    load_arm_file(ArmFile(name="broken_arm", text=arm_text(change=change)))  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=message):
        certify(broken_architecture())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "holds no arm"),
        (arm_text().replace('name = "broken"', 'name = "dual"'), "a name of its own, got 'dual'"),
    ],
)
def test_a_file_that_gives_no_arm_is_refused_in_words(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        load_arm_file(ArmFile(name="broken_arm", text=text))


def test_an_arm_is_found_as_an_entry_point_of_an_installed_package(tmp_path: Path) -> None:
    (tmp_path / "their_arms.py").write_text(arm_text() + "\nARM = PARALLEL\n")
    info = tmp_path / "their_arms-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-arms\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[isoflop.arms]\nbroken = their_arms:ARM\n")
    code = (
        "from spaces.arms.registry import known_arms\n"
        "from spaces.arms.contract import find_arm\n"
        "assert 'broken' in known_arms()\n"
        "print(find_arm('broken').source)"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    source = (tmp_path / "their_arms.py").read_text()
    assert done.stdout.strip() == ArmFile(name="their_arms", text=source).source


def test_another_source_is_another_identity() -> None:
    load_arm_file(ArmFile(name="broken_arm", text=arm_text()))
    before = canonical_json(broken_architecture())
    load_arm_file(ArmFile(name="broken_arm", text=arm_text() + "\n# changed\n"))
    assert canonical_json(broken_architecture()) != before


def test_an_arm_that_cannot_be_imported_is_read_by_its_fields(tmp_path: Path) -> None:
    form = canonical_form(architecture_of(OWN)) | {"arm": "gone"}
    read = stored_architecture(form)
    assert not read.is_known
    assert read.own == UnknownFields((("ffn", 88),))
    assert (read.num_layers, read.d_model) == (2, 32)
    with pytest.raises(RequestError, match="arm must be one of"):
        Architecture(**{**form, "own": {"ffn": 88}})
