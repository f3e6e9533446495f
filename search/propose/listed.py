"""How is a fixed list of trials run as a sweep? In its order, whatever the results say."""

from __future__ import annotations

from collections.abc import Sequence

from search.propose.contract import Done, Next, Proposed, Waiting
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord, is_pending


class ListedProposer:
    """Proposes what is on a list; nothing is pruned, set aside or capped."""

    def __init__(self, proposals: Sequence[Proposal]) -> None:
        self._proposals = tuple(proposals)

    def next(
        self, records: Sequence[TrialRecord], *, at_most: int = 1, foresee: bool = False
    ) -> Next:
        """Those of the list that have no record, at most so many."""
        known = {record.config_hash for record in records}
        left = [each for each in self._proposals if each.config_hash not in known]
        if left:
            return Proposed(tuple(left[:at_most]))
        return Waiting() if any(is_pending(record) for record in records) else Done()

    def depends_on_results(self, proposal: Proposal, records: Sequence[TrialRecord]) -> bool:
        """Nothing does."""
        return False

    def why_set_aside(self, record: TrialRecord) -> str | None:
        """What is no longer on the list."""
        listed = {each.config_hash for each in self._proposals}
        return None if record.config_hash in listed else "it is not on the list"

    def why_prune(self, running: TrialRecord, records: Sequence[TrialRecord]) -> str | None:
        """Nothing is."""
        return None

    def may_prune(self, proposal: Proposal) -> bool:
        """Nothing may be."""
        return False

    def why_not_start(self, proposal: Proposal, records: Sequence[TrialRecord]) -> str | None:
        """Everything may start."""
        return None

    def why_stop(self, records: Sequence[TrialRecord], *, now: float) -> str | None:
        """Nothing stops it."""
        return None
