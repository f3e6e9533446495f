"""Which result is best at its budget?"""

from __future__ import annotations

from collections.abc import Sequence

from search.record.trial_records import TrialRecord, loss_of


def ranks(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Configuration hash to rank among the results of its budget, by validation loss; 1 is best."""
    found: dict[str, int] = {}
    for group in by_budget(records).values():
        found |= {record.config_hash: rank for rank, record in enumerate(group, start=1)}
    return found


def by_budget(records: Sequence[TrialRecord]) -> dict[float, list[TrialRecord]]:
    """Results by target training FLOPs (ascending), best first."""
    groups: dict[float, list[TrialRecord]] = {}
    for record in records:
        if record.is_result and record.outcome is not None:
            assert record.proposal.budget.train_flops is not None
            groups.setdefault(record.proposal.budget.train_flops, []).append(record)
    return {
        target: sorted(groups[target], key=lambda record: (loss_of(record), record.config_hash))
        for target in sorted(groups)
    }
