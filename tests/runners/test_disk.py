"""What a sweep takes on the disk, and whether there is room."""

from __future__ import annotations

from pathlib import Path

from runners.machine.disk import RECORD_BYTES, attempt_bytes, find_shortage, sweep_bytes
from runners.trial.checkpoint import Checkpoint, save_checkpoint
from spaces.model import LanguageModel
from tests.sweeps import toy_proposals


def test_three_checkpoints_fit_into_the_estimate_and_not_much_is_wasted(tmp_path: Path) -> None:
    config = toy_proposals(tmp_path, 1)[0].config
    weights = LanguageModel(config.architecture, seed=0).state_dict()
    moments = {f"{what}/{name}": t.clone() for what in ("m", "v") for name, t in weights.items()}
    place = save_checkpoint(
        tmp_path / "c",
        Checkpoint(config_hash="a", step=1, weights=weights, optimizer=moments, state={}),
    )
    actual = sum(path.stat().st_size for path in place.iterdir())
    estimate = attempt_bytes(config, keep_weights=False)
    assert 3 * actual < estimate + RECORD_BYTES
    assert estimate < 3 * actual


def test_a_sweep_takes_its_largest_attempts_and_every_weight(tmp_path: Path) -> None:
    configs = [proposal.config for proposal in toy_proposals(tmp_path, 3)]
    one = sweep_bytes(configs, num_workers=1, keep_weights=False)
    three = sweep_bytes(configs, num_workers=3, keep_weights=False)
    assert three - one == sum(sorted(attempt_bytes(c, keep_weights=False) for c in configs)[:2])
    assert sweep_bytes(configs, num_workers=3, keep_weights=True) > three


def test_a_shortage_says_how_much_is_needed_where(tmp_path: Path) -> None:
    assert find_shortage(tmp_path / "not" / "yet", 1) is None
    shortage = find_shortage(tmp_path / "not" / "yet", 10**18)
    assert shortage is not None
    assert str(shortage).startswith(f"{tmp_path} needs 1000000000001.0 MB and has ")
