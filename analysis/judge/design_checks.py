"""What does the design leave undetermined, and what ended at a limit of the search?"""

from __future__ import annotations

import numpy as np

from analysis.judge.fit_certificate import Reason
from analysis.judge.identifiability import (
    COLLINEARITY_LIMIT,
    Following,
    Identifiability,
    following,
    moving_together,
    num_levels,
)
from analysis.laws.law import FloatArray, Law
from analysis.objective.surface import Surface
from analysis.points.checked_points import Points

LEVELS_PER_TERM = 3
"""Offset, coefficient and exponent of one term need three distinct sizes."""


def bound_reasons(surface: Surface, inner: FloatArray) -> list[Reason]:
    """Parameters that ended at a bound, E at zero above all."""
    law, reasons = surface.law, []
    values = surface.outer(inner)
    for place, name in enumerate(law.parameters):
        if name in surface.fixed:
            continue
        width = surface.upper[place] - surface.lower[place]
        at_low = inner[place] - surface.lower[place] <= 1e-6 * min(1.0, width)
        at_high = surface.upper[place] - inner[place] <= 1e-6 * min(1.0, width)
        if name == law.offset and inner[place] <= 1e-4 * surface.smallest_loss:
            reasons.append(
                Reason(
                    code="offset-at-zero",
                    status="refused",
                    parameters=(name,),
                    message=(
                        f"{name} runs to zero: it is not identified, the rows do not bend towards "
                        "a floor; the profile shows which values they allow, larger models or "
                        "more tokens would settle it"
                    ),
                )
            )
        elif at_low or at_high:
            gone = _gone_with(law, name, at_low=bool(at_low))
            reasons.append(
                Reason(
                    code="at-bound",
                    status="refused",
                    parameters=(name, *gone),
                    message=(
                        f"{name} = {values[place]:.4g} sits at its {'lower' if at_low else 'upper'}"
                        " bound, so it is a limit of the search and no estimate"
                        + (f"; {', '.join(gone)} then mean nothing" if gone else "")
                    ),
                )
            )
    return reasons


def _gone_with(law: Law, name: str, *, at_low: bool) -> tuple[str, ...]:
    """Parameters that mean nothing once ``name`` sits at its bound.

    A term without its coefficient has neither exponent nor shape; a size with one shape parameter
    at a limit says nothing about the others or about the term's decay.
    """
    for term in law.terms:
        if name == term.coefficient and at_low:
            return (*term.shape, term.exponent)
        if name in term.shape:
            rest = tuple(other for other in term.shape if other != name)
            return (*rest, term.coefficient, term.exponent)
    return ()


def _following_reason(law: Law, found: Following, rows: int) -> Reason:
    split = (law.offset, *(t.coefficient for t in law.terms), *law.exponents)
    if abs(found.slope - 1.0) < 0.05:
        what = f"tokens are {found.ratio:.4g} times the model size in all {rows} rows"
        code = "tokens-follow-params"
    else:
        what = f"tokens follow size^{found.slope:.3g} in all {rows} rows, as on a compute frontier"
        code = "frontier-only"
    return Reason(
        code=code,
        status="refused",
        parameters=split,
        message=(
            f"{what} (to {100 * found.residual_log_std:.2g} %), so that the model's and the "
            f"data's share of the loss cannot be told apart: {', '.join(split)} are not "
            "identified; add runs off this line, for example tokens per parameter 10 and 40 at "
            "equal size"
        ),
    )


def design_reasons(
    points: Points, surface: Surface, inner: FloatArray, found: Identifiability
) -> list[Reason]:
    """What the design leaves undetermined, whatever the noise."""
    law = surface.law
    sizes = surface.log_terms(inner[None])
    flat = [np.broadcast_to(size, (1, points.num_rows))[0] for size in sizes]
    reasons = _level_reasons(law, flat)
    if {"alpha", "beta"} <= set(law.exponents):
        centres = surface.centres
        pair = following(flat[0] + centres[0], flat[1] + centres[1])
        if pair is not None and pair.follows and not reasons:
            reasons.append(_following_reason(law, pair, points.num_rows))
    values = surface.outer(inner)
    idle = _idle(law, found, values)
    if idle:
        reasons.append(_no_effect(idle))
    explained = {name for reason in reasons for name in reason.parameters}
    loose = tuple(
        name
        for name, size in zip(law.parameters, found.collinearity, strict=True)
        if size > COLLINEARITY_LIMIT and name not in explained
    )
    if loose:
        reasons.append(_confounded(points, law, found, loose))
    return reasons


def _idle(law: Law, found: Identifiability, values: FloatArray) -> tuple[str, ...]:
    """Parameters that change no prediction although their term is there."""
    absent = {
        name
        for place, term in enumerate(law.terms)
        if values[1 + place] == 0.0
        for name in (term.exponent, *term.shape)
    }
    return tuple(
        name
        for name, size in zip(law.parameters, found.collinearity, strict=True)
        if np.isinf(size) and name not in absent
    )


def _no_effect(names: tuple[str, ...]) -> Reason:
    return Reason(
        code="no-effect",
        status="refused",
        parameters=names,
        message=(
            f"{', '.join(names)} changes no prediction in this table (a column that it acts on is "
            "constant, such as num_loops = 1 or params_wide = 0 everywhere); add runs that vary it"
        ),
    )


def _level_reasons(law: Law, log_sizes: list[FloatArray]) -> list[Reason]:
    reasons = []
    for term, size in zip(law.terms, log_sizes, strict=True):
        levels = num_levels(size)
        if levels >= LEVELS_PER_TERM:
            continue
        reasons.append(
            Reason(
                code="too-few-levels",
                status="refused",
                parameters=(law.offset, term.coefficient, term.exponent),
                message=(
                    f"the size behind {term.exponent} takes {levels} value(s) in this table; "
                    f"{law.offset}, {term.coefficient} and {term.exponent} need at least "
                    f"{LEVELS_PER_TERM} to be told apart"
                ),
            )
        )
    return reasons


def _confounded(points: Points, law: Law, found: Identifiability, names: tuple[str, ...]) -> Reason:
    partners = ", ".join(law.parameters[place] for place in found.weakest)
    design = {role: points.columns[role] for role in law.roles}
    pairs = moving_together(design)
    cause = (
        "; in the table " + ", ".join(f"{one} and {two} move together" for one, two in pairs)
        if pairs
        else ""
    )
    return Reason(
        code="confounded",
        status="refused",
        parameters=names,
        message=(
            f"{', '.join(names)} cannot be told apart in this design (condition "
            f"{found.condition:.2g}; the undetermined direction mixes {partners}){cause}; vary "
            "one at a time at fixed values of the others"
        ),
    )
