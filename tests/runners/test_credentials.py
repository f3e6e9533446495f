"""A tracking server's password reaches MLflow, and nothing that anybody sees."""

from __future__ import annotations

import base64
import http.server
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from runners.mlflow.credentials import HTTP, POSTGRESQL, take_credentials
from runners.mlflow.projection_thread import ProjectionThread
from tests.sweeps import open_ledger, toy_experiment

PASSWORD = "s3:cr@t/w'o rd"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HTTP, *POSTGRESQL):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("written", [PASSWORD, quote(PASSWORD, safe="")])
def test_user_and_password_are_taken_out(written: str) -> None:
    assert take_credentials(f"http://me:{written}@host:5000/x") == "http://host:5000/x"
    assert [os.environ[name] for name in HTTP] == ["me", PASSWORD]
    assert take_credentials(f"postgresql+psycopg2://me:{written}@db/m") == (
        "postgresql+psycopg2://db/m"
    )
    assert [os.environ[name] for name in POSTGRESQL] == ["me", PASSWORD]


def test_what_an_older_release_masked_does_not_become_the_password() -> None:
    os.environ[HTTP[0]] = "me"
    assert take_credentials("https://***@host/x") == "https://host/x"
    assert os.environ[HTTP[0]] == "me"


@pytest.mark.parametrize("uri", ["sqlite:////home/me@work/m.sqlite", "http://host", "databricks"])
def test_an_address_without_them_stays(uri: str) -> None:
    assert take_credentials(uri) == uri


class Refusing(http.server.BaseHTTPRequestHandler):
    """A tracking server that notes who asks, and refuses."""

    seen: list[str]

    def _refuse(self) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        body = json.dumps({"error_code": "INVALID_PARAMETER_VALUE", "message": "no"}).encode()
        self.send_response(400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _refuse

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[http.server.ThreadingHTTPServer]:
    Refusing.seen = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def test_mlflow_signs_in_and_no_word_holds_the_password(
    server: http.server.ThreadingHTTPServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = take_credentials(f"http://me:{PASSWORD}@127.0.0.1:{server.server_port}")
    ledger = open_ledger(tmp_path, toy_experiment())
    thread = ProjectionThread(ledger, "toy", tracking_uri=uri)
    thread.start()
    problem = thread.finish(interrupted=True, timeout_seconds=1.0)
    deadline = time.monotonic() + 20
    while not Refusing.seen and time.monotonic() < deadline:
        time.sleep(0.1)
    given = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert Refusing.seen[:1] == [f"Basic {given}"]
    ledger.close()
    kept = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    out, err = capfd.readouterr()
    for words in (out, err, str(problem), kept.decode(errors="replace")):
        assert "s3:cr" not in words
        assert PASSWORD not in words
        assert quote(PASSWORD, safe="") not in words
