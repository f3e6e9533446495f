"""What do an arm's results say together? One surrogate per arm, over all its budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from search.belief.gaussian_process import MIN_RESULTS, Surrogate, features_of, milestone
from search.record.ledger import TrialRecord
from search.record.trial import Proposal, family_of
from search.record.trial_records import is_pending, loss_of
from spaces.arms.registry import is_known

Floats = NDArray[np.float64]


MAX_RESULTS = 1000
"""Results of an arm that its model is made of, at most: its cost grows with their cube."""


class ArmModels:
    """Surrogates of the arms of a sweep; remembers what is costly and changes rarely."""

    def __init__(self) -> None:
        self._features: dict[str, list[float]] = {}
        self._fitted: dict[tuple[tuple[str, float], ...], Floats] = {}

    def features(self, proposals: Sequence[Proposal]) -> Floats:
        """Features of each proposal, as rows."""
        for proposal in proposals:
            if proposal.config_hash not in self._features:
                self._features[proposal.config_hash] = features_of(proposal)
        return np.array([self._features[proposal.config_hash] for proposal in proposals])

    def model(self, arm: str, records: Sequence[TrialRecord]) -> Surrogate | None:
        """The surrogate of an arm, from results of its whole family; None with too few.

        Hyperparameters are fitted at milestones, to the first so many results: they are a function
        of the records too. A trial that still runs counts as measured at what is expected of it.
        """
        mine = sorted(
            (r for r in records if r.proposal.family == family_of(arm)), key=lambda r: r.number
        )
        results = _most_telling([record for record in mine if record.is_result])
        if len(results) < MIN_RESULTS:
            return None
        model = self._condition(results, self._hyperparameters(results))
        pending = [record.proposal for record in mine if is_pending(record)]
        return model.believing(self.features(pending)) if pending else model

    def _hyperparameters(self, results: list[TrialRecord]) -> Floats:
        first = results[: milestone(len(results))]
        key = tuple((record.config_hash, loss_of(record)) for record in first)
        if key not in self._fitted:
            self._fitted = {key: self._condition(first, None).hyperparameters, **self._fitted}
        return self._fitted[key]

    def _condition(self, results: list[TrialRecord], fitted: Floats | None) -> Surrogate:
        raw = self.features([record.proposal for record in results])
        losses = np.array([loss_of(record) for record in results])
        return Surrogate(raw, losses, fitted=fitted)


def _most_telling(results: list[TrialRecord]) -> list[TrialRecord]:
    """The results that a model is made of: all, or the best of each budget where they are many."""
    if len(results) <= MAX_RESULTS:
        return results
    by_budget: dict[float | None, list[TrialRecord]] = {}
    for record in results:
        by_budget.setdefault(record.proposal.budget.train_flops, []).append(record)
    share = MAX_RESULTS // len(by_budget)
    kept = [r for group in by_budget.values() for r in sorted(group, key=loss_of)[:share]]
    return sorted(kept, key=lambda record: record.number)


def denoised_losses(records: Sequence[TrialRecord]) -> dict[str, float]:
    """Configuration hash of each result to its loss without the luck of its seed, nats per token.

    The posterior mean of the arm's surrogate; the measured loss where an arm has too few results.
    """
    models = ArmModels()
    found: dict[str, float] = {}
    results = [record for record in records if record.is_result]
    for family in sorted({record.proposal.family for record in results}):
        mine = [record for record in results if record.proposal.family == family]
        model = models.model(family, mine) if is_known(family) else None
        found |= {record.config_hash: loss_of(record) for record in mine}
        if model is None:
            continue
        modelled = _most_telling(mine)
        mean, _ = model.predict(models.features([record.proposal for record in modelled]))
        losses = model.warp.inverse(mean).tolist()
        found |= {r.config_hash: loss for r, loss in zip(modelled, losses, strict=True)}
    return found


def recommend(
    records: Sequence[TrialRecord], denoised: Mapping[str, float] | None = None
) -> dict[float, TrialRecord]:
    """Per budget (training FLOPs), the result with the lowest loss once luck is taken out.

    ``denoised``: their `denoised_losses`, where they are at hand.
    """
    losses = denoised_losses(records) if denoised is None else denoised
    best: dict[float, TrialRecord] = {}
    for record in sorted(records, key=lambda record: record.number):
        if record.is_result:
            target = record.proposal.budget.train_flops
            assert target is not None
            before = best.get(target)
            if before is None or losses[record.config_hash] < losses[before.config_hash]:
                best[target] = record
    return dict(sorted(best.items()))
