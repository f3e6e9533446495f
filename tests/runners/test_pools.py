"""Both pools keep one contract: reports of an attempt, a stop, failures as news, not as crashes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runners.pools.contract import (
    Assignment,
    Pool,
    Report,
    WorkerLost,
    WorkerOptions,
)
from runners.pools.inline_pool import InlinePool
from runners.pools.pack import _ending
from runners.text.corpus import Corpus
from search.record.trial import Outcome, Progress
from spaces.errors import RequestError
from tests.runners.small import small_trial

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(params=["inline", pytest.param("ray", marks=pytest.mark.faults)], scope="module")
def pool(request: pytest.FixtureRequest, sotu_corpus: Corpus) -> Iterator[Pool]:
    """One worker of each kind."""
    options = WorkerOptions(
        corpus=sotu_corpus, device="cpu", num_threads=1, checkpoint_seconds=60.0
    )
    made: Pool
    if request.param == "inline":
        made = InlinePool(options)
    else:
        from runners.pools.ray_pool import RayPool

        made = RayPool(options, num_workers=1, cpus_each=1)
    yield made
    made.close()


@pytest.fixture
def attempt(sotu_corpus: Corpus, tmp_path: Path) -> Assignment:
    return Assignment(
        attempt_id=7,
        config=small_trial(sotu_corpus),
        checkpoint_dir=tmp_path / "checkpoints",
        weights_path=None,
    )


def wait_for_place(pool: Pool) -> None:
    """A worker takes work once it has said where it is."""
    until = time.monotonic() + 120
    while not pool.has_place():
        assert time.monotonic() < until
        time.sleep(0.1)


def run(pool: Pool, attempt: Assignment, *, hear: Callable[[Report], None]) -> Report:
    """The last report of an attempt."""
    wait_for_place(pool)
    pool.assign(attempt)
    assert not pool.has_place()
    while True:
        for report in pool.reports(timeout_seconds=30.0):
            assert report.attempt_id == attempt.attempt_id
            hear(report)
            if isinstance(report.content, Outcome | WorkerLost):
                wait_for_place(pool)
                assert pool.num_workers == 1
                return report


def test_progress_and_then_one_outcome(pool: Pool, attempt: Assignment) -> None:
    heard: list[Report] = []
    last = run(pool, attempt, hear=heard.append)
    assert isinstance(last.content, Outcome)
    assert last.content.status == "complete"
    assert all(isinstance(report.content, Progress) for report in heard[:-1])
    assert len(heard) > 1
    assert heard[0].pid > 0
    assert pool.reports(timeout_seconds=0.01) == []


def test_a_stopped_attempt_saves_and_the_next_goes_on_to_the_same_result(
    pool: Pool, attempt: Assignment
) -> None:
    whole = run(pool, attempt, hear=lambda _: None).content
    pool.assign(replace(attempt, attempt_id=8))
    pool.stop(8, "preempted")
    first: list[Report] = []
    while not first or not isinstance(first[-1].content, Outcome):
        first += pool.reports(timeout_seconds=30.0)
    stopped = first[-1].content
    assert isinstance(stopped, Outcome)
    assert isinstance(whole, Outcome)
    if stopped.status == "preempted":
        assert stopped.steps < attempt.config.num_steps
    again = run(pool, replace(attempt, attempt_id=9), hear=lambda _: None).content
    assert isinstance(again, Outcome)
    assert again.loss_nats == whole.loss_nats


def test_more_devices_than_a_worker_has_are_a_wrong_request(
    pool: Pool, attempt: Assignment
) -> None:
    with pytest.raises(RequestError, match="a worker has one device, but 2 are asked for"):
        pool.assign(replace(attempt, num_devices=2))
    assert pool.has_place()


def test_a_killed_worker_is_lost_and_replaced(
    pool: Pool, attempt: Assignment, sotu_corpus: Corpus
) -> None:
    if isinstance(pool, InlinePool):
        return  # its worker is this very process
    longer = replace(attempt, config=small_trial(sotu_corpus, tokens=16 * 4000))
    last = run(pool, longer, hear=_kill_worker)
    assert isinstance(last.content, WorkerLost)
    assert "the worker died" in last.content.reason
    assert isinstance(run(pool, attempt, hear=lambda _: None).content, Outcome)


def test_another_text_is_a_wrong_request(pool: Pool, attempt: Assignment) -> None:
    config = replace(attempt.config, text_fingerprint="0" * 64)
    pool.assign(replace(attempt, config=config))
    with pytest.raises(RequestError, match="trains on its own text"):
        pool.reports(timeout_seconds=60.0)


def _kill_worker(report: Report) -> None:
    if isinstance(report.content, Progress):
        with contextlib.suppress(ProcessLookupError):
            os.kill(report.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "preempted"),
        (OSError(errno.EIO, "Input/output error"), "lost"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore"), "lost"),
        (RuntimeError("a bug"), "failed"),
    ],
)
def test_an_error_is_news_of_the_attempt(error: Exception, kind: str) -> None:
    last = Progress(step=3, steps=9, tokens=96, resumed_tokens=32)
    ending = _ending(error, last)
    if isinstance(ending, WorkerLost):
        assert kind == "lost"
        assert str(error).splitlines()[0] in ending.reason
    else:
        assert (ending.status, ending.steps, ending.tokens, ending.resumed_tokens) == (
            kind,
            3,
            96,
            32,
        )
        assert str(error) in (ending.reason or "")
