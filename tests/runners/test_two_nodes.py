"""What Ray loses is not charged to trials: raylets and the head killed, on two nodes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runners.pools import ray_pool
from runners.pools.contract import Assignment, Report, WorkerLost, WorkerOptions
from runners.text.corpus import Corpus
from search.record.trial import Progress
from spaces.arms.registry import ArmFile
from tests.runners.small import small_trial

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that holds no worker."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield made
    made.shutdown()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def open_pool(
    cluster: Any, sotu_corpus: Corpus, said: list[str]
) -> Iterator[Callable[..., ray_pool.RayPool]]:
    pools = []

    def make(count: int, **changes: Any) -> ray_pool.RayPool:
        options = WorkerOptions(
            corpus=sotu_corpus, device="cpu", num_threads=1, checkpoint_seconds=60.0
        )
        options = replace(options, **changes)
        pool = ray_pool.RayPool(
            options,
            num_workers=count,
            cpus_each=1,
            address=cluster.address,
            insecure=True,
            say=said.append,
        )
        pools.append(pool)
        return pool

    yield make
    for pool in pools:
        pool.close()


def wait_for(true: Callable[[], bool], *, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true"
        time.sleep(0.2)


def hear(pool: ray_pool.RayPool, kind: type) -> Report:
    """The next report of a kind."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        for report in pool.reports(timeout_seconds=1.0):
            if isinstance(report.content, kind):
                return report
    raise AssertionError(f"no {kind.__name__} came")


def kill(node: Any, kind: str) -> None:
    for each in node.all_processes[kind]:
        os.kill(each.process.pid, signal.SIGKILL)


def long_trial(corpus: Corpus, folder: Path) -> Assignment:
    return Assignment(
        attempt_id=7,
        config=small_trial(corpus, tokens=16 * 40000),
        checkpoint_dir=folder / "checkpoints",
        weights_path=None,
    )


def test_a_killed_raylet_costs_no_try_and_a_node_that_comes_is_used(
    cluster: Any,
    open_pool: Callable[[int], ray_pool.RayPool],
    said: list[str],
    sotu_corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_pool, "PLACE_SECONDS", 1.0)
    node = cluster.add_node(num_cpus=1)
    pool = open_pool(1)
    wait_for(pool.has_place)
    assignment = long_trial(sotu_corpus, tmp_path)
    pool.assign(assignment)
    hear(pool, Progress)
    kill(node, "raylet")
    lost = hear(pool, WorkerLost).content
    assert isinstance(lost, WorkerLost)
    assert lost.with_its_machine
    wait_for(lambda: not pool.has_place() and any("no machine" in line for line in said))
    assert len([line for line in said if "no machine" in line]) == 1
    assert pool.num_workers == 0
    cluster.add_node(num_cpus=1)
    wait_for(pool.has_place)
    assert "a machine came: 1 of 1 workers run" in said
    pool.assign(replace(assignment, attempt_id=8))
    assert hear(pool, Progress).attempt_id == 8


def test_with_no_machine_left_the_pool_says_what_to_do(
    cluster: Any,
    open_pool: Callable[[int], ray_pool.RayPool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    node = cluster.add_node(num_cpus=1)
    pool = open_pool(1)
    wait_for(pool.has_place)
    monkeypatch.setattr(ray_pool, "WORKERLESS_SECONDS", 3.0)
    kill(node, "raylet")
    wait_for(lambda: pool.outage is not None)
    assert "ray start --address" in str(pool.outage)


def test_a_killed_head_says_so_before_ray_ends_the_process(
    cluster: Any,
    open_pool: Callable[[int], ray_pool.RayPool],
    sotu_corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_pool, "HEAD_SECONDS", 2.0)
    cluster.add_node(num_cpus=1)
    pool = open_pool(1)
    wait_for(pool.has_place)
    pool.assign(long_trial(sotu_corpus, tmp_path))
    hear(pool, Progress)
    kill(cluster.head_node, "gcs_server")
    lost = hear(pool, WorkerLost).content
    assert isinstance(lost, WorkerLost)
    assert lost.with_its_machine
    assert "does not answer" in str(pool.outage)


def test_a_machine_that_cannot_read_the_text_says_which_file(
    cluster: Any, open_pool: Any, sotu_corpus: Corpus, tmp_path: Path
) -> None:
    cluster.add_node(num_cpus=1)
    pool = open_pool(1, corpus=replace(sotu_corpus, train_path=tmp_path / "not_here.npy"))
    wait_for(lambda: pool.outage is not None)
    assert "not_here.npy) did not reach a machine" in str(pool.outage)
    assert "put the home into a folder that every machine" in str(pool.outage)
    assert not pool.has_place()


def test_workers_that_cannot_start_end_the_sweep_in_words(cluster: Any, open_pool: Any) -> None:
    cluster.add_node(num_cpus=1)
    pool = open_pool(1, arm_files=(ArmFile(name="own", text="import no_such_library\n"),))
    wait_for(lambda: pool.outage is not None)
    assert "workers cannot start on the Ray cluster" in str(pool.outage)
    assert "no_such_library" in str(pool.outage)
