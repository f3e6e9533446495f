"""Which numbers describe a trial? One flat row per trial, in one place, for whoever shows them.

MLflow's metrics, the leaderboard and the tables that laws are fitted to are made from these rows,
so that a number has one name and one value everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from search.record.ledger import TrialRecord
from spaces.flops import forward_flops_per_token, train_flops_per_token
from spaces.parameters import count_parameters


def configuration_numbers(record: TrialRecord) -> dict[str, float]:
    """Numbers known before a trial runs: shape, parameters by part, cost. Units in the names."""
    proposal, config = record.proposal, record.proposal.config
    a, convention = config.architecture, record.proposal.budget.convention
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
        "deep_ffn": a.deep_ffn,
        "wide_ffn": a.wide_ffn,
        "deep_multiplier": a.deep_multiplier,
        "wide_multiplier": a.wide_multiplier,
        "alpha": proposal.attained_alpha,
        "step_scale_init": a.step_scale_init,
        "peak_learning_rate": config.training.learning_rate,
        "batch_sequences": config.training.batch_sequences,
    }
    parts = count_parameters(a).as_dict()
    total = parts.pop("total")
    numbers |= {"parameters": total, "tokens_per_parameter": config.tokens / total}
    numbers |= {f"parameters_{part}": number for part, number in parts.items()}
    return {name: float(value) for name, value in numbers.items() if value is not None}


def outcome_numbers(record: TrialRecord) -> dict[str, float]:
    """Numbers that a trial measured; what was not measured is absent."""
    outcome = record.outcome
    if outcome is None:
        return {}
    names = (
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
    numbers = {name: getattr(outcome, name) for name in names}
    numbers["final_train_loss_nats"] = outcome.train_loss_nats
    if outcome.gates:
        numbers["mean_deep_share"] = _mean(gate.mean_deep_share for gate in outcome.gates)
        numbers["mean_gate_entropy_nats"] = _mean(gate.mean_entropy_nats for gate in outcome.gates)
    return {name: float(value) for name, value in numbers.items() if value is not None}


def ranks(records: Sequence[TrialRecord]) -> dict[str, int]:
    """Configuration hash to rank among the results of its budget, by validation loss; 1 is best."""
    found: dict[str, int] = {}
    for group in by_budget(records).values():
        found |= {record.config_hash: rank for rank, record in enumerate(group, start=1)}
    return found


def by_budget(records: Sequence[TrialRecord]) -> dict[float, list[TrialRecord]]:
    """Results by target training FLOPs (ascending), best first."""
    groups: dict[float, list[TrialRecord]] = {}
    for record in records:
        if record.is_result and record.outcome is not None:
            assert record.proposal.budget.train_flops is not None
            groups.setdefault(record.proposal.budget.train_flops, []).append(record)
    return {
        target: sorted(groups[target], key=lambda record: (_loss(record), record.config_hash))
        for target in sorted(groups)
    }


def _loss(record: TrialRecord) -> float:
    assert record.outcome is not None
    assert record.outcome.loss_nats is not None
    return record.outcome.loss_nats


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
