"""Faults that come from within a process, by name: ``KIND`` or ``KIND:NUMBER``."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from typing import Any

import torch


def install(name: str) -> None:
    """Put a fault in place, for the rest of this process."""
    kind, _, number = name.partition(":")
    KINDS[kind](int(number or 1))


def _failing_sync(number: int) -> None:
    """From the N-th on, three flushes of a file to the disk fail."""
    calls, sync = itertools.count(1), os.fsync

    def fails(descriptor: Any) -> None:
        if number <= next(calls) < number + 3:
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    os.fsync = fails


def _failing_commit(number: int) -> None:
    """The N-th commit of the ledger fails."""
    import sqlite3

    from search.record.ledger import Ledger

    calls, writing = itertools.count(1), Ledger._writing

    def fails(self: Ledger, what: str | None = None) -> Any:
        if what is not None and next(calls) == number:
            return _Refusing(writing(self), self.path)
        return writing(self, what)

    class _Refusing:
        """A transaction whose commit fails as SQLite fails on a broken disk."""

        def __init__(self, transaction: Any, path: Any) -> None:
            self._transaction, self._path = transaction, path

        def __enter__(self) -> Any:
            return self._transaction.__enter__()

        def __exit__(self, *_: Any) -> None:
            from sqlalchemy.exc import OperationalError

            error = OperationalError("COMMIT", None, sqlite3.OperationalError("disk I/O error"))
            self._transaction.__exit__(type(error), error, None)

    Ledger._writing = fails  # type: ignore[assignment]


def _out_of_memory(fitting_sequences: int) -> None:
    """Memory for that many sequences at once, and no more; 0: for none."""
    from spaces.model import LanguageModel

    forward = LanguageModel.hidden_with_readings

    def limited(self: Any, tokens: Any, *rest: Any, **named: Any) -> Any:
        if torch.is_grad_enabled() and tokens.shape[0] > fitting_sequences:
            raise torch.OutOfMemoryError(f"no memory for {tokens.shape[0]} sequences")
        return forward(self, tokens, *rest, **named)

    LanguageModel.hidden_with_readings = limited  # type: ignore[method-assign]


def _not_a_number(step: int) -> None:
    """The loss of the N-th step of every second trial is NaN."""
    from runners.trial.trial_log import TrialLog

    add_loss = TrialLog.add_loss

    def spoilt(self: Any, loss_nats: float) -> None:
        unlucky = int(self.config.config_hash, 16) % 2 == 0 and self.step == step
        add_loss(self, float("nan") if unlucky else loss_nats)

    TrialLog.add_loss = spoilt  # type: ignore[method-assign]


def _short_patience(tenths: int) -> None:
    """The ledger waits for a lock only so many tenths of a second."""
    import search.record.ledger
    import search.record.ledger_errors

    search.record.ledger.LOCK_WAIT_SECONDS = tenths / 10  # type: ignore[attr-defined]
    search.record.ledger_errors.LOCK_WAIT_SECONDS = tenths / 10


def _short_mlflow_patience(seconds: int) -> None:
    """The sweep's end waits for MLflow only so many seconds."""
    import experiments.verbs.sweep

    experiments.verbs.sweep.MLFLOW_PATIENCE_SECONDS = float(seconds)


def _other_record_version(version: int) -> None:
    """The code means something else by a record than it did."""
    import search.record.trial

    fields = search.record.trial.TrialConfig.__dataclass_fields__
    search.record.trial.TrialConfig.__init__.__kwdefaults__["record_version"] = version
    fields["record_version"].default = version


def _barrier(number: int) -> None:
    """That many processes of one home reach for its lease together."""
    import time

    from search.record.ledger import Ledger

    held = Ledger.held

    def together(self: Ledger, *, take_over: bool = False) -> Any:
        (self.home / f"{os.getpid()}.at-the-barrier").touch()
        while len(list(self.home.glob("*.at-the-barrier"))) < number:
            time.sleep(0.001)
        return held(self, take_over=take_over)

    Ledger.held = together  # type: ignore[method-assign]


def _cores(number: int) -> None:
    """The machine says that it has so many cores."""
    os.cpu_count = lambda: number


KINDS: dict[str, Callable[[int], None]] = {
    "failing-sync": _failing_sync,
    "failing-commit": _failing_commit,
    "out-of-memory": _out_of_memory,
    "not-a-number": _not_a_number,
    "short-patience": _short_patience,
    "short-mlflow-patience": _short_mlflow_patience,
    "record-version": _other_record_version,
    "barrier": _barrier,
    "cores": _cores,
}
