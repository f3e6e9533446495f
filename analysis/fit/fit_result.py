"""What is the result of a fit? A frozen value that predicts, explains itself and prints as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analysis.judge.fit_certificate import Certificate, Status
from analysis.judge.fit_checks import TermAtCentre
from analysis.judge.lack_of_fit import Noise
from analysis.laws.law import FloatArray, Law
from analysis.objective.estimators import Estimator
from analysis.points.checked_points import Points
from analysis.solve.resampling import Replicates
from spaces.errors import RequestError
from spaces.shown import Block, Shown, Table, interval_cell

WIDEST_PREDICTION = 0.05
"""Half-width of a new run's 95 % interval over the loss; beyond it a prediction is refused."""


@dataclass(frozen=True, kw_only=True)
class Starts:
    """How many starts were polished and how far they agree."""

    number: int
    at_optimum: float | None
    """Share that reached the best objective, to a millionth."""
    spread: float | None
    """Largest relative spread of a parameter among those."""


@dataclass(frozen=True, kw_only=True)
class Derived:
    """One derived quantity; None where a parameter that it needs is refused."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    at_flops: float | None = None
    """Training FLOPs at which it is taken."""
    at_loss: float | None = None
    """Loss at which it is taken, nats."""
    outside_data_factor: float | None = None
    """How many times beyond the table's FLOPs that is; 1 inside."""
    convention: str | None = None
    """How FLOPs follow from sizes and tokens."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Predicted losses (m,) with two intervals and the distance from the data."""

    losses: FloatArray
    """Nats."""
    low: FloatArray
    high: FloatArray
    """Interval of the law itself: of the mean over many runs."""
    run_low: FloatArray
    run_high: FloatArray
    """Interval of one new run: the law's, widened by the residual noise."""
    outside_data_factor: FloatArray
    """Largest factor by which a column lies beyond the table's range; 1 inside."""

    @property
    def told(self) -> NDArray[np.bool_]:
        """(m,): whether a new run's interval is at most +-5 % of the loss; others are refused."""
        return np.asarray(self.run_high - self.run_low <= 2 * WIDEST_PREDICTION * self.losses)


