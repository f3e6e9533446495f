"""How do trials of one recipe and several lengths share what they have in common? A trunk.

With a warm-up of fixed length and a stable rate after it (wsd, arXiv 2404.06395; branches:
arXiv 2405.18392), trials that differ in their tokens alone train the same steps until the first of
them decays. Each leaves a checkpoint of its last common step in the *trunk's* folder; a longer one
goes on from there. It ends as it would have alone, on a CPU bit for bit: what it took over is what
it would have computed.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runners.trial.branching import branch_step, trunk_key
from runners.trial.checkpoint import Checkpoint, FoundCheckpoint, load_checkpoint, save_checkpoint
from runners.trial.trial_log import TrialLog
from search.record.trial import TrialConfig


class Trunk:
    """The trunk of one trial, in the folder of all trunks of a sweep."""

    def __init__(self, config: TrialConfig, folder: Path) -> None:
        key = trunk_key(config)
        assert key is not None, "only a trial with a trunk asks for it"
        self._config = config
        self._key = key
        self._folder = folder / key
        self.step = branch_step(config)

    def newest(self) -> FoundCheckpoint:
        """The longest stretch of the trunk that is there and that the trial has in common."""
        return load_checkpoint(self._folder, config_hash=self._key, at_most=self.step)

    def log(self, found: Checkpoint) -> TrialLog:
        """A trial's log where it leaves the trunk."""
        log = TrialLog.from_json(self._config, found.state)
        return replace(log, trunk_parent=found.state["left_by"], trunk_step=found.step)

    def leave(self, checkpoint: Checkpoint) -> None:
        """Put the state at the trial's branch step into the trunk. Raises as `save_checkpoint`."""
        state = checkpoint.state | {"left_by": self._config.config_hash}
        save_checkpoint(
            self._folder, replace(checkpoint, config_hash=self._key, state=state), keep=None
        )
