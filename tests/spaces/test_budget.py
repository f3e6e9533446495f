"""Does the solver spend a budget exactly, in every mode and arm, and say why where it cannot?"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.architecture import Architecture, CommonFields, GateMode, LoopOutput
from spaces.arms.contract import find_arm
from spaces.arms.registry import BUILT_IN
from spaces.budget import Axes, Budget, Solution, SolveMode, axes_of, solve
from spaces.errors import InfeasibleError, RequestError
from spaces.flops import (
    CONVENTIONS,
    Convention,
    FlopsByConvention,
    deep_share,
    forward_flops_per_token,
    layer_flops_per_token,
    part_flops_per_token,
    train_flops_per_token,
)
from tests.spaces.strategies import ARMS

MODES: tuple[SolveMode, ...] = get_args(SolveMode)
CASES = [(arm, mode) for arm in ARMS for mode in MODES]
COMMON = CommonFields(context_length=256, vocab_size=512, head_dim=32)
VALUES: dict[str, Any] = {
    "num_loops": 3,
    "wide_multiplier": 4.0,
    "deep_multiplier": 8 / 3,
    "alpha": 0.5,
    "num_layers": 4,
    "d_model": 128,
}
every_case = pytest.mark.parametrize(("arm", "mode"), CASES)
targeted_case = pytest.mark.parametrize(
    ("arm", "mode"), [(arm, mode) for arm, mode in CASES if mode != "tokens"]
)


def point(arm: str, mode: SolveMode, **values: Any) -> Axes:
    """One point of the axes that an arm has in a mode."""
    return Axes(**{axis: (VALUES | values)[axis] for axis in axes_of(arm, mode)})


def of_layer(architecture: Architecture, part: str, convention: Convention) -> float:
    """Forward FLOPs per token of a part of one layer."""
    return part_flops_per_token(architecture, part, convention) / architecture.num_layers


def common_of(architecture: Architecture) -> CommonFields:
    """The fields that a study holds fixed."""
    names = [field.name for field in fields(CommonFields)]
    return CommonFields(**{name: getattr(architecture, name) for name in names})


@dataclass(frozen=True)
class Asked:
    """A planted architecture on the FFN grid, and the budget that it costs."""

    planted: Architecture
    convention: Convention
    tokens: int
    by_layer: bool
    ffn_multiple: int

    @property
    def target(self) -> int:
        """Forward FLOPs per token, or per layer and token."""
        return self.cost_of(self.planted)

    def cost_of(self, architecture: Architecture) -> int:
        """The same of another architecture."""
        flops: FlopsByConvention = (
            layer_flops_per_token(architecture)
            if self.by_layer
            else forward_flops_per_token(architecture)
        )
        return flops[self.convention]

    @property
    def train_flops(self) -> int:
        """What training the planted architecture on the planted tokens costs."""
        return self.tokens * train_flops_per_token(self.planted)[self.convention]

    def budget(self, mode: SolveMode, *, target: float) -> Budget:
        """The budget with a target per token, where the mode has one."""
        if mode == "tokens":
            return Budget(train_flops=self.train_flops, convention=self.convention)
        name = "layer_flops_per_token" if self.by_layer else "forward_flops_per_token"
        return Budget(tokens=self.tokens, convention=self.convention, **{name: target})

    def axes(self, mode: SolveMode) -> Axes:
        """The planted point."""
        a = self.planted
        values = {
            "num_loops": a.num_loops,
            "wide_multiplier": a.wide_multiplier,
            "deep_multiplier": a.deep_multiplier,
            "alpha": deep_share(a, self.convention) * (1 + 1e-12),  # no less, once rounded
            "num_layers": a.num_layers,
            "d_model": a.d_model,
        }
        return Axes(**{axis: values[axis] for axis in axes_of(a.arm, mode)})  # type: ignore[arg-type]

    def solve(self, mode: SolveMode, *, target: float) -> Solution:
        """What the solver makes of it."""
        return solve(
            self.budget(mode, target=target),
            arm=self.planted.arm,
            mode=mode,
            axes=self.axes(mode),
            common=common_of(self.planted),
            ffn_multiple=self.ffn_multiple,
        )


@st.composite
def questions(draw: st.DrawFn, arm: str) -> Asked:
    """Shapes from thousands to billions of parameters, enough tokens for 0.1 %."""
    multiple = draw(st.sampled_from([1, 8, 64]))
    head_dim = draw(st.sampled_from([8, 32, 64, 128]))
    context_length = draw(st.sampled_from([64, 1000, 4096]))
    planted = Architecture(
        arm=arm,
        num_layers=draw(st.integers(1, 40)),
        num_loops=draw(st.integers(1, 8)) if arm in ("dual", "loop") else 1,
        d_model=head_dim * draw(st.integers(1, 32)),
        head_dim=head_dim,
        deep_ffn=None if arm == "wide" else multiple * draw(st.integers(1, 2000)),
        wide_ffn=multiple * draw(st.integers(1, 4000)) if arm in ("dual", "wide") else None,
        context_length=context_length,
        vocab_size=draw(st.integers(2, 60_000)),
        gate_mode=draw(st.sampled_from(get_args(GateMode))),
        loop_output=draw(st.sampled_from(get_args(LoopOutput))),
        wide_attention=draw(st.booleans()),
    )
    return Asked(
        planted=planted,
        convention=draw(st.sampled_from(CONVENTIONS)),
        tokens=context_length * draw(st.integers(600, 10**8)),
        by_layer=draw(st.booleans()),
        ffn_multiple=multiple,
    )


def one_size_up(asked: Asked, mode: SolveMode, found: Architecture) -> Architecture:
    """The solution with the derived dimension one step larger."""
    if mode == "d_model":
        wider = found.d_model + found.head_dim
        resized: dict[str, Any] = {"d_model": wider}
        for name in ("deep_ffn", "wide_ffn"):
            planted = getattr(asked.planted, name)
            if planted is not None:
                multiple = asked.ffn_multiple
                exact = planted / asked.planted.d_model * wider / multiple
                resized[name] = max(1, int(exact + 0.5)) * multiple
        return replace(found, **resized)
    wide = found.arm == "wide" or (found.arm == "dual" and mode != "deep_ffn")
    if wide:
        assert found.wide_ffn is not None
        return replace(found, wide_ffn=found.wide_ffn + asked.ffn_multiple)
    assert found.deep_ffn is not None
    return replace(found, deep_ffn=found.deep_ffn + asked.ffn_multiple)


def check_delivery(asked: Asked, solution: Solution, *, wanted: float) -> None:
    """What every solution promises, counted anew from its architecture."""
    per_token = train_flops_per_token(solution.architecture)[asked.convention]
    assert solution.train_flops == solution.tokens * per_token
    assert solution.tokens % solution.architecture.context_length == 0
    assert abs(solution.train_flops / wanted - 1) <= 0.001
    assert solution.train_flops_error == pytest.approx(solution.train_flops / wanted - 1, abs=1e-12)
    half_sequence = per_token * solution.architecture.context_length / 2
    assert abs(solution.train_flops - wanted) <= half_sequence * (1 + 1e-9)
    assert solution.forward_flops_per_token == forward_flops_per_token(solution.architecture)
    assert solution.attained_alpha == deep_share(solution.architecture, asked.convention)


@every_case
@given(st.data())
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_a_planted_shape_and_its_tokens_come_back(
    arm: str, mode: SolveMode, data: st.DataObject
) -> None:
    asked = data.draw(questions(arm))
    solution = asked.solve(mode, target=asked.target)
    assert solution.architecture == asked.planted
    assert solution.tokens == asked.tokens
    assert solution.target_flops_per_token == (
        None if mode == "tokens" else forward_flops_per_token(asked.planted)[asked.convention]
    )
    check_delivery(asked, solution, wanted=asked.train_flops)


@targeted_case
@given(st.data(), st.floats(0, 0.0049))
@settings(max_examples=25, deadline=None, derandomize=True, database=None)
def test_the_next_size_up_exceeds_the_target(
    arm: str, mode: SolveMode, data: st.DataObject, excess: float
) -> None:
    asked = data.draw(questions(arm))
    target = asked.target * (1 + excess)
    solution = asked.solve(mode, target=target)
    attained = asked.cost_of(solution.architecture)
    assert attained <= target < asked.cost_of(one_size_up(asked, mode, solution.architecture))
    if mode != "d_model":
        assert attained >= 0.995 * target
    a = asked.planted
    head = 2 * solution.architecture.d_model * a.vocab_size
    model_target = a.num_layers * target + head if asked.by_layer else target
    assert solution.target_flops_per_token == pytest.approx(model_target, rel=1e-12)
    check_delivery(asked, solution, wanted=3 * model_target * asked.tokens)


@given(st.data(), st.floats(0.05, 0.95))
@settings(max_examples=50, deadline=None, derandomize=True, database=None)
def test_deep_path_is_the_largest_within_alphas_share(data: st.DataObject, alpha: float) -> None:
    asked = data.draw(questions("dual"))
    layer_target = layer_flops_per_token(asked.planted)[asked.convention]
    try:
        solution = solve(
            Budget(
                tokens=asked.tokens,
                convention=asked.convention,
                layer_flops_per_token=layer_target,
            ),
            arm="dual",
            mode="both_ffn",
            axes=replace(asked.axes("both_ffn"), alpha=alpha),
            common=common_of(asked.planted),
            ffn_multiple=asked.ffn_multiple,
        )
    except InfeasibleError:
        return
    found = solution.architecture
    share = alpha * (layer_target - of_layer(found, "shared", asked.convention))
    assert found.deep_ffn is not None
    larger = replace(found, deep_ffn=found.deep_ffn + asked.ffn_multiple)
    deep = [of_layer(each, "deep", asked.convention) for each in (found, larger)]
    assert deep[0] <= share < deep[1]
    assert solution.nominal_alpha == alpha
    assert solution.attained_alpha <= alpha + 0.006  # the paths may stay 0.5 % below the target


@targeted_case
def test_train_flops_with_tokens_imply_the_target(arm: str, mode: SolveMode) -> None:
    solution = solve(
        Budget(train_flops=6e13, tokens=2_000_000),
        arm=arm,
        mode=mode,
        axes=point(arm, mode),
        common=COMMON,
    )
    assert solution.target_flops_per_token == 6e13 / (3 * 2_000_000)
    assert solution.forward_flops_per_token.full <= solution.target_flops_per_token
    assert abs(solution.train_flops / 6e13 - 1) <= 0.001
    assert solution.tokens >= 2_000_000 - 256


@every_case
def test_axes_of_an_arm_are_needed_and_no_others_exist(arm: str, mode: SolveMode) -> None:
    budget = Budget(train_flops=6e13, tokens=None if mode == "tokens" else 2_000_000)
    axes = point(arm, mode)
    for name, value in VALUES.items():
        if name in axes_of(arm, mode):
            without, message = replace(axes, **{name: None}), f"needs {name}"
        else:
            without, message = replace(axes, **{name: value}), f"has no {name}"
        with pytest.raises(RequestError, match=message):
            solve(budget, arm=arm, mode=mode, axes=without, common=COMMON)


def test_the_table_of_axes_covers_every_arm_and_mode() -> None:
    for arm in BUILT_IN:
        assert set(find_arm(arm).axes) == set(MODES)
        assert set(find_arm(arm).derived) == {"deep_ffn", "wide_ffn", "both_ffn"}
    assert "num_loops" not in {axis for mode in MODES for axis in axes_of("wide", mode)}
    assert "wide_multiplier" not in {axis for mode in MODES for axis in axes_of("loop", mode)}
    assert axes_of("dual", "both_ffn") == ("num_loops", "alpha", "num_layers", "d_model")


@pytest.mark.parametrize(
    ("mode", "given"),
    [
        ("tokens", {}),
        ("tokens", {"train_flops": 1e13, "tokens": 1000}),
        ("tokens", {"tokens": 1000}),
        ("tokens", {"train_flops": 1e13, "forward_flops_per_token": 1e6}),
        ("d_model", {"train_flops": 1e13}),
        ("d_model", {"tokens": 1000}),
        ("d_model", {"forward_flops_per_token": 1e6}),
        ("d_model", {"forward_flops_per_token": 1e6, "layer_flops_per_token": 1e5}),
        ("d_model", {"train_flops": 1e13, "forward_flops_per_token": 1e6, "tokens": 1000}),
    ],
)
def test_a_budget_that_says_too_little_or_too_much_is_refused(
    mode: SolveMode, given: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match=f"where {mode} (is|are) solved a budget is") as error:
        solve(Budget(**given), arm="dual", mode=mode, axes=point("dual", mode), common=COMMON)
    named = str(error.value).partition(", got ")[2]
    assert set(named.split(", ")) == (set(given) or {"nothing"})


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["train_flops", "forward_flops_per_token"])
def test_a_budget_that_is_no_cost_is_refused(name: str, value: float) -> None:
    with pytest.raises(RequestError, match=f"{name} must be positive and finite"):
        Budget(**{name: value})


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(RequestError, match="full, causal, projection, got 'flash'"):
        Budget(train_flops=1e13, convention="flash")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "values", "given", "message"),
    [
        ("tokens", {}, {"train_flops": 1e9}, r"one sequence of 256 tokens costs .* 1e\+09 full"),
        (
            "wide_ffn",
            {},
            {"forward_flops_per_token": 1e6, "tokens": 10**6},
            r"smallest wide_ffn \(8\) must not exceed the target, but at num_layers 4",
        ),
        (
            "both_ffn",
            {"alpha": 0.05},
            {"forward_flops_per_token": 1e7, "tokens": 10**6},
            r"deep path must fit its share alpha 0\.05",
        ),
        (
            "d_model",
            {},
            {"forward_flops_per_token": 1e4, "tokens": 10**6},
            r"one head of 32 channels must not exceed the target",
        ),
    ],
)
def test_an_infeasible_request_states_law_values_and_remedy(
    mode: SolveMode, values: dict[str, Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InfeasibleError, match=message) as error:
        solve(
            Budget(**given),
            arm="dual",
            mode=mode,
            axes=point("dual", mode, **values),
            common=COMMON,
        )
    assert "; use " in str(error.value)


def test_no_ffn_size_within_half_a_percent_is_infeasible_and_truly_so() -> None:
    target = 1.5e6
    axes = Axes(num_layers=2, d_model=64)
    budget = Budget(forward_flops_per_token=target, tokens=10**6)
    with pytest.raises(InfeasibleError, match="no deep_ffn that is a multiple of 256 does"):
        solve(budget, arm="standard", mode="deep_ffn", axes=axes, common=COMMON, ffn_multiple=256)
    fine = solve(budget, arm="standard", mode="deep_ffn", axes=axes, common=COMMON, ffn_multiple=4)
    costs = [
        forward_flops_per_token(replace(fine.architecture, deep_ffn=256 * size)).full
        for size in range(1, 20)
    ]
    assert not any(0.995 * target <= cost <= target for cost in costs)


def test_the_published_budget_gives_the_published_shape_on_a_finer_grid() -> None:
    solution = solve(
        Budget(layer_flops_per_token=80.22e6, tokens=38_500_000_000, convention="projection"),
        arm="dual",
        mode="both_ffn",
        axes=Axes(num_layers=16, num_loops=2, d_model=768, alpha=0.5),
        common=CommonFields(context_length=4096, vocab_size=50304),
    )
    assert solution.architecture.deep_ffn == pytest.approx(3328, abs=8)
    assert solution.architecture.wide_ffn == pytest.approx(7680, abs=16)
    assert solution.attained_alpha == pytest.approx(0.5, abs=1e-3)


@every_case
def test_solving_takes_about_a_millisecond_at_most(arm: str, mode: SolveMode) -> None:
    budget = Budget(train_flops=6e13, tokens=None if mode == "tokens" else 2_000_000)
    axes = point(arm, mode)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        solve(budget, arm=arm, mode=mode, axes=axes, common=COMMON)
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 5e-3, "a millisecond on an idle core"
