"""What else can be said about a fit? Profiles of weak parameters, a rehearsal, the sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.fit.fit_result import Fit
from analysis.fit.profile import Profile, profile
from analysis.fit.rehearsal import Rehearsal, rehearse
from analysis.fit.sensitivity import Sensitivity, sensitivity
from analysis.solve.resampling import FEWEST_GROUPS

PROFILES_UNASKED = 2
"""Weak parameters that are profiled without being asked for."""

NOTHING_TO_PROFILE = (
    "too-few-points",
    "constant-loss",
    "start-returned",
    "not-converged",
    "not-unique",
    "confounded",
    "tokens-follow-params",
    "frontier-only",
)
"""Where the design leaves whole directions open, a profile of one parameter adds nothing."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Findings beside a fit; what was not asked for is empty or None."""

    fit: Fit
    profiles: tuple[Profile, ...]
    rehearsal: Rehearsal | None
    sensitivity: Sensitivity | None

    def to_dict(self) -> dict[str, Any]:
        """Entries to add to the fit's JSON document."""
        document: dict[str, Any] = {}
        if self.profiles:
            document["profiles"] = [each.to_dict() for each in self.profiles]
        if self.rehearsal is not None:
            document["rehearsal"] = self.rehearsal.to_dict()
        if self.sensitivity is not None:
            document["sensitivity"] = self.sensitivity.to_dict()
        return document

    def lines(self) -> list[str]:
        """The same for a person."""
        lines = [f"profile of {p.parameter}: accepted {_open(p.interval)}" for p in self.profiles]
        if self.rehearsal is not None:
            lines.append(_rehearsal_line(self.rehearsal.to_dict()))
        if self.sensitivity is not None:
            for shift in self.sensitivity.dropped:
                rows = ", ".join(map(str, shift.rows))
                lines.append(
                    f"without rows {rows}: {shift.parameter} {shift.full:.4g} -> {shift.value:.4g}"
                )
        return lines

    def draw(self, folder: Path) -> list[Path]:
        """Write residuals, frontier, profiles and rehearsal as PNG and SVG, where there are any."""
        from analysis.show.figure_data import residual_cloud, surface_frontier
        from analysis.show.figures import (
            draw_profile,
            draw_rehearsal,
            draw_residuals,
            draw_surface_frontier,
            save,
        )

        paths: list[Path] = []
        if self.fit.optimum and self.fit.solved_law is self.fit.law:
            paths += save(draw_residuals(residual_cloud(self.fit)), folder, "residuals")
        frontier = surface_frontier(self.fit)
        if frontier is not None:
            paths += save(draw_surface_frontier(frontier), folder, "frontier")
        for each in self.profiles:
            paths += save(draw_profile(each), folder, f"profile_{each.parameter}")
        if self.rehearsal is not None:
            paths += save(draw_rehearsal(self.rehearsal), folder, "rehearsal")
        return paths


def extras_of(
    fit: Fit,
    *,
    profiles: Sequence[str] = (),
    hold_out: str | None = "auto",
    with_sensitivity: bool = False,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Extras:
    """Compute what was asked for, and profile up to two weak parameters unasked.

    ``hold_out="auto"`` rehearses wherever something can be predicted and held out, since no
    prediction should stand without a rehearsal; None leaves it out.
    """
    if hold_out == "auto":
        hold_out = _usual_hold_out(fit)
    return Extras(
        fit=fit,
        profiles=tuple(profile(fit, name) for name in _to_profile(fit, profiles)),
        rehearsal=None
        if hold_out is None
        else rehearse(fit, hold_out, num_resamples=num_resamples, seed=seed),
        sensitivity=sensitivity(fit) if with_sensitivity else None,
    )


def _usual_hold_out(fit: Fit) -> str | None:
    """The largest budget where enough remain, else a fifth of the rows by FLOPs, else nothing."""
    if any(reason.status == "refused" for reason in fit.certificate.reasons):
        return None
    if fit.points.num_budgets > FEWEST_GROUPS:
        return "largest-budget"
    enough = fit.points.num_rows >= 5 * len(fit.law.parameters)
    return "0.2" if enough and fit.points.flops is not None else None


def _to_profile(fit: Fit, asked: Sequence[str]) -> list[str]:
    weak = [
        name
        for reason in fit.certificate.reasons
        if reason.code in ("offset-at-zero", "weak", "not-identified")
        for name in reason.parameters
        if name == fit.law.offset or name in fit.law.nonlinear
    ]
    if any(fit.certificate.has(code) for code in NOTHING_TO_PROFILE):
        weak = []
    return list(dict.fromkeys([*asked, *weak[:PROFILES_UNASKED]]))


def _open(interval: tuple[float | None, float | None]) -> str:
    low, high = interval
    if low is None and high is None:
        return "everywhere in its range"
    if low is None:
        return f"up to {high:.4g}"
    return f"from {low:.4g}" + ("" if high is None else f" to {high:.4g}")


def _rehearsal_line(found: dict[str, Any]) -> str:
    if found["coverage"] is None:
        return f"rehearsal ({found['hold_out']}): the fit of the other rows was refused"
    seed = found["seed_log_std"]
    known = "not known" if seed is None else f"{100 * seed:.2g} %"
    return (
        f"rehearsal ({found['hold_out']}): {found['num_held_out']} runs predicted from "
        f"{found['num_fitted']}, mean absolute error {found['mean_absolute_error_nats']:.4g} nats "
        f"(residual noise {found['residual_nats']:.4g} nats, seed noise {known}), "
        f"{100 * found['coverage']:.0f} % inside their "
        f"{100 * found['nominal_coverage']:.0f} % interval"
    )
