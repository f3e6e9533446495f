"""Is there room for what a sweep writes?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runners.machine.files import CHECKPOINTS_KEPT
from search.record.trial import TrialConfig
from spaces.parameters import count_parameters

BYTES_PER_VALUE = 4
VALUES_PER_PARAMETER = 3
"""A checkpoint holds each parameter and AdamW's two moments."""
RECORD_BYTES = 1_000_000
"""Kept free for the ledger's and MLflow's next writes: a trial takes about a tenth of it."""


@dataclass(frozen=True, kw_only=True)
class Shortage:
    """More is needed in a folder than there is."""

    folder: Path
    """Where."""
    needed_bytes: int
    """What has to fit."""
    free_bytes: int
    """What there is."""

    def __str__(self) -> str:
        return (
            f"{self.folder} needs {self.needed_bytes / 1e6:.1f} MB and has "
            f"{self.free_bytes / 1e6:.1f} MB free"
        )


def attempt_bytes(config: TrialConfig, *, keep_weights: bool) -> int:
    """Most that one attempt has on disk at once: its checkpoints, one half-written, and weights."""
    weights = count_parameters(config.architecture).total * BYTES_PER_VALUE
    checkpoints = (CHECKPOINTS_KEPT + 1) * VALUES_PER_PARAMETER * weights
    return checkpoints + (weights if keep_weights else 0)


def sweep_bytes(configs: Sequence[TrialConfig], *, num_workers: int, keep_weights: bool) -> int:
    """What a sweep of these trials takes: the largest attempts at once, weights kept, records."""
    largest = sorted((attempt_bytes(each, keep_weights=False) for each in configs), reverse=True)
    kept = sum(count_parameters(each.architecture).total * BYTES_PER_VALUE for each in configs)
    records = len(configs) * RECORD_BYTES // 10
    return sum(largest[:num_workers]) + (kept if keep_weights else 0) + records


def find_shortage(folder: Path, needed_bytes: int) -> Shortage | None:
    """Whether the disk under a folder (that need not exist yet) lacks room, records included."""
    there = next(each for each in (folder, *folder.parents) if each.exists())
    needed, free = needed_bytes + RECORD_BYTES, shutil.disk_usage(there).free
    if free >= needed:
        return None
    return Shortage(folder=there, needed_bytes=needed, free_bytes=free)
