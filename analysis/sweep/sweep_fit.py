"""What laws does a sweep support? Every arm's surface and iso-FLOP curves, and one law across arms.

Tiny sweeps rarely support a law; then the values here are refusals with their reasons.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from analysis.fit.fit_result import Fit
from analysis.fit.fitting import fit
from analysis.isoflop.frontier_gap import GapTrend
from analysis.isoflop.isoflop_fit import IsoflopFit, IsoflopMethod, fit_isoflop
from analysis.judge.fit_certificate import Reason
from analysis.points.column_names import with_sweep_names
from analysis.points.sweep_frame import RATE_COST
from analysis.points.table_reading import points_from
from analysis.show.figure_data import CurvePanel, frontier_line, gap_panel, loss_frontier
from analysis.sweep.arm_trends import arm_trends
from analysis.sweep.freedoms import ArmFreedoms
from search.limits.law_rows import why_not_for_laws
from spaces.errors import RequestError
from spaces.shown import Block, Shown, Table

NUM_RESAMPLES = 400
"""Resamples per fit."""

CAPACITY_ROLES = ("params_once", "params_deep", "params_wide", "num_loops", "tokens")

MOST_RATE_COST_NATS = 0.05
"""Rows whose rate is expected to lose more are no rows of a law: so far off, a parabola is no guide
to what they would have lost."""


@dataclass(frozen=True, kw_only=True)
class ArmFit(Shown):
    """The laws of one arm."""

    arm: str
    surface: Fit
    """Chinchilla's L(N, D), N being total parameters."""
    isoflop: IsoflopFit
    """Curves, optima and exponents."""
    loops: Fit | None = None
    """The law with K^phi, where the arm ran with several K; None elsewhere."""

    @property
    def laws(self) -> tuple[Fit, ...]:
        """Its laws, the surface first."""
        return (self.surface,) if self.loops is None else (self.surface, self.loops)

    def blocks(self) -> list[Block]:
        """Its laws, then its curves."""
        laws = [block for law in self.laws for block in law.blocks()]
        return [f"arm {self.arm}", *laws, *self.isoflop.blocks()]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON."""
        return {
            "surface": self.surface.to_dict(),
            "isoflop": self.isoflop.to_dict(),
            "loops": None if self.loops is None else self.loops.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class SweepFit(Shown):
    """All laws of a sweep."""

    arms: tuple[ArmFit, ...]
    """In alphabetical order."""
    capacity: Fit | None
    """The compute-capacity law over all arms; None with one arm or without its columns."""
    trends: tuple[GapTrend, ...]
    """Every two arms: their gap over compute, and from where on one is better."""
    conventions: tuple[str, ...]
    """What sizes, tokens and FLOPs count."""

    def blocks(self) -> list[Block]:
        """A row per law; each arm shows its own in full."""
        laws = [(each.arm, each.surface, each.isoflop.parameters["a"]) for each in self.arms]
        if self.capacity is not None:
            laws.append(("all arms", self.capacity, None))
        return [
            Table(
                caption="laws (arms[0].surface, arms[0].isoflop and capacity show theirs in full)",
                columns=("of", "law", "results", "status", "alpha", "beta", "a by curves"),
                rows=tuple(
                    (
                        name,
                        law.law.name,
                        law.points.num_rows,
                        law.status,
                        law.parameters["alpha"],
                        law.parameters["beta"],
                        exponent,
                    )
                    for name, law, exponent in laws
                ),
            ),
            *self.conventions,
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain form for JSON; what is refused or unknown is null."""
        return {
            "arms": {arm.arm: arm.to_dict() for arm in self.arms},
            "compute_capacity": None if self.capacity is None else self.capacity.to_dict(),
            "arm_trends": [trend.to_dict() for trend in self.trends],
            "conventions": list(self.conventions),
        }


