"""Is an arm that does not ship what its price says? Certified before anything of it trains."""

from __future__ import annotations

from search.propose.proposer import SweepProposer
from spaces.arms.contract import find_arm


def require_certified(proposer: SweepProposer) -> None:
    """Count one architecture of every arm of your own in three ways, at each budget.

    Raises `RequestError` that names the counter that disagrees, the operator that nobody knows, or
    the parameter that nothing declares.
    """
    own = [cell for cell in proposer.cells if find_arm(cell.arm).source is not None]
    if not own:
        return
    from spaces.certificate import certify

    for cell in own:
        for proposal in proposer.baselines(cell)[:1]:
            certify(proposal.config.architecture)
