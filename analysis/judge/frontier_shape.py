"""What can be learnt from the points of a compute frontier alone? The shape, not the exponents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from analysis.judge.fit_certificate import Reason
from analysis.judge.identifiability import following
from analysis.solve.solving import Solution, solve


def collapse(solution: Solution) -> tuple[Solution, Reason] | None:
    """The law without its data term, where the rows turn out to lie on a compute frontier.

    There tokens are a function of the effective size, so the loss is one curve of that size: its
    shape parameters (what a loop is worth) follow from the rows falling onto one curve, while the
    exponents do not follow from anything. None where the rows are no frontier of this law.
    """
    law = solution.law
    if not law.shape or len(law.terms) != 2 or law.terms[1].shape or "tokens" not in law.roles:
        return None
    curve = replace(law, terms=law.terms[:1], name=f"{law.name} on its frontier")
    held = {n: v for n, v in solution.surface.fixed.items() if n in curve.parameters}
    tied = solve(solution.points, curve, solution.estimator, fixed=held)
    size = tied.surface.log_terms(tied.inner[None])[0]
    sizes = np.broadcast_to(size, (1, solution.points.num_rows))[0]
    found = following(sizes, np.log(solution.points.columns["tokens"]))
    worse = np.abs(tied.log_residuals).mean() > 1.5 * np.abs(solution.log_residuals).mean() + 1e-3
    if found is None or not found.follows or worse:
        return None
    split = tuple(name for name in law.parameters if name not in law.shape)
    message = (
        f"tokens follow (effective size)^{found.slope:.3g} to "
        f"{100 * found.residual_log_std:.2g} % in all {solution.points.num_rows} rows: only points "
        f"of the compute frontier are given. {', '.join(law.shape)} follow from the rows falling "
        "onto one curve, provided that each is loss-optimal at its FLOPs; "
        f"{', '.join(split)} are not identified; add runs off the frontier"
    )
    return tied, Reason(code="frontier-only", status="refused", parameters=split, message=message)