def fit_sweep(
    frame: pl.DataFrame,
    *,
    method: IsoflopMethod = "pooled",
    roles: Mapping[str, str] | None = None,
    seed: int = 0,
    every_row: bool = False,
    freedoms: Sequence[ArmFreedoms] = (),
) -> SweepFit:
    """Fit every family of arms of a sweep's records; rows without a loss are left out.

    So are those that no law describes by their design (`for_laws`), unless ``every_row``.
    ``freedoms``: what each arm chose from, for the comparison of arms.

    ``frame`` has the columns that `sweep_frame` gives, or, by their short names, arm (or family),
    budget, flops, params, tokens, loss and, for the law across arms, params_once, params_deep,
    params_wide and num_loops. Raises `RequestError` where no row has a loss or a column is missing.
    """
    group = next((name for name in ("family", "arm") if name in frame.columns), None)
    if group is None:
        raise RequestError("a sweep's frame needs the column arm; fit other tables with --table")
    roles = with_sweep_names(frame.columns, roles)
    loss = roles.get("loss", "loss")
    done = frame.filter(pl.col(loss).is_not_null()) if loss in frame.columns else frame
    if done.height == 0:
        raise RequestError("no trial of this sweep has a loss yet; run it first")
    done, rates, left_out = rows_of_laws(done, roles, every_row=every_row)
    arms = []
    for arm in sorted(done[group].unique().to_list()):
        rows = done.filter(pl.col(group) == arm)
        points = points_from(
            rows,
            ("params", "tokens", "flops", "budget"),
            roles=roles,
            own_count=True,
        )
        surface = fit("chinchilla", points, num_resamples=NUM_RESAMPLES, seed=seed)
        curves = fit_isoflop(points, method=method, surface=surface)
        loops = _loop_law(rows, roles, seed)
        surface = surface if loops is None else _of_mixed_loops(surface)
        arms.append(ArmFit(arm=str(arm), surface=surface, isoflop=curves, loops=loops))
    return SweepFit(
        arms=tuple(arms),
        capacity=_capacity(done, roles, seed) if len(arms) > 1 else None,
        trends=arm_trends(done, freedoms, roles=roles),
        conventions=(
            "params of one arm's laws are all parameters of a model, embeddings and head included",
            "params_once of the law across arms are gates, norms and the head, whose FLOPs are "
            "paid once a token; the input embedding, which costs none, is in none of its parts",
            "optima on curves use the sweep's own FLOPs; N* of the surface uses C = 6 N D, which "
            "undercounts arms that loop",
            rates,
            left_out,
        ),
    )


def rows_of_laws(
    done: pl.DataFrame, roles: Mapping[str, str], *, every_row: bool = False
) -> tuple[pl.DataFrame, str, str]:
    """The results that laws and comparisons use, at their best rates; how that was done, and which
    were left out, in words. Raises `RequestError` where none is left."""
    done, others = of_one_schedule(done, roles.get("schedule", "schedule"))
    done, rates = at_best_rates(done, roles.get("loss", "loss"))
    if every_row:
        left_out = "every row is used, whatever its tokens, parameters and epochs"
    else:
        done, left_out = for_laws(done, roles)
    return done, rates, "; ".join(each for each in (left_out, others) if each)


def of_one_schedule(frame: pl.DataFrame, column: str = "schedule") -> tuple[pl.DataFrame, str]:
    """Rows of the schedule that most have, and which were left out, in words: cosine and wsd end
    at different losses, so that no law holds for both."""
    if column not in frame.columns or frame[column].n_unique() < 2:
        return frame, ""
    counts = Counter(frame[column].to_list())
    (kept, number), *others = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    said = ", ".join(f"{count} of {name}" for name, count in others)
    return frame.filter(pl.col(column).eq_missing(pl.lit(kept))), (
        f"a law is of one schedule: {number} rows of {kept} are used, {said} left out"
    )


def for_laws(
    frame: pl.DataFrame, roles: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, str]:
    """Rows that a law may use by their design, and which were left out, in words.

    Raises `RequestError` where none is left.
    """
    named = roles or {}
    there = {role: named.get(role, role) for role in ("params", "tokens", "epochs")}
    values = {
        role: frame[name].to_list() if name in frame.columns else [None] * frame.height
        for role, name in there.items()
    }
    rows = zip(*values.values(), strict=True)
    reasons = [why_not_for_laws(params=n, tokens=d, epochs=e) for n, d, e in rows]
    kept = frame.filter(pl.Series([reason is None for reason in reasons], dtype=pl.Boolean))
    counts = Counter(reason for reason in reasons if reason is not None)
    if not counts:
        return kept, "every row is one that laws describe, by its tokens, parameters and epochs"
    said = ", ".join(f"{number} with {reason}" for reason, number in sorted(counts.items()))
    if kept.height == 0:
        raise RequestError(
            f"a law needs runs of at least one token a parameter and at most four epochs, but all "
            f"rows are left out: {said}; ask for smaller models (axes.d_model) or more text"
        )
    return kept, f"left out by design, never by loss: {said}"


