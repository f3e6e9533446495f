"""A real MLflow server behind a door that can be shut, slow, or answer 500."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Self
from urllib.request import urlopen

from tests.faults.toolbox import wait_until

REFUSAL = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy:
    """Passes connections on to an MLflow server, as its ``mode`` says: well, slow, 500 or down."""

    def __init__(self, database: Path, artifacts: Path) -> None:
        self.mode = "well"
        database.parent.mkdir(parents=True, exist_ok=True)
        self._port = _free_port()
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{database}", "--host", "127.0.0.1"]
        command += ["--artifacts-destination", artifacts.as_uri(), "--port", str(self._port)]
        self._server = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._door = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._door.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        wait_until(self._answers, timeout_seconds=120, what="the MLflow server")
        return self

    def __exit__(self, *_: object) -> None:
        self._door.close()
        self._server.terminate()
        self._server.wait(30)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{self._port}/health") as page:
            return bool(page.status == 200)
        return False

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._door.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            if self.mode == "down":
                return
            if self.mode == "slow":
                time.sleep(1.0)
            if self.mode == "500":
                with contextlib.suppress(OSError):
                    client.recv(65536)
                    client.sendall(REFUSAL)
                return
            with (
                contextlib.suppress(OSError),
                socket.create_connection(("127.0.0.1", self._port)) as server,
            ):
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join(5)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            sink.sendall(content)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return int(door.getsockname()[1])
