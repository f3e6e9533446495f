"""Where did the FLOPs go? Every attempt counts once; the parts sum to what was spent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from search.ledger import Attempt, TrialRecord

SpentOn = Literal["search", "tuning", "replicates", "pruned", "failed", "lost"]


def spending(records: Iterable[TrialRecord]) -> dict[SpentOn, float]:
    """Training FLOPs by purpose, in the sweep's convention.

    ``search`` holds baselines and what the sampler proposed; ``lost`` what died with a worker and
    was not resumed from; a result reused from another sweep of the home costs nothing here.
    """
    parts: dict[SpentOn, float] = dict.fromkeys(get_args(SpentOn), 0.0)
    for record in records:
        if record.state != "reused":
            for attempt in record.attempts:
                parts[_part(record, attempt)] += attempt.spent_flops
    return parts


def _part(record: TrialRecord, attempt: Attempt) -> SpentOn:
    if attempt.state == "lost":
        return "lost"
    if record.state == "pruned":
        return "pruned"
    if record.state in ("diverged", "out_of_memory", "failed"):
        return "failed"
    if record.proposal.purpose == "replicate":
        return "replicates"
    return "tuning" if record.proposal.purpose == "tuning" else "search"
