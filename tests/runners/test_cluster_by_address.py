"""A sweep by address on two nodes of `ray start`, one of which has neither home, text nor isoflop.

The bare node runs in a mount namespace of its own, where an empty disk lies over the home, with
another HOME, another folder to work in, and a Python that finds no isoflop.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.toolbox import ROOT, TOML, read_rows, wait_until, write_toy

pytestmark = [pytest.mark.faults, pytest.mark.slow]

NO_ISOFLOP = f"""
import sys
sys.path = [each for each in sys.path if each not in ("", {str(ROOT)!r})]
sys.meta_path = [each for each in sys.meta_path if "isoflop" not in getattr(each, "__module__", "")]
"""
BARE = TOML.replace("save_weights = true", "").replace('pool = "inline"', 'pool = "ray"')
OWN_ARM = ROOT / "docs" / "examples" / "parallel_arm.py"


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path: sockets lie in it."""
    folder = Path(tempfile.mkdtemp(prefix="isoc", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    return kept | token | {"OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def start(place: Path, environment: dict[str, str]) -> Iterator[Callable[..., None]]:
    """Starts a node with `ray start --block`; all of them end with the test."""
    nodes: list[subprocess.Popen[bytes]] = []
    ray = str(Path(sys.executable).parent / "ray")

    def make(*words: str, before: tuple[str, ...] = (), **more: str) -> None:
        command = [*before, ray, "start", "--block", "--node-ip-address", "127.0.0.1", *words]
        command += ["--dashboard-agent-listen-port", "0", "--disable-usage-stats"]
        with (place / f"node-{len(nodes)}").open("w") as said:
            node = subprocess.Popen(
                command,
                env=environment | more,
                cwd=more.get("HOME", str(place)),
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        nodes.append(node)

    yield make
    for node in reversed(nodes):
        node.send_signal(signal.SIGTERM)  # it ends what it started
        try:
            node.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(node.pid, signal.SIGKILL)
            node.wait()


@pytest.fixture
def head(place: Path, start: Callable[..., None]) -> str:
    """The address of a head that trains nothing."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
    start(
        *("--head", "--port", str(port), "--num-cpus", "0", "--include-dashboard", "false"),
        *("--temp-dir", str(place / "r")),
    )
    wait_until(lambda: _listens(port), what="the head")
    return f"127.0.0.1:{port}"


@pytest.fixture
def start_bare(
    place: Path, start: Callable[..., None], head: str, environment: dict[str, str]
) -> Callable[[], None]:
    """Starts the node that has nothing of ours."""
    own = place / "own"
    (own / "python").mkdir(parents=True)
    (own / "python" / "sitecustomize.py").write_text(NO_ISOFLOP)
    looks = [sys.executable, "-c", "import spaces"]
    bare = environment | {"PYTHONPATH": str(own / "python")}
    assert subprocess.run(looks, cwd=own, env=bare, capture_output=True).returncode == 1
    (place / "shared").mkdir()
    hide = f'mount -t tmpfs tmpfs {place / "shared"} && exec "$@"'
    before = ("unshare", "-m", "sh", "-c", hide, "sh")
    try:
        done = subprocess.run([*before, "true"], capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no mount namespace: {error}")
    if done.returncode:
        pytest.skip(f"no mount namespace: {done.stderr.strip()}")
    return lambda: start(
        *("--address", head, "--num-cpus", "1"),
        before=before,
        HOME=str(own),
        PYTHONPATH=str(own / "python"),
    )


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def sweep(place: Path, head: str, environment: dict[str, str], toml: str, *words: str) -> list[str]:
    """The command that a person gives, with the home in the folder that only some nodes see."""
    toy = write_toy(place / "shared" / "toy", toml=toml)
    argv = [sys.executable, "-m", "experiments", "sweep", str(toy), "--workers.count", "1"]
    return [*argv, "--home", str(place / "shared" / "runs"), "--workers.address", head, *words]


def test_a_node_without_home_text_or_isoflop_trains(
    place: Path, head: str, start_bare: Callable[[], None], environment: dict[str, str]
) -> None:
    start_bare()
    time.sleep(8.0)
    toml = BARE.replace('"standard"]', '"standard", "parallel"]')
    words = ("--trials", "4", "--arms-from", str(OWN_ARM))
    command = sweep(place, head, environment, toml, *words)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "the text is sent to it" in done.stderr
    ledger = place / "shared" / "runs" / "ledger.sqlite"
    states = read_rows(ledger, "SELECT state, count(*) FROM attempts GROUP BY state")
    assert [state for state, _ in states] == ["complete"]
    cache = place / "own" / ".cache" / "isoflop"
    assert list((cache / "text").glob("prepared-*.json"))
    assert not list((cache / "attempts").glob("*/*"))  # ended trials leave nothing there
    assert {each.stat().st_mode & 0o777 for each in cache.iterdir()} == {0o700}


def test_kept_weights_need_a_home_that_the_node_sees(
    place: Path, head: str, start_bare: Callable[[], None], environment: dict[str, str]
) -> None:
    start_bare()
    time.sleep(8.0)
    toml = TOML.replace('pool = "inline"', 'pool = "ray"')
    done = subprocess.run(
        sweep(place, head, environment, toml),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done.stderr[-3000:]
    assert "with training.save_weights every machine must see the home" in done.stderr
    ledger = place / "shared" / "runs" / "ledger.sqlite"
    assert read_rows(ledger, "SELECT count(*) FROM attempts") == [(0,)]


def test_a_machine_that_is_no_node_is_told_how_to_become_one(
    place: Path, head: str, start_bare: Callable[[], None], environment: dict[str, str]
) -> None:
    """In a process namespace of its own the driver sees no node of Ray, as on a laptop."""
    alone = ("unshare", "-p", "-f", "--mount-proc")
    if subprocess.run((*alone, "true"), capture_output=True).returncode:
        pytest.skip("no process namespace")
    done = subprocess.run(
        (*alone, *sweep(place, head, environment, BARE)),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert f"`ray start --address {head} --num-cpus 0 --num-gpus 0`" in done.stderr