def at_best_rates(frame: pl.DataFrame, loss: str = "loss") -> tuple[pl.DataFrame, str]:
    """Losses as they would be at the best rate of each row, and how that was done, in words.

    The rate is a nuisance: what a row's rate is expected to lose is taken from its loss, and a row
    whose rate is far off is left out for its rate. None is chosen by its loss.
    """
    if RATE_COST not in frame.columns:
        return frame, "no other rates were tried: what the rates cost is in the losses, unknown"
    cost = pl.col(RATE_COST).fill_null(0.0)
    kept = frame.filter(cost <= MOST_RATE_COST_NATS)
    costs = [float(value) for value in kept[RATE_COST].drop_nulls()] or [0.0]
    middle, most = median(costs), max(costs)
    said = (
        f"from each loss is taken what its learning rate is expected to lose (median {middle:.4f}, "
        f"at most {most:.4f} nats); {frame.height - kept.height} rows whose rate loses more than "
        f"{MOST_RATE_COST_NATS:g} are left out; no row is chosen by its loss"
    )
    return kept.with_columns((pl.col(loss) - cost).alias(loss)), said


def with_head_used_once(frame: pl.DataFrame) -> pl.DataFrame:
    """A sweep's rows with the output matrix among the parameters that are used once, where its
    FLOPs are: a column ``parameters_shared`` of gates, norms and the head."""
    if not {"parameters_head", "parameters_shared"} <= set(frame.columns):
        return frame
    return frame.with_columns(pl.col("parameters_shared") + pl.col("parameters_head"))


def _capacity(frame: pl.DataFrame, roles: Mapping[str, str] | None, seed: int) -> Fit | None:
    named = roles or {}
    if any(named.get(role, role) not in frame.columns for role in CAPACITY_ROLES):
        return None
    points = points_from(with_head_used_once(frame), CAPACITY_ROLES, roles=roles, own_count=True)
    return fit("compute-capacity", points, num_resamples=NUM_RESAMPLES, seed=seed)


def _loop_law(frame: pl.DataFrame, roles: Mapping[str, str] | None, seed: int) -> Fit | None:
    """The law of an arm that ran with several K; what its wide path has is used once."""
    named = {role: (roles or {}).get(role, role) for role in CAPACITY_ROLES}
    if not set(named.values()) <= set(frame.columns) or frame[named["num_loops"]].n_unique() < 2:
        return None
    once = pl.col(named["params_once"]) + pl.col(named["params_wide"])
    rows = with_head_used_once(frame).with_columns(once)
    needed = ("params_once", "params_deep", "num_loops", "tokens")
    points = points_from(rows, needed, roles=roles, own_count=True)
    return fit("loop-power", points, num_resamples=NUM_RESAMPLES, seed=seed)


def _of_mixed_loops(surface: Fit) -> Fit:
    """The surface of stored parameters, with the warning that K is not in it."""
    reason = Reason(
        code="mixed-loops",
        status="warn",
        message=(
            "its runs have several K, and params counts a loop's parameters once whatever K is: "
            "loop-power, the law beside it, has K"
        ),
    )
    certificate = surface.certificate
    return replace(
        surface, certificate=replace(certificate, reasons=(*certificate.reasons, reason))
    )


def draw_sweep(sweep: SweepFit, folder: Path) -> list[Path]:
    """Write the sweep's figures (iso-FLOP curves; frontier; gaps of arms) as PNG and SVG."""
    from analysis.show.figures import draw_frontier, draw_gaps, draw_isoflop, save

    panels = [CurvePanel(title=arm.arm, curves=arm.isoflop.curves) for arm in sweep.arms]
    lines = [frontier_line(arm.arm, arm.isoflop) for arm in sweep.arms]
    losses = [loss_frontier(arm.arm, arm.isoflop.curves) for arm in sweep.arms]
    written = save(draw_isoflop(panels), folder, "isoflop_curves")
    written += save(draw_frontier(lines, losses), folder, "frontier")
    gaps = [gap_panel(trend) for trend in sweep.trends if trend.line is not None]
    return written + (save(draw_gaps(gaps), folder, "arm_gaps") if gaps else [])
