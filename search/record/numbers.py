"""Which numbers describe a trial? One flat row per trial, in one place, for whoever shows them.

MLflow's metrics, the leaderboard, plans and the tables that laws are fitted to are made from these
rows, so that a number has one name and one value everywhere; units are in the names. What an arm
adds is its own (`spaces.arms.contract.Arm.numbers` and its readouts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from search.record.evaluations import Evaluation
from search.record.trial import Outcome, Proposal
from spaces.arms.contract import find_arm
from spaces.arms.routing import collapsed_layers_share
from spaces.flops import forward_flops_per_token, train_flops_per_token
from spaces.parameters import count_active_parameters, count_parameters

MEASURED = (
    "loss_nats",
    "bits_per_byte",
    "generalization_gap_nats",
    "epochs",
    "wall_seconds",
    "setup_seconds",
    "measuring_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "model_flops_utilization",
)
"""Fields of an outcome that are numbers of the row by their own names."""


def configuration_numbers(proposal: Proposal) -> dict[str, int | float]:
    """Numbers known before a trial runs: shape, parameters by part, cost.

    Of an arm that cannot be imported here, as they were when the trial was asked for.
    """
    config, a, convention = (
        proposal.config,
        proposal.config.architecture,
        proposal.budget.convention,
    )
    if not a.is_known:
        return dict(proposal.numbers)
    assert proposal.budget.train_flops is not None
    numbers: dict[str, float | None] = {
        "target_train_flops": proposal.budget.train_flops,
        "train_flops": proposal.train_flops,
        "log10_train_flops": math.log10(proposal.train_flops),
        "forward_flops_per_token": forward_flops_per_token(a)[convention],
        "train_flops_per_token": train_flops_per_token(a)[convention],
        "tokens": config.tokens,
        "steps": config.num_steps,
        "num_layers": a.num_layers,
        "num_loops": a.num_loops,
        "effective_depth": a.effective_depth,
        "d_model": a.d_model,
        **find_arm(a.arm).numbers(a),
        **_optional_axes(proposal),
        "alpha": proposal.attained_alpha,
        "peak_learning_rate": config.training.learning_rate,
        "batch_sequences": config.training.batch_sequences,
    }
    parts = count_parameters(a).as_dict()
    total = parts.pop("total")
    numbers |= {"parameters": total, "active_parameters": count_active_parameters(a)}
    numbers |= {"tokens_per_parameter": config.tokens / total}
    numbers |= {f"parameters_{part}": number for part, number in parts.items()}
    numbers |= {"parameters_non_embedding": total - parts["embedding"] - parts["head"]}
    return {name: value for name, value in numbers.items() if value is not None}


def _optional_axes(proposal: Proposal) -> dict[str, float]:
    """Those that the experiment named: they are in no arm's own numbers."""
    optional = [axis.name for axis in find_arm(proposal.arm).all_axes() if axis.optional]
    return {name: float(proposal.axes[name]) for name in optional if name in proposal.axes}


def outcome_numbers(outcome: Outcome | None) -> dict[str, float]:
    """Numbers that a trial measured; what was not measured, or is no number, is absent."""
    if outcome is None:
        return {}
    numbers = {name: getattr(outcome, name) for name in MEASURED}
    numbers["final_train_loss_nats"] = outcome.train_loss_nats
    for name, layers in outcome.readouts.items():
        numbers[f"mean_{name}"] = sum(layers) / len(layers)
    numbers["collapsed_layers_share"] = collapsed_layers_share(outcome.readouts)
    return {
        name: float(value)
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


def evaluation_numbers(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    """Scores on tasks, as ``eval.TASK.RULE``."""
    return {name: value for each in evaluations for name, value in each.numbers().items()}
