"""Which parameters does the asker hold, and may they be held there?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from analysis.judge.fit_certificate import Reason
from analysis.laws.law import Law
from analysis.points.checked_points import Points
from spaces.errors import RequestError


def parse_fixed(assignments: Sequence[str]) -> dict[str, float]:
    """``E=0`` and so on to name -> value. Raises `RequestError` for what is no assignment."""
    fixed: dict[str, float] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not equals or not name or not np.isfinite(value):
            raise RequestError(f"--fix takes NAME=NUMBER, got {assignment!r}; for example E=0")
        if name in fixed:
            raise RequestError(f"--fix gives {name} one value, got {fixed[name]:g} and {value:g}")
        fixed[name] = value
    return fixed


def checked_fixed(law: Law, fixed: Mapping[str, float]) -> dict[str, float]:
    """The same values. Raises `RequestError` for parameters or values that cannot be held."""
    allowed = (law.offset, *law.nonlinear)
    for name, value in fixed.items():
        if name not in allowed:
            raise RequestError(
                f"--fix holds the offset, exponents and shape parameters of {law.name}: "
                f"{', '.join(allowed)}; got {name!r}"
            )
        bounds = None if name == law.offset else law.bounds_of(name)
        low, high = (0.0, np.inf) if bounds is None else (bounds.low, bounds.high)
        if not (np.isfinite(value) and low <= value <= high):
            raise RequestError(
                f"{name} lies between {low:g} and {high:g}, got --fix {name}={value:g}"
            )
    return dict(fixed)


def held_reasons(points: Points, law: Law, fixed: Mapping[str, float]) -> list[Reason]:
    """A note on what is held. Raises `RequestError` for an offset that no row leaves room for."""
    smallest = float(points.losses.min())
    offset = fixed.get(law.offset)
    if offset is not None and offset >= smallest:
        raise RequestError(
            f"{law.offset} lies under every loss, but got --fix {law.offset}={offset:g} and a "
            f"smallest loss of {smallest:.6g}; hold it lower"
        )
    if not fixed:
        return []
    listed = ", ".join(f"{name} = {value:g}" for name, value in fixed.items())
    return [
        Reason(
            code="held-fixed",
            status="ok",
            message=(
                f"{listed} held as asked and not estimated; the intervals of the others take it "
                "for certain"
            ),
        )
    ]
