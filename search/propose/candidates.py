"""Which runs may a design choose from, and what would each add to the bill?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from search.belief.seed_noise import configuration_key
from search.limits.packs import share_in_pack
from search.record.trial import Proposal, TrialConfig
from search.record.trial_records import TrialRecord, is_pending

MOST_REPEATS = 4
"""Data orders that one shape is offered in."""


def new_shapes(shapes: Sequence[Proposal], records: Sequence[TrialRecord]) -> list[Proposal]:
    """Shapes that were not tried at any rate or with any seed."""
    tried = {configuration_key(record.proposal, any_rate=True) for record in records}
    return [shape for shape in shapes if configuration_key(shape, any_rate=True) not in tried]


def repeats(
    records: Sequence[TrialRecord], repeat: Callable[[TrialRecord, int], Proposal]
) -> list[Proposal]:
    """What was tried, in its next data order; ``repeat`` gives a trial other seeds by number."""
    groups: dict[object, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(configuration_key(record.proposal), []).append(record)
    return [
        repeat(group[0], len(group))
        for group in groups.values()
        if len(group) <= MOST_REPEATS and (group[0].is_result or is_pending(group[0]))
    ]


def added_flops(
    proposals: Sequence[Proposal],
    records: Sequence[TrialRecord],
    *,
    trunk: bool,
    most_side_by_side: int,
) -> list[float]:
    """Training FLOPs that each would add; of a pack's members, their share of its time.

    ``trunk``: whether trials of one shape share their stable stretch.
    """
    longest = _trunks(records) if trunk else {}
    return [
        proposal.train_flops
        * (1 - _shared(proposal.config, longest))
        * share_in_pack(proposal.config, most=most_side_by_side)
        for proposal in proposals
    ]


def _trunk(config: TrialConfig) -> TrialConfig:
    return replace(config, tokens=0)


def _trunks(records: Sequence[TrialRecord]) -> Mapping[TrialConfig, list[int]]:
    """Tokens of the trials of every trunk."""
    found: dict[TrialConfig, list[int]] = {}
    for record in records:
        if record.is_result or is_pending(record):
            config = record.proposal.config
            found.setdefault(_trunk(config), []).append(config.tokens)
    return found


def _shared(config: TrialConfig, trunks: Mapping[TrialConfig, list[int]]) -> float:
    """The share of a trial's tokens that the longest shorter trial of its trunk has trained."""
    shorter = [each for each in trunks.get(_trunk(config), ()) if each <= config.tokens]
    stable = 1 - config.training.decay_fraction
    return stable * max(shorter) / config.tokens if shorter else 0.0
