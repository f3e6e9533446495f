"""Which trials may share a trunk, up to which step, and what does that save?"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import replace

from runners.engine.schedule import decay_steps
from runners.trial.trial_log import tail_steps
from search.record.trial import TrialConfig
from spaces.identity import canonical_json


def trunk_key(config: TrialConfig) -> str | None:
    """What trials that share a trunk have in common: all but their tokens.

    None without a trunk: another schedule, a warm-up that grows with the trial, or one that takes
    all steps before the decay.
    """
    warmup = config.training.warmup_steps
    if config.training.schedule != "wsd" or warmup is None or branch_step(config) < warmup:
        return None
    text = canonical_json(replace(config, tokens=0))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def branch_step(config: TrialConfig) -> int:
    """The last step that a longer trial has too: before the decay, and before the tail whose mean
    is the trial's training loss."""
    own = max(decay_steps(config.training, num_steps=config.num_steps), tail_steps(config))
    return config.num_steps - own


def shared_tokens(configs: Iterable[TrialConfig]) -> dict[str, int]:
    """Tokens that each trial takes over, by configuration hash, where all are trained from the
    shortest on: those up to the branch of the next shorter one of its trunk."""
    trunks: dict[str, list[TrialConfig]] = {}
    for config in configs:
        key = trunk_key(config)
        if key is not None:
            trunks.setdefault(key, []).append(config)
    shared = {}
    for members in trunks.values():
        members.sort(key=lambda config: config.tokens)
        for shorter, config in itertools.pairwise(members):
            sequences = branch_step(shorter) * config.training.batch_sequences
            shared[config.config_hash] = sequences * config.architecture.context_length
    return shared
