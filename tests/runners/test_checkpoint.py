"""Does a checkpoint come back whole, or else the one before it?"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import runners.trial.checkpoint
from runners.trial.checkpoint import (
    Checkpoint,
    CorruptCheckpoint,
    clear_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from spaces.errors import RequestError


def checkpoint(step: int, config_hash: str = "a1") -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    return Checkpoint(
        config_hash=config_hash,
        step=step,
        weights={"w": torch.randn(5, 3, generator=generator), "s": torch.tensor(1.5)},
        optimizer={"exp_avg/w": torch.randn(5, 3, generator=generator)},
        state={"log": {"mean": 0.1 + step, "curve": [1 / 3, 2.0]}},
    )


def same(one: Checkpoint | None, other: Checkpoint) -> bool:
    assert one is not None
    return (
        (one.config_hash, one.step, one.state) == (other.config_hash, other.step, other.state)
        and all(torch.equal(one.weights[name], other.weights[name]) for name in other.weights)
        and all(torch.equal(one.optimizer[n], other.optimizer[n]) for n in other.optimizer)
    )


def test_what_is_saved_comes_back_exactly(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(7))
    found = load_checkpoint(tmp_path, config_hash="a1")
    assert same(found.checkpoint, checkpoint(7))
    assert found.rejected == ()


def test_the_newest_two_are_kept_and_nothing_else(tmp_path: Path) -> None:
    for step in (5, 10, 100, 1_000_000):
        save_checkpoint(tmp_path, checkpoint(step))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step-000000000100", "step-000001000000"]


def test_nothing_there_is_nothing_found(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none", config_hash="a1").checkpoint is None


def test_the_same_step_again_changes_nothing(tmp_path: Path) -> None:
    place = save_checkpoint(tmp_path, checkpoint(5))
    before = (place / "manifest.json").stat().st_ino
    save_checkpoint(tmp_path, checkpoint(5))
    assert (place / "manifest.json").stat().st_ino == before
    (place / "state.json").write_text("{}")
    save_checkpoint(tmp_path, checkpoint(5))
    assert same(load_checkpoint(tmp_path, config_hash="a1").checkpoint, checkpoint(5))


def test_another_trials_checkpoint_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(5))
    with pytest.raises(RequestError, match="is of trial a1, not b2"):
        load_checkpoint(tmp_path, config_hash="b2")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_flipped_bit_or_cut_falls_back_to_the_one_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    save_checkpoint(folder, checkpoint(5))
    newest = save_checkpoint(folder, checkpoint(10))
    path = data.draw(st.sampled_from(sorted(newest.iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    path.write_bytes(content)
    found = load_checkpoint(folder, config_hash="a1")
    shutil.rmtree(folder)
    if found.rejected:
        assert found.rejected[0].startswith("step-000000000010: ")
        assert same(found.checkpoint, checkpoint(5))
    else:  # white space of the manifest is the only byte that may change
        assert path.name == "manifest.json"
        assert same(found.checkpoint, checkpoint(10))


def test_all_corrupt_is_nothing_found_with_every_reason(tmp_path: Path) -> None:
    for step in (5, 10):
        (save_checkpoint(tmp_path, checkpoint(step)) / "state.json").unlink()
    found = load_checkpoint(tmp_path, config_hash="a1")
    assert found.checkpoint is None
    assert len(found.rejected) == 2
    assert "state.json cannot be read" in found.rejected[0]


def test_a_kill_while_writing_leaves_the_ones_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(5))
    partial = tmp_path / ".step-000000000010.123-abc.partial"
    partial.mkdir()
    (partial / "weights.safetensors").write_bytes(b"half")
    assert same(load_checkpoint(tmp_path, config_hash="a1").checkpoint, checkpoint(5))
    assert not partial.exists()


def test_a_full_disk_leaves_the_ones_before_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(5))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, checkpoint(10))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000000005"]


def test_what_is_not_proved_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (5, 10):
        save_checkpoint(tmp_path, checkpoint(step))
    honest = runners.trial.checkpoint._write_and_sync

    def rotten(path: Path, content: bytes) -> None:
        honest(path, content[:-1] if path.name == "optimizer.safetensors" else content)

    monkeypatch.setattr(runners.trial.checkpoint, "_write_and_sync", rotten)
    with pytest.raises(CorruptCheckpoint, match=r"optimizer\.safetensors is not what was written"):
        save_checkpoint(tmp_path, checkpoint(15))
    assert len(list(tmp_path.iterdir())) == 3
    assert same(load_checkpoint(tmp_path, config_hash="a1").checkpoint, checkpoint(10))


def test_a_newer_format_is_passed_over(tmp_path: Path) -> None:
    manifest = save_checkpoint(tmp_path, checkpoint(5)) / "manifest.json"
    values = json.loads(manifest.read_text()) | {"format": 99}
    del values["seal"]
    values["seal"] = runners.trial.checkpoint._seal(values)
    manifest.write_text(json.dumps(values))
    found = load_checkpoint(tmp_path, config_hash="a1")
    assert found.checkpoint is None
    assert found.rejected == ("step-000000000005: format 99, not 1",)


def test_clearing(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "t", checkpoint(5))
    clear_checkpoints(tmp_path / "t")
    clear_checkpoints(tmp_path / "t")
    assert not (tmp_path / "t").exists()
