"""Where does a worker keep its attempts whose machine does not see the home? On its own disk.

A trial's next attempt goes on from there if it comes to the same machine, and begins again on
another. The driver cannot remove what lies there: the worker does, once a trial has ended.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

from runners.pools.contract import Assignment, Report
from runners.trial.checkpoint import clear_checkpoints
from search.record.trial import Outcome

SECONDS_KEPT = 7 * 86400.0
"""What an attempt left that went on elsewhere is removed by the first worker after so long."""


def own_cache() -> Path:
    """The folder of this user on this machine for what can be had again; made, for nobody else."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "isoflop"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


class OwnDisk:
    """Folders of attempts under ``folder``, which is made, for this user alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._checkpoint_dirs: dict[int, Path] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in folder.glob("*/*"):
            if time.time() - old.stat().st_mtime > SECONDS_KEPT:
                shutil.rmtree(old, ignore_errors=True)

    def take(self, assignment: Assignment) -> Assignment:
        """The same attempt, with its checkpoints and trunks here. It must not keep weights."""
        assert assignment.weights_path is None, "weights belong to the home"
        here = self._here(assignment.checkpoint_dir)
        self._checkpoint_dirs[assignment.attempt_id] = here
        trunks = assignment.trunk_dir
        return replace(
            assignment,
            checkpoint_dir=here,
            trunk_dir=None if trunks is None else self._here(trunks),
        )

    def _here(self, path: Path) -> Path:
        """One place for each of the home's, so that two homes share none."""
        parent = hashlib.sha256(str(path.parent).encode()).hexdigest()[:16]
        return self._folder / parent / path.name

    def end(self, report: Report) -> None:
        """Remove the checkpoints of an attempt whose report is the last of its trial."""
        if isinstance(report.content, Outcome):
            checkpoint_dir = self._checkpoint_dirs.pop(report.attempt_id, None)
            if checkpoint_dir is not None and report.content.status != "preempted":
                clear_checkpoints(checkpoint_dir)
