"""How does a trial survive its process? Checkpoints that are whole or not there.

A checkpoint is a folder ``step-<step>`` of ``weights.safetensors``, ``optimizer.safetensors``,
``state.json`` (everything else, as plain JSON) and ``manifest.json`` (their SHA-256, the trial's
configuration hash, and a hash of its own). It is written under a temporary name, flushed, renamed
when whole, then read back; only when that proves it are those older than the previous one removed.
Loading takes the newest one whose checksums hold. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from runners.machine.files import CHECKPOINTS_KEPT, PARTIAL_SUFFIX, partial_path, sync_folder
from search.record.crash_points import reach
from spaces.errors import RequestError

FORMAT_VERSION = 1
_MANIFEST = "manifest.json"
_FILES = ("weights.safetensors", "optimizer.safetensors", "state.json")


class CorruptCheckpoint(Exception):
    """A checkpoint that is not whole; says which file and why."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A trial in the middle of its training."""

    config_hash: str
    """The trial's identity."""
    step: int
    """Optimizer steps done."""
    weights: dict[str, Tensor]
    """Parameters by name, on the CPU or moved there when saved."""
    optimizer: dict[str, Tensor]
    """Moments and step counts by name."""
    state: dict[str, Any]
    """Everything else, as JSON values."""


@dataclass(frozen=True, kw_only=True)
class FoundCheckpoint:
    """What `load_checkpoint` found."""

    checkpoint: Checkpoint | None
    """The newest whole one; None where there is none."""
    rejected: tuple[str, ...] = ()
    """Newer ones that were not whole, each with its reason."""


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, *, keep: int | None = CHECKPOINTS_KEPT
) -> Path:
    """Write, prove and return the checkpoint's folder; keeps so many of the newest, None all.

    A whole checkpoint of that trial and step stays as it is.

    Raises OSError where the disk does not take it and `CorruptCheckpoint` where what was read back
    is not what was written; the checkpoints before are then untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"step-{checkpoint.step:012d}"
    if _is_whole(place, checkpoint.config_hash):
        return place
    partial = partial_path(place)
    try:
        reach("before checkpoint files")
        _write(partial, checkpoint)
        if place.exists():
            shutil.rmtree(place)
        reach("before checkpoint rename")
        partial.rename(place)
        reach("after checkpoint rename")
        sync_folder(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _read(place)
    reach("after checkpoint proof")
    for older in _places(folder)[keep:] if keep is not None else ():
        shutil.rmtree(older, ignore_errors=True)
    return place


def load_checkpoint(
    folder: Path, *, config_hash: str, at_most: int | None = None
) -> FoundCheckpoint:
    """The newest checkpoint whose checksums hold, and why newer ones were passed over.

    ``at_most``: of those up to that step.

    Half-written leftovers of killed processes are removed. Raises `RequestError` where the
    checkpoint is another trial's.
    """
    for leftover in folder.glob(f".step-*{PARTIAL_SUFFIX}"):
        shutil.rmtree(leftover, ignore_errors=True)
    rejected: list[str] = []
    for place in _places(folder):
        if at_most is not None and int(place.name.removeprefix("step-")) > at_most:
            continue
        try:
            checkpoint = _read(place)
        except CorruptCheckpoint as error:
            rejected.append(f"{place.name}: {error}")
            continue
        if checkpoint.config_hash != config_hash:
            raise RequestError(
                f"a checkpoint continues only its own trial, but {place} is of trial "
                f"{checkpoint.config_hash}, not {config_hash}; give each trial its own folder"
            )
        return FoundCheckpoint(checkpoint=checkpoint, rejected=tuple(rejected))
    return FoundCheckpoint(checkpoint=None, rejected=tuple(rejected))


def clear_checkpoints(folder: Path) -> None:
    """Remove a trial's checkpoints, once its outcome is safe elsewhere."""
    shutil.rmtree(folder, ignore_errors=True)


def _is_whole(place: Path, config_hash: str) -> bool:
    try:
        return _read(place).config_hash == config_hash
    except CorruptCheckpoint:
        return False


def _places(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    folder.mkdir()
    sums = {}
    for name, content in _contents(checkpoint):
        _write_and_sync(folder / name, content)
        sums[name] = hashlib.sha256(content).hexdigest()
        reach("between checkpoint files")
    manifest = {
        "format": FORMAT_VERSION,
        "config_hash": checkpoint.config_hash,
        "step": checkpoint.step,
        "sha256": sums,
    }
    sealed = manifest | {"seal": _seal(manifest)}
    _write_and_sync(folder / _MANIFEST, json.dumps(sealed, indent=2).encode())
    sync_folder(folder)


def _contents(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file, one in memory at a time."""
    weights, optimizer, state = _FILES
    yield weights, safetensors.torch.save(_plain(checkpoint.weights))
    yield optimizer, safetensors.torch.save(_plain(checkpoint.optimizer))
    yield state, json.dumps(checkpoint.state, allow_nan=False).encode()


def _plain(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _write_and_sync(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read(folder: Path) -> Checkpoint:
    """The checkpoint in a folder; raises `CorruptCheckpoint` where a byte is not as written."""
    manifest = _read_manifest(folder / _MANIFEST)
    contents = {}
    for name in _FILES:
        contents[name] = _read_bytes(folder / name)
        if hashlib.sha256(contents[name]).hexdigest() != manifest["sha256"][name]:
            raise CorruptCheckpoint(f"{name} is not what was written")
    weights, optimizer, state = _FILES
    return Checkpoint(
        config_hash=manifest["config_hash"],
        step=manifest["step"],
        weights=safetensors.torch.load(contents[weights]),
        optimizer=safetensors.torch.load(contents[optimizer]),
        state=json.loads(contents[state]),
    )


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(_read_bytes(path))
        seal = manifest.pop("seal")
        sealed_as = _seal(manifest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptCheckpoint(f"{path.name} is not what was written") from error
    if seal != sealed_as:
        raise CorruptCheckpoint(f"{path.name} is not what was written")
    if manifest["format"] != FORMAT_VERSION:
        raise CorruptCheckpoint(f"format {manifest['format']}, not {FORMAT_VERSION}")
    return dict(manifest)


def _seal(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CorruptCheckpoint(f"{path.name} cannot be read: {error}") from error
