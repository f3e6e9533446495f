"""Which peak rate is best for a shape, how sure is that, and what may a rate still cost?

A family's results give one quadratic in the logarithm of the rate:

    loss = base(configuration, seeds) + c (u - u*)^2,    u = ln(rate / the rule's rate)

``c`` is the family's curvature; the optimum ``u*`` moves with width, layers, loops and tokens by
a linear trend, and each configuration departs from it by a little of its own. Only configurations
that were trained at two rates or more say anything: bases are free, so no shape is compared with
another. For a given ``c`` all is linear and normal, hence exact (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, section 2.7); ``c`` itself is summed over on a grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from search.belief.seed_noise import Key, budget_noise, configuration_key
from search.record.trial import Proposal, family_of
from search.record.trial_records import TrialRecord, is_pending, loss_of
from spaces.axes import LEARNING_RATE_MULTIPLIER

Floats = NDArray[np.float64]

RATE = LEARNING_RATE_MULTIPLIER.name

CURVATURE_NATS, CURVATURE_SPREAD = 0.04, 0.8
"""Prior of ``c``: median in nats per squared unit of ln(rate), standard deviation of ln(c).
Measured: 0.02 to 0.07 (docs/rates.md)."""

TREND_SPREADS = (0.8, 0.5, 0.4, 0.4, 0.3)
"""Prior standard deviations of ``u*``: at the mean shape, and per ln of width, layers, loops and
tokens. The exponents measured lie within 0.3 of the rule's (docs/rates.md); other texts may not."""

OWN_SPREAD = 0.15
"""Standard deviation of a configuration's own departure from the trend, in ln(rate)."""

NOISE_NATS, NOISE_DEGREES = 0.005, 2
"""Seed noise before replicates tell, and how many degrees of freedom that counts for."""

BENT = 0.3
"""Relative error of the parabola far from its minimum: a run's loss above the lowest is believed to
within this share."""

DIVERGED_NATS = 0.2
"""A run that diverged counts as so far above the worst that did not."""

GRID = math.log(2) / 4
"""Rates are chosen on multiples of the rule's that lie a quarter of an octave apart."""

MAX_TRIALS = 240
"""Trials at several rates that a family's model is made of, the newest; its cost grows with their
cube."""

MOST_SHARED_NATS = 0.01
"""What one rate for trials of several lengths may cost where they are branches of one trunk."""

_BASE_NATS = 1.0
_CURVATURES = CURVATURE_NATS * np.exp(CURVATURE_SPREAD * np.linspace(-2.5, 2.5, 21))
_LOG_PRIOR = -0.5 * np.linspace(-2.5, 2.5, 21) ** 2
_NORMAL = np.array([-1.96, -1.645, -1.15, -0.67, -0.32, 0.0, 0.32, 0.67, 1.15, 1.645, 1.96])
_NORMAL_WEIGHTS = np.exp(-0.5 * _NORMAL**2) * np.gradient(_NORMAL)


def shared_rate_nats(span: float) -> float:
    """What one rate is expected to cost the shortest and the longest of trials whose tokens differ
    by the factor ``span``, by the prior, where it is the best one for the trial half-way."""
    curvature = CURVATURE_NATS * math.exp(CURVATURE_SPREAD**2 / 2)
    return curvature * (TREND_SPREADS[-1] * math.log(span) / 2) ** 2


