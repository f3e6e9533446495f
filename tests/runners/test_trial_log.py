"""Are means, the curve and the divergence rule exact, and does the log survive JSON?"""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from runners.trial.outcome import _warnings_of_readouts, is_finite
from runners.trial.trial_log import RunningMean, TrialLog
from search.record.numbers import outcome_numbers
from search.record.trial import Outcome, TrainingRecipe, TrialConfig
from tests.runners.small import small_architecture

LIMIT = math.log(256) + 0.5


def log_of(num_steps: int, *, warmup_fraction: float = 0.0) -> TrialLog:
    """Steps of two sequences, the last of one."""
    recipe = TrainingRecipe(learning_rate=1.0, batch_sequences=2, warmup_fraction=warmup_fraction)
    config = TrialConfig(
        architecture=small_architecture("standard"),
        tokens=16 * (2 * num_steps - 1),
        training=recipe,
        text_fingerprint="f",
        eval_sequences=1,
    )
    assert config.num_steps == num_steps
    return TrialLog(config=config)


def feed(log: TrialLog, losses: list[float]) -> TrialLog:
    for loss in losses:
        log.add_loss(loss)
    return log


def test_nothing_has_no_mean() -> None:
    assert RunningMean().value is None


def test_means_weigh_the_short_last_step_by_its_sequences() -> None:
    log = feed(log_of(3), [1.0, 2.0, 5.0])
    assert log.since_point.value == (2 * 1 + 2 * 2 + 1 * 5) / 5
    assert log.tail.value == 5.0
    assert log.tokens == 16 * 5


def test_the_tail_is_the_last_tenth_and_points_close_a_stretch() -> None:
    log = feed(log_of(40), [float(step % 4) for step in range(20)])
    log.add_point(2.5)
    assert log.tail.value is None
    feed(log, [1.0] * 16 + [2.0, 2.0, 2.0, 4.0])
    log.add_point(2.0)
    assert log.tail.value == (3 * 2 * 2.0 + 4.0) / 7
    assert [point.train_loss_nats for point in log.curve] == [1.5, (32 + 12 + 4) / 39]
    assert [point.step for point in log.curve] == [20, 40]
    assert log.curve[0].train_flops == log.curve[0].tokens * 3 * 18_944


@given(st.lists(st.floats(0, 20), min_size=1, max_size=30), st.integers(0, 29))
def test_a_log_survives_json_exactly(losses: list[float], place: int) -> None:
    whole, halves = log_of(30), log_of(30)
    for number, loss in enumerate(losses):
        for log in (whole, halves):
            log.add_loss(loss)
            if number % 7 == 6:
                log.add_point(loss)
        if number == place:
            halves = TrialLog.from_json(halves.config, json.loads(json.dumps(halves.to_json())))
    assert halves.to_json() == whole.to_json()


def test_a_step_that_is_not_finite_is_named() -> None:
    log = feed(log_of(30), [1.0, math.inf, math.nan])
    assert log.problem == "the training loss of step 2 must be finite, got inf"
    log = feed(log_of(30), [1.0])
    log.add_point(math.nan)
    assert log.problem == "the validation loss at step 1 must be finite, got nan"


def test_sixteen_steps_worse_than_nothing_are_divergence() -> None:
    log = feed(log_of(99), [1.0] * 20 + [LIMIT + 0.1] * 15)
    assert log.problem is None
    log = feed(log_of(99), [LIMIT + 0.1] * 15)
    assert log.problem is None
    assert "16 steps must stay under ln(vocab_size) + 0.5 = 6.05" in str(
        feed(log, [LIMIT + 0.1]).problem
    )
    assert feed(log_of(99), [LIMIT - 0.01] * 99).problem is None


def test_the_warmup_may_be_wild() -> None:
    log = feed(log_of(100, warmup_fraction=0.3), [9.0] * 30 + [1.0] * 15)
    assert log.problem is None
    assert feed(log_of(100, warmup_fraction=0.3), [1.0] * 30 + [9.0] * 16).problem is not None


def test_a_short_trial_is_judged_at_its_end() -> None:
    assert feed(log_of(5), [9.0] * 4).problem is None
    assert "mean training loss of 5 steps" in str(feed(log_of(5), [9.0] * 5).problem)


def test_a_readout_that_is_no_number_is_left_out_with_a_warning() -> None:
    finite, lost = (0.5, 0.25), (0.5, float("nan"))
    assert is_finite(finite)
    assert not is_finite(lost)
    assert _warnings_of_readouts({"deep_share": lost, "gate_entropy_nats": finite}) == [
        "deep_share is no number in some layer, and is left out"
    ]
    older = Outcome(status="complete", loss_nats=3.0, readouts={"deep_share": lost})
    assert outcome_numbers(older) == {"loss_nats": 3.0}
