"""What a person sees in MLflow: the saved view is undocumented, so a real browser guards it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from experiments.cli import run
from runners.mlflow.run_rows import run_name
from runners.mlflow.saved_view import budget_view_key, plain_link, view_link
from search.record.ledger import Ledger
from tests.experiments.toy import write_toy

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1800,1000",
    "--virtual-time-budget=30000",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, list[str]]]:
    """Address of the UI, the experiment's id, and the names of the finished runs."""
    if shutil.which("chromium") is None:
        pytest.skip("Debian's chromium is not installed")
    folder = tmp_path_factory.mktemp("browser")
    home = folder / "home"
    assert run(["sweep", write_toy(folder), "--home", str(home)]) == 0
    ledger = Ledger(home)
    sweep, records = ledger.sweep("toy"), ledger.trials("toy")
    ledger.close()
    assert sweep.mlflow_experiment_id is not None
    names = [run_name(record) for record in records]
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "experiments", "ui", "--home", str(home), "--port", str(port)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}", sweep.mlflow_experiment_id, names
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(address: str, *, seconds: float = 90) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def page_text(address: str, folder: Path) -> str:
    """The document as a browser has built it."""
    done = subprocess.run(
        ["chromium", *CHROMIUM_OPTIONS, f"--user-data-dir={folder}", "--dump-dom", address],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def test_the_saved_view_opens_sorted_and_filtered(
    served: tuple[str, str, list[str]], tmp_path: Path
) -> None:
    server, experiment, names = served
    page = page_text(view_link(server, experiment), tmp_path)
    assert "Best per budget" in page
    assert "rank_in_budget" in page
    assert "bits_per_byte" in page
    assert all(name in page for name in names)


def test_a_budget_has_a_view_of_its_own(served: tuple[str, str, list[str]], tmp_path: Path) -> None:
    server, experiment, names = served
    budgets = {name.split()[0] for name in names}
    one, *_ = sorted(budgets)
    page = page_text(view_link(server, experiment, budget_view_key(float(one))), tmp_path)
    assert f"Best at {one} FLOPs" in page
    for name in names:
        assert (name in page) == (name.split()[0] == one), name


def test_the_plain_link_works_without_the_view(
    served: tuple[str, str, list[str]], tmp_path: Path
) -> None:
    server, experiment, names = served
    page = page_text(plain_link(server, experiment), tmp_path)
    assert all(name in page for name in names)


def test_only_its_own_page_may_change_what_it_holds(served: tuple[str, str, list[str]]) -> None:
    server, experiment, _ = served

    def renamed(**headers: str) -> int:
        request = urllib.request.Request(
            f"{server}/api/2.0/mlflow/experiments/set-experiment-tag",
            data=json.dumps({"experiment_id": experiment, "key": "by", "value": "us"}).encode(),
            headers={"Content-Type": "application/json", **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            refused.close()
            return refused.code

    assert renamed() == 200  # a program of this machine
    assert renamed(Origin=server) == 200  # the page itself
    assert renamed(Origin="http://127.0.0.1:9999") == 403
    assert renamed(Origin="http://localhost:3000") == 403
    assert renamed(**{"Sec-Fetch-Site": "same-site"}) == 403
    assert renamed(Origin="https://elsewhere.example") == 403


def test_a_foreign_host_is_refused(served: tuple[str, str, list[str]]) -> None:
    server, _, _ = served
    request = urllib.request.Request(server, headers={"Host": "elsewhere.example"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    refused.value.close()
    assert refused.value.code == 403