@dataclass(frozen=True, kw_only=True)
class BestRate:
    """What is believed of one configuration's best rate: a mixture of normals over curvatures."""

    weights: Floats
    """Of each curvature; they sum to 1."""
    means: Floats
    """Of ``u*`` under each."""
    variances: Floats
    """Of ``u*`` under each."""
    noise_nats: float
    """Seed noise at its budget."""
    reach: tuple[float, float]
    """Least and most ``u`` that may be proposed: an octave beyond what the family tried."""

    @cached_property
    def optimum(self) -> float:
        """The ``u`` of the lowest expected loss."""
        worth = self.weights * _CURVATURES
        return float(worth @ self.means / worth.sum())

    @cached_property
    def chosen(self) -> float:
        """The ``u`` to train at: the rule's own (0) unless another is expected to be better by half
        the seed noise, on the grid."""
        best = self.on_grid(self.optimum)
        gain = self.expected_cost(0.0) - self.expected_cost(best)
        return best if gain > self.noise_nats / 2 else 0.0

    def on_grid(self, u: float) -> float:
        """The nearest ``u`` of the grid within reach."""
        return GRID * round(min(max(u, self.reach[0]), self.reach[1]) / GRID)

    @property
    def multiplier(self) -> float:
        """The chosen multiple of the rule's rate."""
        return multiplier_of(self.chosen)

    @property
    def best_multiplier(self) -> float:
        """The multiple of the rule's rate that is believed best, wherever it lies."""
        return multiplier_of(self.optimum)

    def expected_cost(self, u: float) -> float:
        """Nats that a rate is expected to lose to the best one."""
        squares = (u - self.means) ** 2 + self.variances
        return float(self.weights @ (_CURVATURES * squares))

    def may_cost(self, u: float, *, share: float = 0.95) -> float:
        """Nats that a rate loses to the best one at most, with the given probability."""
        return _quantile(self._costs(u), self._mass, share)

    def cost_spread(self, u: float) -> float:
        """Standard deviation (nats) of what a rate loses to the best one."""
        costs = self._costs(u)
        mean = float(self._mass @ costs)
        return math.sqrt(float(self._mass @ (costs - mean) ** 2))

    def _costs(self, u: float) -> Floats:
        """What a rate costs at each of the optima that are believed possible."""
        spread = self.means[:, None] + np.sqrt(self.variances)[:, None] * _NORMAL
        return np.asarray((_CURVATURES[:, None] * (u - spread) ** 2).ravel())

    def interval(self) -> tuple[float, float]:
        """Multiples of the rule's rate between which the best lies with 95 % probability."""
        spread = (self.means[:, None] + np.sqrt(self.variances)[:, None] * _NORMAL).ravel()
        low, high = (_quantile(spread, self._mass, share) for share in (0.025, 0.975))
        return math.exp(low), math.exp(high)

    @cached_property
    def _mass(self) -> Floats:
        mass = (self.weights[:, None] * _NORMAL_WEIGHTS).ravel()
        return np.asarray(mass / mass.sum())


def multiplier_of(u: float) -> float:
    """The multiple of the rule's rate, to six digits, and on the grid where it is that near, so
    that equal choices stay equal."""
    on_grid = GRID * round(u / GRID)
    return float(f"{math.exp(on_grid if abs(u - on_grid) < 1e-5 else u):.6g}")


def log_multiplier(proposal: Proposal) -> float:
    """A proposal's ``u``."""
    return math.log(float(proposal.axes[RATE]))


