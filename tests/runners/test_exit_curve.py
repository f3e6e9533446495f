"""Are early exits measured on what was trained on, timed, counted, and dealt out fairly?"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from runners.probes import exit_curve
from runners.probes.early_exit import EVERY_TOKEN, NO_TOKEN, By, Threshold
from runners.probes.exit_curve import (
    SCHEMA,
    measure_exits,
    require_counted,
    shuffled,
    usual_thresholds,
)
from spaces.arms.early_exit import early_exit_pass
from spaces.certificate import CounterDisagreementError
from spaces.price import Pass
from tests.runners.test_early_exit import leaving_model
from tests.runners.test_interventions import routing_model, some_tokens


@pytest.mark.parametrize(
    ("arm", "changes", "by"),
    [
        ("dual", {"wide_attention": False}, "gate"),
        ("dual", {"gate_mode": "convex", "loop_output": "average"}, "gate"),
        ("dual", {"num_loops": 3}, "router"),
        ("loop", {}, "router"),
    ],
)
def test_the_pass_that_runs_is_the_pass_that_is_priced(
    arm: str, changes: dict[str, object], by: By
) -> None:
    model = routing_model(arm, **changes)
    for threshold in (EVERY_TOKEN, 0.15, 0.5, 0.58, 0.6, NO_TOKEN):
        require_counted(model, some_tokens(1), Threshold(by=by, threshold=threshold))


def test_a_price_that_is_wrong_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    def dearer(*arguments: object) -> Pass:
        return early_exit_pass(*arguments) + Pass(products=2)  # type: ignore[arg-type]

    monkeypatch.setattr(exit_curve, "early_exit_pass", dearer)
    with pytest.raises(CounterDisagreementError, match="correct spaces/arms/early_exit"):
        require_counted(routing_model(), some_tokens(1), Threshold(by="gate", threshold=0.5))


def test_random_exits_have_the_same_histogram_everywhere() -> None:
    loops = np.random.default_rng(0).integers(0, 4, size=(2, 5, 16))
    other = shuffled(loops, torch.Generator().manual_seed(1))
    assert not np.array_equal(loops, other)
    np.testing.assert_array_equal(np.sort(loops, axis=-1), np.sort(other, axis=-1))


def test_thresholds_span_the_score_and_rows_hold_every_rule() -> None:
    model, tokens = leaving_model("dual"), some_tokens(5)
    batches = [(each, each.roll(-1, 1)) for each in torch.split(tokens, [3, 2])]
    thresholds = usual_thresholds(model, batches, "gate")
    assert (thresholds[0], thresholds[-1], len(thresholds)) == (EVERY_TOKEN, NO_TOKEN, 7)
    rows = measure_exits(model, batches, {"gate": thresholds[:3]}, name="a run", draws=2)
    assert dict(rows.schema) == SCHEMA
    assert rows.height == 5 * (1 + 3 + 2 * 2), "none is random where all tokens stay"
    nats = {key[0]: each["nats"].to_numpy() for key, each in rows.filter(
        rows["threshold"] == EVERY_TOKEN).group_by("by")}  # fmt: skip
    np.testing.assert_allclose(nats["model"], nats["gate"], rtol=1e-6)
    assert rows.filter(rows["draw"].is_null())["microseconds_per_token"].min() > 0
    assert rows.filter(rows["draw"].is_not_null())["microseconds_per_token"].null_count() == 20
