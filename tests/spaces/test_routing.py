"""Do readouts of gates and routers give back what a model was made to do?"""

from __future__ import annotations

import math

import pytest
import torch

from spaces.arms.contract import find_arm
from spaces.arms.routing import (
    LARGEST_LOGIT,
    collapsed_layers_share,
    read_gates,
    read_router,
)
from spaces.model import LanguageModel
from tests.runners.small import small_architecture


def test_gates_give_their_logits_and_closed_shares_back() -> None:
    logits = torch.tensor([[-4.0, 0.0], [0.5, -1.0], [12.0, -12.0]])
    found = read_gates(torch.sigmoid(logits)[None, None])
    deep, wide = logits.unbind(-1)
    torch.testing.assert_close(found["deep_gate_logit"][0, 0], deep, rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(found["wide_gate_logit_squared"][0, 0], wide**2, rtol=1e-3, atol=0)
    assert found["deep_closed_share"].flatten().tolist() == [1, 0, 0]
    assert found["wide_closed_share"].flatten().tolist() == [0, 0, 1]
    extreme = read_gates(torch.tensor([[[[1.0, 0.0]]]]))
    assert extreme["deep_gate_logit"].item() == pytest.approx(LARGEST_LOGIT, abs=0.1)
    assert extreme["wide_gate_logit"].item() == pytest.approx(-LARGEST_LOGIT, abs=0.1)


def test_loop_weights_give_the_logits_of_stopping_back() -> None:
    stop = torch.sigmoid(torch.tensor([-2.0, 1.0]))
    weights = torch.stack([stop[0], (1 - stop[0]) * stop[1], (1 - stop[0]) * (1 - stop[1])])
    found = read_router(weights.view(1, 1, 1, 3))
    assert found["router_logit"].item() == pytest.approx(-0.5, abs=1e-5)
    assert found["router_logit_squared"].item() == pytest.approx(2.5, rel=1e-5)
    assert found["expected_loops"].item() == pytest.approx((weights * torch.arange(1, 4)).sum())


def test_a_router_that_always_stops_has_finite_logits() -> None:
    found = read_router(torch.tensor([1.0, 0.0, 0.0]).view(1, 1, 1, 3))
    assert all(value.isfinite().all() for value in found.values())


@pytest.mark.parametrize(
    ("deep", "wide", "share"), [([0.95, 0.2], [0, 0.1], 0.5), ([0.94], [0.06], 0), ([0], [1], 1)]
)
def test_a_path_has_collapsed_where_hardly_any_token_takes_it(
    deep: list[float], wide: list[float], share: float
) -> None:
    found = collapsed_layers_share({"deep_closed_share": deep, "wide_closed_share": wide})
    assert found == share


def test_what_has_no_gates_has_no_collapse() -> None:
    assert collapsed_layers_share({"expected_loops": (1.5,)}) is None


@pytest.mark.parametrize(
    ("arm", "changes", "without"),
    [
        ("dual", {"num_loops": 1}, "router_logit"),
        ("dual", {"loop_output": "final"}, "expected_loops"),
        ("loop", {"loop_output": "average"}, "expected_loops"),
        ("dual", {"gate_mode": "fixed"}, None),
        ("dual", {"gate_mode": "softmax"}, None),
    ],
)
def test_a_model_reads_what_its_architecture_promises(
    arm: str, changes: dict[str, object], without: str | None
) -> None:
    architecture = small_architecture(arm, **changes)
    model = LanguageModel(architecture, seed=1)
    with torch.no_grad():
        _, readings = model.hidden_with_readings(torch.zeros(1, 8, dtype=torch.long))
        values = model.arm.read(readings)
    names = [readout.name for readout in find_arm(arm).readouts_of(architecture)]
    assert list(values) == names
    assert without not in names
    assert all(math.isfinite(value.sum()) for value in values.values())
