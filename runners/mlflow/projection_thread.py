"""How does MLflow follow a sweep without the sweep waiting for it? From a thread of the driver."""

from __future__ import annotations

import threading
import time

from runners.mlflow.projection import MlflowProjection
from search.record.ledger import Ledger
from search.record.redaction import redact

SYNC_SECONDS = 2.0


class ProjectionThread:
    """Keeps MLflow up to date beside a sweep; the sweep waits for it at its end only."""

    def __init__(self, ledger: Ledger, sweep: str, *, tracking_uri: str) -> None:
        self._ledger, self._sweep, self._uri = ledger, sweep, tracking_uri
        self._over = threading.Event()
        self._deadline = 0.0
        self._interrupted = False
        self._problem: str | None = None
        self._projection: MlflowProjection | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow-projection", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self, *, interrupted: bool, timeout_seconds: float) -> str | None:
        """Send the rest; what went wrong, or None when MLflow has everything."""
        self._interrupted = interrupted
        self._deadline = time.monotonic() + timeout_seconds
        self._over.set()
        self._thread.join(timeout_seconds + 1.0)
        if self._thread.is_alive() and self._problem is None:
            return f"MLflow at {redact(self._uri)} did not answer within {timeout_seconds:g} s"
        return self._problem

    def _work(self) -> None:
        while not self._over.wait(SYNC_SECONDS):
            self._try(last=False)
        while not self._try(last=True) and time.monotonic() < self._deadline:
            time.sleep(SYNC_SECONDS)

    def _try(self, *, last: bool) -> bool:
        """One round; whether it went well. After an error the next asks MLflow what it has."""
        try:
            if self._projection is None:
                self._projection = MlflowProjection(
                    self._ledger, self._sweep, tracking_uri=self._uri
                )
            if last:
                self._projection.finish(interrupted=self._interrupted)
            else:
                self._projection.sync()
        except Exception as error:  # whatever MLflow or its store raises: training goes on
            self._projection = None
            self._problem = f"MLflow at {redact(self._uri)}: {redact(_first_line(error))}"
            return False
        self._problem = None
        return True


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
