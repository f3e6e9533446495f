"""Which runs find the best rate of each target, and what did they lose? Rows that outlive a cut.

Parametrisations whose factors are equal at a target train the same: they share their runs. A cell
is a target under one set of factors; its rates grow outwards from the middle of the list until the
best one has neighbours on both sides.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from experiments.benchmarks.rates.rate_targets import Scale, Target
from runners.text.corpus import Corpus
from runners.trial.training import TrainingOptions, run_trial
from search.record.trial import Outcome, TrainingRecipe, TrialConfig
from spaces.flops import train_flops_per_sequence
from spaces.parametrization import STANDARD


@dataclass(frozen=True, kw_only=True)
class RateRow:
    """One run."""

    key: str
    """Hash of all that decides the result."""
    target: str
    parametrizations: tuple[str, ...]
    """All that are the same at this target."""
    arm: str
    d_model: int
    num_layers: int
    num_loops: int
    tokens: int
    text_fingerprint: str
    batch_sequences: int
    learning_rate: float
    seed: int
    """Of weights and of the data's order."""
    status: str
    loss_nats: float | None
    """Final validation loss per token."""
    train_flops: int
    """In the ``full`` convention."""
    wall_seconds: float | None
    """Of training."""
    setup_seconds: float | None
    device: str | None


@dataclass(frozen=True, kw_only=True)
class RateCell:
    """A target under one set of factors."""

    target: Target
    parametrizations: tuple[str, ...]
    """All that have these factors here."""
    config: TrialConfig
    """At no rate and no seed yet."""

    def at(self, rate: float, seed: int) -> TrialConfig:
        """The trial at a rate."""
        training = replace(self.config.training, learning_rate=rate)
        return replace(self.config, training=training, init_seed=seed, data_seed=seed)

    @property
    def train_flops(self) -> int:
        """Of one run, in the ``full`` convention."""
        per_sequence = train_flops_per_sequence(self.config.architecture)["full"]
        return per_sequence * self.config.num_sequences


def rate_cells(
    targets: Sequence[Target],
    parametrizations: Sequence[str],
    *,
    scale: Scale,
    corpus: Corpus,
    tokens: int | None,
    on_gpu: bool,
) -> list[RateCell]:
    """The cells of the targets in their order, each set of factors once."""
    cells = []
    for target in targets:
        architecture = scale.architecture(target, vocab_size=max(256, corpus.vocab_size))
        by_factors: dict[str, tuple[TrialConfig, list[str]]] = {}
        for name, rule in scale.rules().items():
            # the rule has no effect but by its factors
            factors = replace(rule.at(architecture), rule=STANDARD.rule)
            config = TrialConfig(
                architecture=architecture,
                tokens=scale.tokens_of(target, tokens),
                training=TrainingRecipe(
                    learning_rate=0.0,
                    batch_sequences=scale.batch_sequences,
                    precision="bfloat16" if on_gpu else "float32",
                    parametrization=factors,
                ),
                text_fingerprint=corpus.fingerprint,
                eval_sequences=scale.eval_sequences,
                eval_points=0,
            )
            by_factors.setdefault(config.config_hash, (config, []))[1].append(name)
        cells += [
            RateCell(target=target, parametrizations=tuple(names), config=config)
            for config, names in by_factors.values()
            if not set(names).isdisjoint(parametrizations)
        ]
    return cells


def next_rate(
    losses: Mapping[float, float], rates: Sequence[float], *, beside: int
) -> float | None:
    """The rate to try next: of those up to ``beside`` places from the best, the nearest that has
    no loss yet; the middle one first; None where the best has its neighbours."""
    if not losses:
        return rates[len(rates) // 2]
    best = rates.index(min(losses, key=lambda rate: losses[rate]))
    near = sorted(range(len(rates)), key=lambda place: abs(place - best))
    untried = [rates[place] for place in near if abs(place - best) <= beside]
    return next((rate for rate in untried if rate not in losses), None)


def rates_of_cell(
    cell: RateCell,
    rows: Mapping[str, RateRow],
    *,
    rates: Sequence[float],
    seeds: int,
    beside: int,
) -> Iterator[TrialConfig]:
    """Trials that are still to be run, one after the other; ``rows`` grows as they are."""
    losses: dict[float, float] = {}
    while (rate := next_rate(losses, rates, beside=beside)) is not None:
        configs = [cell.at(rate, seed) for seed in range(seeds)]
        for config in configs:
            if config.config_hash not in rows:
                yield config
        found = [rows[config.config_hash].loss_nats for config in configs]
        losses[rate] = statistics.mean(math.inf if loss is None else loss for loss in found)


def run_row(cell: RateCell, config: TrialConfig, corpus: Corpus, device: str) -> RateRow:
    """Train one trial and say what came of it."""
    *_, outcome = run_trial(config, corpus, TrainingOptions(device=device, num_threads=1))
    assert isinstance(outcome, Outcome)
    a = config.architecture
    return RateRow(
        key=config.config_hash,
        target=cell.target.name,
        parametrizations=cell.parametrizations,
        arm=a.arm,
        d_model=a.d_model,
        num_layers=a.num_layers,
        num_loops=a.num_loops,
        tokens=config.tokens,
        text_fingerprint=config.text_fingerprint,
        batch_sequences=config.training.batch_sequences,
        learning_rate=config.training.learning_rate,
        seed=config.init_seed,
        status=outcome.status,
        loss_nats=outcome.loss_nats,
        train_flops=cell.train_flops,
        wall_seconds=outcome.wall_seconds,
        setup_seconds=outcome.setup_seconds,
        device=outcome.device,
    )


def read_rows(path: Path) -> dict[str, RateRow]:
    """The runs of a file by key; none where there is no file. A last line cut short is left out."""
    rows = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            fields = json.loads(line)
        except json.JSONDecodeError:
            continue
        fields["parametrizations"] = tuple(fields["parametrizations"])
        rows[fields["key"]] = RateRow(**fields)
    return rows


def append_row(path: Path, row: RateRow) -> None:
    """Add one run at the end of a file, on a line of its own."""
    torn = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps(asdict(row), allow_nan=False) + "\n")