class RateModel:
    """What a family's trials say of its best rates."""

    def __init__(self, records: Sequence[TrialRecord], noises: Mapping[float, float]) -> None:
        """``records`` are of one family; ``noises`` the seed noise (nats) by training FLOPs."""
        known = [r for r in records if r.is_result or r.state == "diverged" or is_pending(r)]
        tried = [log_multiplier(record.proposal) for record in known if not is_pending(record)]
        self._reach = (min(tried, default=0.0) - math.log(2), max(tried, default=0.0) + math.log(2))
        self._noises = noises
        trials = sorted(_at_several_rates(known), key=is_pending)
        above = _above_lowest([record for record in trials if not is_pending(record)])
        columns = _columns([record.proposal for record in trials])
        self._center = columns.features.mean(axis=0) if trials else None
        self._measured = self._conditioned(columns.first(len(above)), above)
        self._believed = self._conditioned(columns, above) if len(trials) > len(above) else None
        rest = above - _CURVATURES[:, None] * columns.u[: len(above)] ** 2
        rest = rest - _base_means(rest, columns.bases[: len(above)])
        self._pull = np.einsum("cij,cj->ci", self._measured.precision, rest)
        likelihood = 0.5 * self._measured.log_determinant - 0.5 * np.sum(rest * self._pull, axis=1)
        weights = np.exp(_LOG_PRIOR + likelihood - np.max(_LOG_PRIOR + likelihood))
        self._weights = weights / weights.sum()

    def at(self, proposal: Proposal) -> BestRate:
        """The best rate of a proposal's configuration.

        Trials that wait or run count as measured at what is expected: they move no mean.
        """
        asked = _columns([proposal])
        mean = np.sum(self._measured.cross(asked, self._at(asked)) * self._pull, axis=1)
        state = self._believed or self._measured
        cross = state.cross(asked, self._at(asked))
        own = _kernel(asked, asked, self._at(asked))[0, 0]
        return BestRate(
            weights=self._weights,
            means=mean,
            variances=np.maximum(own - state.explained(cross, cross), 1e-9),
            noise_nats=self.noise(proposal),
            reach=self._reach,
        )

    def cost_after(self, proposal: Proposal, u: float) -> float:
        """Nats that the best rate known of a configuration is expected to cost once it is trained
        at ``u`` too, beside the run that it has or will have."""
        belief = self.at(proposal)
        state = self._believed or self._measured
        own_run = not np.any(state.columns.bases == _columns([proposal]).bases)
        runs = np.array([log_multiplier(proposal), u] if own_run else [u])
        asked = _columns([proposal])
        center = self._at(asked)
        own = _kernel(asked, asked, center)[0, 0]
        slope = -2 * _CURVATURES[:, None] * runs
        cross = state.cross(asked, center)
        others = slope[:, :, None] * cross[:, None, :]
        others += _BASE_NATS**2 * (state.columns.bases == asked.bases)
        away = BENT * _CURVATURES[:, None] * (runs - belief.means[:, None]) ** 2
        noise = (self.noise(proposal) ** 2 + away**2)[:, :, None] * np.eye(len(runs))
        known = np.einsum("cri,cij,csj->crs", others, state.precision, others)
        covariance = slope[:, :, None] * slope[:, None, :] * own + _BASE_NATS**2 + noise - known
        shared = slope * own - np.einsum("ci,cij,crj->cr", cross, state.precision, others)
        told = np.linalg.solve(covariance, shared[:, :, None])[:, :, 0]
        variances = np.maximum(belief.variances - np.sum(shared * told, axis=1), 0)
        return replace(belief, variances=variances).expected_cost(belief.optimum)

    def noise(self, proposal: Proposal) -> float:
        """Seed noise (nats) at a proposal's budget."""
        return self._noises.get(_flops(proposal), NOISE_NATS)

    def _at(self, asked: _Columns) -> Floats:
        """The shape around which the trend turns."""
        center: Floats = asked.features[0] if self._center is None else self._center
        return center

    def _conditioned(self, columns: _Columns, above: Floats) -> _Conditioned:
        noise = np.array([self._noises.get(flops, NOISE_NATS) for flops in columns.flops])
        expected = _CURVATURES[:, None] * columns.u**2
        expected[:, : len(above)] = above
        center = np.zeros(len(TREND_SPREADS)) if self._center is None else self._center
        slope = -2 * _CURVATURES[:, None] * columns.u
        same = columns.bases[:, None] == columns.bases[None, :]
        prior = _kernel(columns, columns, center)
        covariance = slope[:, :, None] * prior * slope[:, None, :] + _BASE_NATS**2 * same
        spread = noise**2 + (BENT * expected) ** 2
        covariance += spread[:, :, None] * np.eye(len(columns.u))
        return _Conditioned(
            columns=columns,
            precision=np.linalg.inv(covariance),
            log_determinant=-np.linalg.slogdet(covariance)[1],
        )


@dataclass(frozen=True, kw_only=True)
class _Conditioned:
    """Runs that the optimum is conditioned on, under each curvature (first axis)."""

    columns: _Columns
    precision: Floats
    """(curvatures, trials, trials): inverse covariance of their losses."""
    log_determinant: Floats
    """(curvatures,): of the precision."""

    def cross(self, asked: _Columns, center: Floats) -> Floats:
        """(curvatures, trials): covariance of the asked ``u*`` with the runs' losses."""
        prior = _kernel(asked, self.columns, center)[0]
        return np.asarray(-2 * _CURVATURES[:, None] * self.columns.u * prior)

    def explained(self, one: Floats, other: Floats) -> Floats:
        """(curvatures,): covariance that the runs take away between two quantities."""
        return np.asarray(np.einsum("ci,cij,cj->c", one, self.precision, other))


class RateModels:
    """The rate models of a sweep's families; remembers what records did not change."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, RateModel]] = {}

    def of(self, arm: str, records: Sequence[TrialRecord]) -> RateModel:
        """The model of an arm's family, from the records of all arms."""
        family = family_of(arm)
        key = tuple((r.config_hash, r.state) for r in records if r.set_aside is None)
        known = self._known.get(family)
        if known is None or known[0] != key:
            known = (key, rate_model(family, records))
            self._known[family] = known
        return known[1]


def rate_model(family: str, records: Sequence[TrialRecord]) -> RateModel:
    """What the trials of a family say of its best rates."""
    counted = [record for record in records if record.set_aside is None]
    mine = sorted(
        (record for record in counted if record.proposal.family == family),
        key=lambda record: record.number,
    )
    return RateModel(mine, believed_noises(counted))


