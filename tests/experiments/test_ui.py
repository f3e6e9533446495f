"""``isoflop ui``: a port that is taken is refused, and nothing is left behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.cli import run
from experiments.verbs.ui import free_port
from runners.mlflow.database import create_database
from spaces.errors import RequestError

pytestmark = pytest.mark.filterwarnings("default")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty MLflow database."""
    folder = tmp_path_factory.mktemp("ui")
    create_database(folder / "mlflow.sqlite")
    return folder


def test_a_taken_port_is_refused_before_a_word(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run(["ui", "--home", str(home), "--port", str(port)]) == 2
    said = capfd.readouterr().err
    assert f"port {port} of 127.0.0.1 cannot be served" in said
    assert "http://" not in said


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(RequestError, match="--port"):
        free_port(port)


def test_zero_is_any_free_port() -> None:
    assert free_port(0) > 0


@pytest.fixture
def served(home: Path, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The UI, once it says where it is."""
    said = tmp_path / "said"
    command = [sys.executable, "-m", "experiments", "ui", "--home", str(home), "--port", "0"]
    with said.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
    deadline = time.monotonic() + 120
    while (found := re.search(r"http://127.0.0.1:(\d+)", said.read_text())) is None:
        assert process.poll() is None, said.read_text()
        assert time.monotonic() < deadline, said.read_text()
        time.sleep(0.1)
    with socket.create_connection(("127.0.0.1", int(found[1])), timeout=5):
        pass
    yield process
    if process.poll() is None:
        process.terminate()
    process.wait(timeout=30)


def processes_of(home: Path) -> list[str]:
    """Command lines that name the home."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if str(home) in words:
                found.append(words.replace("\0", " "))
    return found


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGKILL, -9)]
)
def test_nothing_is_left_behind(
    served: subprocess.Popen[bytes], home: Path, number: signal.Signals, code: int
) -> None:
    assert len(processes_of(home)) > 1
    served.send_signal(number)
    assert served.wait(timeout=30) == code
    deadline = time.monotonic() + 15
    while processes_of(home) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert processes_of(home) == []
