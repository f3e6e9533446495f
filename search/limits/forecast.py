"""How long will a trial take? From how fast this device trained trials of its size before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from search.record.ledger import Throughput
from search.record.trial import Proposal
from spaces.flops import forward_flops_per_token
from spaces.parameters import count_parameters

NEAREST = 5
"""Measured trials, nearest in parameters, whose median rate is taken."""


def predicted_seconds(proposal: Proposal, measured: Sequence[Throughput]) -> float | None:
    """Training seconds of a trial, measuring excluded; None where nothing was measured.

    The rate that is carried over is FLOPs per second, not tokens per second.
    """
    if not measured:
        return None
    a = proposal.config.architecture
    total = count_parameters(a).total
    nearest = sorted(measured, key=lambda each: abs(math.log(each.parameters / total)))[:NEAREST]
    rate = median(each.tokens_per_second * each.forward_flops_per_token for each in nearest)
    return proposal.config.tokens * forward_flops_per_token(a)["full"] / rate