@dataclass(frozen=True, kw_only=True)
class Fit(Shown):
    """A fitted law, or the reasons why there is none."""

    law: Law
    """The law that was asked for."""
    solved_law: Law
    """The law whose parameters ``optimum`` holds; another one only on frontier-only data."""
    estimator: Estimator
    points: Points
    optimum: Mapping[str, float]
    """Parameters at the optimum whatever their status; empty where no fit took place."""
    intervals: Mapping[str, tuple[float, float] | None]
    """Intervals of the parameters whatever their status."""
    objective: float | None
    """In the estimator's own convention."""
    starts: Starts
    replicates: Replicates | None
    noise: Noise | None
    derived: tuple[Derived, ...]
    certificate: Certificate
    seconds: float
    """Wall seconds of the whole fit, resamples included."""
    fixed: Mapping[str, float] = field(default_factory=dict)
    """Parameters that were held at a value, not fitted."""
    terms: Mapping[str, TermAtCentre] = field(default_factory=dict)
    """Every term at the centre of the table, by its coefficient: the same in every unit."""
    jackknife: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    """Intervals of the parameters by the jackknife over budgets, where ``intervals`` come from
    noise components: wider, since they assume less."""

    @property
    def status(self) -> Status:
        """The certificate's status."""
        return self.certificate.status

    @property
    def parameters(self) -> dict[str, float | None]:
        """Parameters that may be used: None where refused or absent."""
        return {
            name: None if self.certificate.refuses(name) else self.optimum.get(name)
            for name in self.law.parameters
        }

    def interval(self, name: str) -> tuple[float, float] | None:
        """Interval of a parameter that is not refused."""
        return None if self.certificate.refuses(name) else self.intervals.get(name)

    def derived_value(self, name: str, *, at_flops: float | None = None) -> Derived | None:
        """The derived quantity of that name (at those FLOPs), where there is one."""
        for entry in self.derived:
            if entry.name == name and (at_flops is None or entry.at_flops == at_flops):
                return entry
        return None

    def __call__(self, **columns: Any) -> Any:
        """Loss in nats at columns by role, which broadcast. Raises `RequestError` if refused."""
        self._require_trust()
        self._require_roles(columns)
        arrays = {role: np.asarray(values, dtype=np.float64) for role, values in columns.items()}
        return self.law.loss(arrays, self.optimum)

    def predict(self, columns: Mapping[str, Any] | pl.DataFrame) -> Prediction:
        """Losses with intervals at columns by role, each (m,).

        A prediction is refused by the interval of a new run there, not by whether each parameter
        is known by itself. Raises `RequestError` where the fit as a whole is refused.
        """
        self._require_trust()
        if isinstance(columns, pl.DataFrame):
            columns = {role: columns[role].to_numpy() for role in self.law.roles}
        self._require_roles(columns)
        arrays = {
            role: np.atleast_1d(np.asarray(columns[role], dtype=np.float64))
            for role in self.law.roles
        }
        assert self.replicates is not None
        assert self.noise is not None
        losses = np.atleast_1d(self.law.loss(arrays, self.optimum))
        names = self.law.parameters
        draws = {n: self.replicates.outer[:, place, None] for place, n in enumerate(names)}
        spread = np.broadcast_to(
            self.law.loss(arrays, draws), (len(self.replicates.outer), len(losses))
        )
        bands = [
            self._bands(float(x), spread[:, i], noise)
            for i, x in enumerate(losses)
            for noise in (0.0, self.noise.residual_std)
        ]
        ends = np.array(bands).reshape(len(losses), 2, 2)
        return Prediction(
            losses=losses,
            low=ends[:, 0, 0],
            high=ends[:, 0, 1],
            run_low=ends[:, 1, 0],
            run_high=ends[:, 1, 1],
            outside_data_factor=self._distance(arrays, len(losses)),
        )

    def _bands(self, loss: float, draws: FloatArray, noise: float) -> tuple[float, float]:
        assert self.replicates is not None
        found = self.replicates.interval(loss, draws, positive=True, noise=noise)
        return found if found is not None else (np.nan, np.nan)

    def _distance(self, arrays: Mapping[str, FloatArray], num: int) -> FloatArray:
        factor = np.ones(num)
        for role, values in arrays.items():
            known = self.points.columns[role]
            low, high = float(known.min()), float(known.max())
            with np.errstate(divide="ignore", invalid="ignore"):
                beyond = np.maximum(values / high, low / values)
            factor = np.fmax(factor, np.broadcast_to(beyond, (num,)))
        return factor

    def _require_trust(self) -> None:
        is_whole = set(self.law.parameters) <= set(self.optimum)
        refused = [
            reason.message
            for reason in self.certificate.reasons
            if reason.status == "refused" and (not reason.parameters or not is_whole)
        ]
        if refused:
            raise RequestError(f"this fit predicts nothing, it was refused: {'; '.join(refused)}")

    def _require_roles(self, columns: Mapping[str, Any]) -> None:
        missing = [role for role in self.law.roles if role not in columns]
        if missing:
            raise RequestError(
                f"{self.law.name} predicts from {', '.join(self.law.roles)}; "
                f"{', '.join(missing)} is missing"
            )

    def blocks(self) -> list[Block]:
        """The law, its parameters with their status, and the certificate."""
        rows = f"{self.points.num_rows} of {self.points.num_table_rows} rows"
        return [
            f"{self.law.name} by {self.estimator.name}, {rows}: {self.law.formula}",
            Table(
                caption="parameters",
                columns=("parameter", "value", "95 % interval", "status"),
                rows=tuple(
                    (
                        name,
                        value,
                        interval_cell(self.interval(name)),
                        self.certificate.parameter_status(name),
                    )
                    for name, value in self.parameters.items()
                ),
            ),
            *self.certificate.blocks(),
        ]

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of ``isoflop fit --json``; what is refused or unknown is null."""
        intervals = {name: _pair(self.interval(name)) for name in self.law.parameters}
        plain = {d.name: d for d in self.derived if d.at_flops is None and d.at_loss is None}
        intervals |= {name: _pair(entry.interval) for name, entry in plain.items()}
        return {
            "law": self.law.name,
            "formula": self.law.formula,
            "protocol": self.law.protocol or None,
            "estimator": self.estimator.name,
            "delta": self.estimator.delta if self.estimator.name == "huber" else None,
            "parameters": self.parameters,
            "intervals": intervals,
            "fixed": dict(self.fixed),
            "objective": self.objective,
            "objective_convention": self.estimator.convention,
            "starts": {
                "number": self.starts.number,
                "at_optimum": self.starts.at_optimum,
                "spread": self.starts.spread,
            },
            "terms": {name: term.to_dict() for name, term in self.terms.items()},
            "derived": {name: entry.value for name, entry in plain.items()} | self._at_targets(),
            "certificate": self.certificate.to_dict(),
            "data": self.points.to_dict(),
            "resampling": self._resampling(),
            "seconds": self.seconds,
        }

    def _resampling(self) -> dict[str, Any] | None:
        if self.replicates is None:
            return None
        return {
            "kind": self.replicates.kind,
            "number": len(self.replicates.outer),
            "level": self.replicates.level,
            "share_converged": self.replicates.share_converged,
            "assumes": self.replicates.assumes,
            "shared_noise": dict(self.replicates.shares),
            "jackknife_intervals": {
                name: None if self.certificate.refuses(name) else _pair(interval)
                for name, interval in self.jackknife.items()
            },
        }

    def _at_targets(self) -> dict[str, Any]:
        """Derived quantities at FLOPs and at losses, one entry per target."""
        frontier: dict[float, dict[str, Any]] = {}
        targets = []
        for entry in self.derived:
            if entry.at_flops is not None:
                row = frontier.setdefault(
                    entry.at_flops,
                    {
                        "flops": entry.at_flops,
                        "outside_data_factor": entry.outside_data_factor,
                        "convention": entry.convention,
                    },
                )
                row |= {entry.name: entry.value, f"{entry.name}_interval": _pair(entry.interval)}
            elif entry.at_loss is not None:
                targets.append(
                    {
                        "loss": entry.at_loss,
                        "outside_data_factor": entry.outside_data_factor,
                        entry.name: entry.value,
                        f"{entry.name}_interval": _pair(entry.interval),
                    }
                )
        result: dict[str, Any] = {}
        if frontier:
            result["frontier"] = list(frontier.values())
        if targets:
            result["targets"] = targets
        return result


def _pair(interval: tuple[float, float] | None) -> list[float] | None:
    """An interval for JSON; None where there is none or an end is not finite."""
    if interval is None or not np.isfinite(interval).all():
        return None
    return [float(interval[0]), float(interval[1])]
