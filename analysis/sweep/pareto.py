"""Which configurations does no other beat in loss and in what a user pays? Pareto fronts.

A configuration stands by its mean loss over seeds, so that a lucky seed buys no place. A front is
of the loss and one cost; a configuration is on it where none that costs as little has a lower loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from search.belief.seed_noise import by_configuration
from search.record.numbers import configuration_numbers, outcome_numbers
from search.record.trial_records import TrialRecord, loss_of


@dataclass(frozen=True)
class Cost:
    """What a user pays, and how it is shown."""

    name: str
    """In words."""
    unit: str = ""
    unit_size: float = 1.0
    """How many of the row's own unit make one of that."""

    @property
    def label(self) -> str:
        """With its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


COSTS = {
    "parameters": Cost("parameters"),
    "forward_flops_per_token": Cost("inference FLOPs per token"),
    "peak_memory_bytes": Cost("peak training memory", "GB", 1e9),
}
"""By number of a row; memory is measured while training, the others are exact."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A configuration, over its seeds."""

    record: TrialRecord
    """Its first run."""
    seeds: int
    """How many runs it has."""
    loss_nats: float
    """Mean over seeds, nats per token."""
    costs: Mapping[str, float]
    """By the names of `COSTS`; what was not measured is absent."""


@dataclass(frozen=True, kw_only=True)
class ParetoFront:
    """Loss against one cost."""

    cost: str
    """A name of `COSTS`."""
    candidates: tuple[Candidate, ...]
    """Every configuration whose cost is known, cheapest first."""
    front: tuple[Candidate, ...]
    """Those that none as cheap beats, cheapest first: the loss falls from one to the next."""


def pareto_fronts(records: Sequence[TrialRecord]) -> tuple[ParetoFront, ...]:
    """The front of the results of a sweep, all budgets together, for each of `COSTS`."""
    candidates = [_candidate(runs) for runs in by_configuration(records).values()]
    return tuple(_front(cost, candidates) for cost in COSTS)


def on_some_front(fronts: Sequence[ParetoFront]) -> list[tuple[Candidate, tuple[str, ...]]]:
    """Configurations that are on a front, lowest loss first, and the costs of those fronts."""
    found: dict[str, tuple[Candidate, list[str]]] = {}
    for front in fronts:
        for each in front.front:
            found.setdefault(each.record.config_hash, (each, []))[1].append(front.cost)
    ordered = sorted(found.values(), key=lambda pair: (pair[0].loss_nats, *pair[0].costs.values()))
    return [(candidate, tuple(costs)) for candidate, costs in ordered]


def _candidate(runs: Sequence[TrialRecord]) -> Candidate:
    first = min(runs, key=lambda record: record.number)
    measured = [outcome_numbers(run.outcome) for run in runs]
    memory = [row["peak_memory_bytes"] for row in measured if "peak_memory_bytes" in row]
    numbers = configuration_numbers(first.proposal)
    if memory:
        numbers["peak_memory_bytes"] = max(memory)
    return Candidate(
        record=first,
        seeds=len(runs),
        loss_nats=fmean(map(loss_of, runs)),
        costs={name: float(numbers[name]) for name in COSTS if name in numbers},
    )


def _front(cost: str, candidates: Sequence[Candidate]) -> ParetoFront:
    known = [each for each in candidates if cost in each.costs]
    known.sort(key=lambda each: (each.costs[cost], each.loss_nats, each.record.config_hash))
    front: list[Candidate] = []
    for each in known:
        if not front or each.loss_nats < front[-1].loss_nats:
            front.append(each)
    return ParetoFront(cost=cost, candidates=tuple(known), front=tuple(front))
