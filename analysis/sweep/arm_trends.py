"""From which compute on is an arm better than another? Gaps at the frontiers of a sweep's arms.

Arms are compared over what both had: runs at depths that only one of them had are left out, and
where they had unequal freedoms that is said. Arms of one family are one (`search.record.trial`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from analysis.isoflop.frontier_gap import BudgetGap, GapTrend, gap_at, gap_trend, minimum_of
from analysis.isoflop.joint_curves import ArmRuns
from analysis.judge.fit_certificate import Reason
from analysis.points.column_names import with_sweep_names
from analysis.sweep.freedoms import ArmFreedoms, unequal_freedoms
from analysis.sweep.gain import FrontierPoint
from search.record.trial import family_of

ROLES = ("params", "tokens", "loss", "budget")
DEPTH, DATA_SEED, LOOPS = "num_layers", "data_seed", "num_loops"


def arm_trends(
    frame: pl.DataFrame,
    freedoms: Sequence[ArmFreedoms] = (),
    *,
    roles: Mapping[str, str] | None = None,
) -> tuple[GapTrend, ...]:
    """Every two arms of a sweep's frame, in alphabetical order; empty with one arm.

    ``frame`` has the rows that laws use. Without a column ``data_seed`` every row counts as of one
    data order, without ``num_layers`` as of one depth.
    """
    tables = _by_arm(frame, roles)
    return tuple(
        _trend(one, other, tables, freedoms)
        for one, other in itertools.combinations(sorted(tables), 2)
    )


def frontiers(
    frame: pl.DataFrame, *, roles: Mapping[str, str] | None = None
) -> dict[str, list[FrontierPoint]]:
    """The fitted minimum of every arm at every budget, smallest first, or why there is none."""
    return {
        arm: [_point(flops, table) for flops, table in _by_budget(table).items()]
        for arm, table in _by_arm(frame, roles).items()
    }


def _point(flops: float, table: pl.DataFrame) -> FrontierPoint:
    found = minimum_of(_runs(table), flops)
    if isinstance(found, str):
        return FrontierPoint(train_flops=flops, loss_nats=None, noise_nats=None, refused=found)
    return FrontierPoint(train_flops=flops, loss_nats=found[0], noise_nats=found[1])


def _trend(
    one: str, other: str, tables: Mapping[str, pl.DataFrame], freedoms: Sequence[ArmFreedoms]
) -> GapTrend:
    mine = [each for each in freedoms if family_of(each.arm) in (one, other)]
    unequal = unequal_freedoms(mine)
    reasons = [Reason(code="unequal-freedoms", status="warn", message=unequal)] if unequal else []
    (first, second), left_out = _at_common_depths(tables[one], tables[other])
    if left_out is not None:
        reasons.append(left_out)
    first_runs, second_runs = _by_budget(first), _by_budget(second)
    gaps = [
        gap_at(_runs(first_runs[flops]), _runs(second_runs[flops]), flops)
        for flops in sorted(first_runs.keys() & second_runs.keys())
    ]
    for place, (arm, runs) in enumerate(((one, first_runs), (other, second_runs))):
        reasons += _of_loops(arm, place, gaps, runs)
    return gap_trend(one, other, gaps, reasons=reasons)


def _of_loops(
    arm: str, place: int, gaps: Sequence[BudgetGap], runs: Mapping[float, pl.DataFrame]
) -> list[Reason]:
    """Of an arm that ran several K: which is its best, where all stand on one curve, and which have
    no curve of their own."""
    known = [gap for gap in gaps if gap.refused is None]
    several = [gap for gap in known if runs[gap.train_flops][LOOPS].n_unique() > 1]
    best = [gap for gap in several if gap.loops[place] is not None]
    mixed = [gap.train_flops for gap in several if gap.loops[place] is None]
    left_out = [gap for gap in several if gap.left_out[place]]
    reasons = []
    if best:
        told = ", ".join(f"{gap.loops[place]:g} at {gap.train_flops:.3g}" for gap in best)
        reasons.append(
            Reason(
                code="best-loops",
                status="ok",
                message=f"{arm} stands at the minimum of its best K: {told} FLOPs",
            )
        )
    if mixed:
        loops = sorted({float(each) for flops in mixed for each in runs[flops][LOOPS]})
        reasons.append(
            Reason(
                code="mixed-loops",
                status="warn",
                message=(
                    f"{arm} ran with K = {_listed(loops)} at {_listed(mixed)} FLOPs, and all stand "
                    f"on one curve, since none has a minimum by itself: the gap there is that of "
                    f"their mixture and no part of a trend; add sizes of one K (axes.num_loops)"
                ),
            )
        )
    if left_out:
        told = "; ".join(
            f"K = {_listed(gap.left_out[place])} at {gap.train_flops:.3g}" for gap in left_out
        )
        reasons.append(
            Reason(
                code="loops-left-out",
                status="warn",
                message=(
                    f"what is said of {arm} is said of some of its K alone: others have no minimum "
                    f"among their sizes and might be better ({told} FLOPs)"
                ),
            )
        )
    return reasons


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{each:g}" for each in numbers)


def _by_arm(frame: pl.DataFrame, roles: Mapping[str, str] | None) -> dict[str, pl.DataFrame]:
    """The columns that are needed, under the roles' names, of every arm; empty without budgets."""
    named = with_sweep_names(frame.columns, roles)
    group = "family" if "family" in frame.columns else "arm"
    columns = {role: named.get(role, role) for role in ROLES}
    if not {group, *columns.values()} <= set(frame.columns):
        return {}
    optional = [
        pl.col(name) if name in frame.columns else pl.lit(0).alias(name)
        for name in (DEPTH, DATA_SEED)
    ]
    loops = pl.col(LOOPS).fill_null(1) if LOOPS in frame.columns else pl.lit(1).alias(LOOPS)
    needed = frame.select(
        pl.col(group).alias("arm"),
        *(pl.col(n).alias(r) for r, n in columns.items()),
        *optional,
        loops,
    ).drop_nulls()
    return {str(arm): table for (arm,), table in needed.partition_by("arm", as_dict=True).items()}


def _by_budget(table: pl.DataFrame) -> dict[float, pl.DataFrame]:
    parts = table.partition_by("budget", as_dict=True)
    return dict(sorted((float(flops), part) for (flops,), part in parts.items()))


def _runs(table: pl.DataFrame) -> ArmRuns:
    sizes, tokens, losses = (
        table[role].to_numpy().astype(np.float64) for role in ("params", "tokens", "loss")
    )
    return ArmRuns(
        sizes=sizes,
        tokens=tokens,
        losses=losses,
        data_seeds=table[DATA_SEED].to_numpy().astype(np.int64),
        loops=table[LOOPS].to_numpy().astype(np.float64),
    )


def _at_common_depths(
    one: pl.DataFrame, other: pl.DataFrame
) -> tuple[tuple[pl.DataFrame, pl.DataFrame], Reason | None]:
    """The rows of two arms at depths that both had, and how many others there were, in words."""
    common = sorted(set(one[DEPTH]) & set(other[DEPTH]))
    kept = tuple(table.filter(pl.col(DEPTH).is_in(common)) for table in (one, other))
    num_out = one.height + other.height - sum(table.height for table in kept)
    if not num_out:
        return (kept[0], kept[1]), None
    message = (
        f"{num_out} runs at a depth that only one of both arms had are left out; common depths: "
        f"{_listed(common) or 'none'}"
    )
    return (kept[0], kept[1]), Reason(code="unequal-depths", status="ok", message=message)