def believed_noises(records: Sequence[TrialRecord]) -> dict[float, float]:
    """Seed noise (nats) by training FLOPs: that of the replicates, drawn to a documented prior
    while they are few."""
    groups: dict[float, list[TrialRecord]] = {}
    for record in records:
        if record.is_result:
            groups.setdefault(_flops(record.proposal), []).append(record)
    found = {flops: budget_noise(group) for flops, group in groups.items()}
    degrees = sum(noise.degrees_of_freedom for noise in found.values())
    squares = sum(
        noise.degrees_of_freedom * (noise.seed_noise_nats or 0.0) ** 2 for noise in found.values()
    )
    prior = (NOISE_DEGREES * NOISE_NATS**2 + squares) / (NOISE_DEGREES + degrees)
    return {
        flops: math.sqrt(
            (NOISE_DEGREES * prior + noise.degrees_of_freedom * (noise.seed_noise_nats or 0.0) ** 2)
            / (NOISE_DEGREES + noise.degrees_of_freedom)
        )
        for flops, noise in found.items()
    }


def base_key(proposal: Proposal) -> tuple[Key, int, int]:
    """What runs that differ in nothing but their rate share."""
    config = proposal.config
    return configuration_key(proposal, any_rate=True), config.init_seed, config.data_seed


def _at_several_rates(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Trials with a partner that differs in its rate alone; of many the newest groups.

    One that diverged says nothing without one that did not.
    """
    groups: dict[object, list[TrialRecord]] = {}
    for record in records:
        groups.setdefault(base_key(record.proposal), []).append(record)
    kept: list[TrialRecord] = []
    for group in sorted(groups.values(), key=lambda group: -group[-1].number):
        if not any(record.is_result for record in group):
            group = [record for record in group if is_pending(record)]
        rates = {record.proposal.config.training.learning_rate for record in group}
        if len(rates) > 1 and len(kept) + len(group) <= MAX_TRIALS:
            kept += group
    return sorted(kept, key=lambda record: record.number)


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Trials as arrays, one entry (row) each."""

    u: Floats
    features: Floats
    """(trials, 5): 1, and ln of width, layers, loops, tokens."""
    shapes: NDArray[np.int64]
    """The configuration at any rate and with any seeds."""
    bases: NDArray[np.int64]
    """The same with its seeds."""
    flops: Floats
    """Training FLOPs of the budget."""

    def first(self, count: int) -> _Columns:
        return _Columns(**{name: values[:count] for name, values in vars(self).items()})


def _columns(proposals: Sequence[Proposal], *, u: float | None = None) -> _Columns:
    """``u`` stands in for the proposals' own."""
    return _Columns(
        u=np.array([log_multiplier(p) if u is None else u for p in proposals]),
        features=np.array([_features(p) for p in proposals]).reshape(-1, len(TREND_SPREADS)),
        shapes=_hashes([configuration_key(p, any_rate=True) for p in proposals]),
        bases=_hashes([base_key(p) for p in proposals]),
        flops=np.array([_flops(p) for p in proposals]),
    )


def _above_lowest(trials: Sequence[TrialRecord]) -> Floats:
    """Loss above the lowest of the same configuration and seeds, nats; where a run diverged, above
    the worst that did not."""
    losses: dict[object, list[float]] = {}
    for record in trials:
        losses.setdefault(base_key(record.proposal), [])
        if record.is_result:
            losses[base_key(record.proposal)].append(loss_of(record))
    return np.array(
        [
            (loss_of(r) if r.is_result else max(group) + DIVERGED_NATS) - min(group)
            for r in trials
            for group in [losses[base_key(r.proposal)]]
        ]
    )


def _hashes(values: Sequence[object]) -> NDArray[np.int64]:
    """Values as what is quick to compare."""
    return np.array([hash(value) for value in values], dtype=np.int64)


def _features(proposal: Proposal) -> list[float]:
    a = proposal.config.architecture
    logs = map(math.log, (a.d_model, a.num_layers, a.num_loops, proposal.config.tokens))
    return [1.0, *logs]


def _kernel(one: _Columns, other: _Columns, center: Floats) -> Floats:
    """Prior covariance of ``u*``: (trials of one, trials of the other)."""
    spreads = np.array(TREND_SPREADS)
    x, z = ((each.features - center) * spreads for each in (one, other))
    same = one.shapes[:, None] == other.shapes[None, :]
    return np.asarray(x @ z.T + spreads[0] ** 2 + OWN_SPREAD**2 * same)


def _base_means(values: Floats, bases: NDArray[np.int64]) -> Floats:
    """(curvatures, trials): means over the runs of each base."""
    _, index, counts = np.unique(bases, return_inverse=True, return_counts=True)
    member = (index[:, None] == np.arange(len(counts))) / np.maximum(counts, 1)
    return np.asarray((values @ member)[:, index])


def _quantile(values: Floats, mass: Floats, share: float) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(mass[order]), share)])


def _flops(proposal: Proposal) -> float:
    flops = proposal.budget.train_flops
    assert flops is not None
    return flops
