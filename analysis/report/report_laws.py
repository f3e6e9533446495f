"""What does a report say of laws? Parameters with intervals, certificates, the checklist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis.fit.fit_result import Fit
from analysis.isoflop.isoflop_fit import IsoflopFit
from analysis.judge.fit_certificate import Reason, Status
from analysis.report.confirmation_text import confirmation_text
from analysis.report.fit_text import between, number
from analysis.report.page_parts import NO_NUMBER, Finding, Section, Table, flops, short
from analysis.report.report_checklist import ChecklistItem, law_items, training_items
from analysis.sweep.confirmation import Confirmation
from analysis.sweep.sweep_fit import SweepFit
from search.record.trial_records import SweepRecord, TrialRecord

GRAVEST: tuple[Status, ...] = ("refused", "warn", "ok")
STATES = {"ok": "stands", "warn": "stands, with warnings", "refused": "refused"}
UNKNOWN = "unknown: the record does not tell"


def laws_sections(
    fitted: SweepFit | None,
    why_none: str,
    confirmations: Sequence[Confirmation],
    training: Sequence[ChecklistItem],
) -> list[Section]:
    """A section for each law, and one for how all models were trained."""
    if fitted is None:
        return [Section(name="laws", title="Laws", words=(f"No law was fitted: {why_none}",))]
    sections = [
        Section(
            name="laws",
            title="Laws",
            words=(
                "A parameter that the data do not tell is refused, and its place stays empty. What "
                "is counted how, and which rows a law sees:",
                "\n".join(f"– {line}" for line in fitted.conventions),
                *(confirmation_text(each) for each in confirmations),
            ),
            tables=(_overview(fitted), checklist_table("Training, common to all laws", training)),
        )
    ]
    for arm in fitted.arms:
        told = [confirmation_text(c) for c in confirmations if c.forecast.family == arm.arm]
        sections.append(_law(arm.arm, arm.surface, arm.isoflop, fitted.conventions, told))
        if arm.loops is not None:
            sections.append(_law(f"{arm.arm}, with K", arm.loops, None, fitted.conventions, ()))
    if fitted.capacity is not None:
        sections.append(_law("all arms", fitted.capacity, None, fitted.conventions, ()))
    return sections


def _overview(fitted: SweepFit) -> Table:
    """Every law's exponents, one row each."""
    rows = [(arm.arm, *_shapes(arm.surface), *_curves(arm.isoflop)) for arm in fitted.arms]
    return Table(
        caption="L(N, D) = E + A N^-alpha + B D^-beta of each arm, and N* ~ C^a by its curves",
        header=(
            *("arm", "certificate", "results", "E (nats)", "alpha", "beta", "a (curves)"),
            "budgets with a minimum",
        ),
        rows=tuple(rows),
    )


def _shapes(fit: Fit) -> tuple[str, ...]:
    told = [_told(fit.parameters[name], fit.interval(name)) for name in ("E", "alpha", "beta")]
    return (STATES[fit.status], str(fit.points.num_rows), *told)


def _curves(fitted: IsoflopFit) -> tuple[str, ...]:
    found = sum(curve.n_star is not None for curve in fitted.curves)
    told = _told(fitted.parameters["a"], fitted.intervals["a"])
    return (told, f"{found} of {len(fitted.curves)}")


def _told(value: float | None, interval: tuple[float, float] | None) -> str:
    return NO_NUMBER if value is None else f"{number(value)} {between(interval)}".strip()


def _law(
    name: str,
    fit: Fit,
    curves: IsoflopFit | None,
    notes: Sequence[str],
    confirmed: Sequence[str],
) -> Section:
    tables = [_parameters(fit)]
    reasons = list(fit.certificate.reasons)
    if curves is not None:
        tables.append(_optima(curves))
        reasons += [each for each in curves.certificate.reasons if each not in reasons]
    items = law_items(fit, notes, confirmed)
    return Section(
        name=f"law-{name}",
        title=f"Law of {name}",
        words=(f"{fit.law.formula}: {STATES[fit.status]}.",),
        findings=tuple(_findings(reasons)),
        tables=(*tables, checklist_table(f"(Mis)Fitting checklist of {name}", items)),
    )


def _findings(reasons: Sequence[Reason]) -> list[Finding]:
    """The reasons, gravest first; of those alike, which differ by a budget, the first."""
    kinds: dict[tuple[Status, str], list[Reason]] = {}
    for each in sorted(reasons, key=lambda reason: GRAVEST.index(reason.status)):
        kinds.setdefault((each.status, each.code), []).append(each)
    return [
        Finding(
            status=status,
            text=alike[0].message + (f" (and {len(alike) - 1} more alike)" if alike[1:] else ""),
        )
        for (status, _), alike in kinds.items()
    ]


def _parameters(fit: Fit) -> Table:
    rows = []
    for name, value in fit.parameters.items():
        state = STATES[fit.certificate.parameter_status(name)]
        beside = None if value is None else fit.jackknife.get(name)
        interval = fit.interval(name) if value is not None else None
        rows.append(
            (
                name,
                NO_NUMBER if value is None else number(value),
                between(interval) or NO_NUMBER,
                between(beside) or NO_NUMBER,
                state,
            )
        )
    return Table(
        caption="Parameters",
        header=("parameter", "value", "95 % interval", "by the jackknife over budgets", "status"),
        rows=tuple(rows),
    )


def _optima(fitted: IsoflopFit) -> Table:
    rows = tuple(
        (
            flops(curve.budget),
            str(len(curve.sizes)),
            short(curve.n_star),
            NO_NUMBER
            if curve.n_star_interval is None or curve.n_star is None
            else " to ".join(map(short, curve.n_star_interval)),
            short(curve.d_star),
            NO_NUMBER if curve.loss_star is None else f"{curve.loss_star:.4f}",
            "; ".join(r.message for r in curve.reasons if r.status == "refused"),
        )
        for curve in fitted.curves
    )
    return Table.of(
        "Minima of the iso-FLOP curves",
        (
            *("budget (FLOPs)", "runs", "N*", "95 % interval", "D* (tokens)", "loss (nats)"),
            "why there is none",
        ),
        rows,
    )


def checklist_table(caption: str, items: Sequence[ChecklistItem]) -> Table:
    """The items with their answers; what is unknown says so."""
    rows = tuple((each.part, each.question, each.answer or UNKNOWN) for each in items)
    return Table(caption=caption, header=("part", "item", "answer"), rows=rows, folded=True)


def training_of(
    sweep: SweepRecord, asked: Mapping[str, Any], records: Sequence[TrialRecord]
) -> list[ChecklistItem]:
    """The checklist's items on how the results were trained."""
    return training_items(sweep, asked, [record for record in records if record.is_result])
