"""Where does a home's Ray live, and is there one to join? Refused in words and seconds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runners.pools import ray_address
from runners.pools.contract import WorkerOptions
from runners.pools.inline_pool import InlinePool
from runners.pools.ray_address import host_of, is_this_machine, require_cluster
from runners.pools.ray_scratch import LONGEST, clear_ray_scratch, ray_scratch
from runners.text.corpus import Corpus
from spaces.errors import RequestError


def set_tmpdir(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(folder))


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of one's own with a short path, as TMPDIR and as the system's; `tmp_path`
    comes first, since all others of the session lie beside it."""
    folder = Path(f"/tmp/t{os.getpid()}")
    set_tmpdir(monkeypatch, folder)
    monkeypatch.setattr("runners.pools.ray_scratch.SYSTEM_FOLDERS", (folder,))
    yield folder
    for each in sorted(folder.rglob("*"), reverse=True):
        each.unlink() if each.is_symlink() or each.is_file() else each.rmdir()
    folder.rmdir()


def test_a_short_temporary_folder_is_taken(short: Path, tmp_path: Path) -> None:
    scratch = ray_scratch(tmp_path)
    assert scratch.is_relative_to(short)
    assert scratch == ray_scratch(tmp_path)
    assert scratch != ray_scratch(tmp_path / "other")
    assert scratch.parent.stat().st_mode & 0o777 == 0o700


def test_a_long_one_is_passed_over(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_tmpdir(monkeypatch, tmp_path / "var/folders/x1/abcdefghijklmnopqrstuvwxyz0123456789/T")
    scratch = ray_scratch(tmp_path)
    assert scratch.is_relative_to(short)
    assert len(str(scratch)) <= LONGEST


def test_what_lets_others_in_is_closed(short: Path, tmp_path: Path) -> None:
    parent = ray_scratch(tmp_path).parent
    parent.chmod(0o777)
    assert ray_scratch(tmp_path).parent.stat().st_mode & 0o777 == 0o700


def test_somebody_elses_folder_is_not_taken(
    short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = ray_scratch(tmp_path)
    scratch.mkdir()
    (scratch / "theirs").write_text("kept")
    scratch.parent.rename(short / "aside")
    scratch.parent.symlink_to(short / "aside")
    with pytest.raises(RequestError, match="a folder of your own"):
        ray_scratch(tmp_path)
    clear_ray_scratch(tmp_path)
    assert (scratch / "theirs").read_text() == "kept"
    scratch.parent.unlink()
    (short / "aside").rename(scratch.parent)
    monkeypatch.setattr("os.getuid", lambda: 12345)
    (short / "isoflop-12345").mkdir()
    with pytest.raises(RequestError, match="TMPDIR"):
        ray_scratch(tmp_path)


def test_what_a_killed_driver_left_is_removed(short: Path, tmp_path: Path) -> None:
    scratch = ray_scratch(tmp_path)
    (scratch / "session").mkdir(parents=True)
    clear_ray_scratch(tmp_path)
    assert not scratch.exists()


@pytest.mark.parametrize(
    "address",
    ["", "nothing", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "http://a:1", "a:1/b", ":6379"],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(RequestError, match="HOST:PORT"):
        require_cluster(address)


def test_addresses_name_hosts() -> None:
    assert host_of("10.0.0.1:6379") == "10.0.0.1"
    assert host_of("[::1]:6379") == "::1"


def test_a_place_where_nothing_listens_is_refused_in_seconds() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = time.monotonic()
    with pytest.raises(RequestError, match=f"no Ray cluster can be joined at 127.0.0.1:{port}"):
        require_cluster(f"127.0.0.1:{port}")
    assert time.monotonic() - before < 10


def test_what_listens_but_is_no_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "ANSWER_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # takes calls, and never says a word
        address = f"127.0.0.1:{server.getsockname()[1]}"
        before = time.monotonic()
        with pytest.raises(RequestError, match="no answer within 3 s"):
            require_cluster(address)
        assert time.monotonic() - before < 15


def test_more_workers_than_cores_are_refused_with_the_numbers(
    sotu_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    from runners.pools.ray_pool import RayPool

    options = WorkerOptions(
        corpus=sotu_corpus, device="cpu", num_threads=1, checkpoint_seconds=60.0
    )
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for num_workers, cpus_each, asked in ((50, 1, 50), (2, 3, 6), (None, 4, 4)):
        with pytest.raises(RequestError, match=f"{asked} in all, but it has 2"):
            RayPool(options, num_workers=num_workers, cpus_each=cpus_each)
    with pytest.raises(RequestError, match="3 in all, but it has 2"):
        InlinePool(replace(options, num_threads=3))


def test_rays_client_is_refused_in_words() -> None:
    with pytest.raises(RequestError, match=r"ray://\*\*\*@h:10001 names Ray's client"):
        require_cluster("ray://me:secret@h:10001")


def test_own_addresses_are_told_from_others() -> None:
    assert is_this_machine("127.0.0.1")
    assert is_this_machine("localhost")
    assert not is_this_machine("203.0.113.9")


def test_auto_is_resolved_before_it_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    from runners.pools.ray_pool import require_authentication, resolve_address

    monkeypatch.setenv("RAY_ADDRESS", "203.0.113.9:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert resolve_address("auto") == "203.0.113.9:6379"
    with pytest.raises(RequestError, match="--insecure"):
        require_authentication(resolve_address("auto"))


OPEN_CLUSTER = """
from ray.cluster_utils import Cluster
from runners.pools.ray_address import takes_anybody
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
try:
    found = takes_anybody(cluster.address)
finally:
    cluster.shutdown()
raise SystemExit(not found)
"""


@pytest.mark.faults
@pytest.mark.slow
def test_a_cluster_without_a_token_takes_anybody() -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ended = subprocess.run([sys.executable, "-c", OPEN_CLUSTER], env=others, timeout=300)
    assert ended.returncode == 0
