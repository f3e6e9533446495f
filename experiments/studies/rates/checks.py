"""Was the chosen rate right, and what do the rules of batch and warm-up cost? Runs beside a sweep.

For the leader of each arm at the largest budget: half, once and twice its rate, on several data
orders that the three share. For the leader of the standard arm at the smallest and the largest
budget: half and twice the batch, each at three rates, and half and twice the warm-up. The runs are
a sweep of their own in the same home; the same command goes on.

    python -m experiments.studies.rates.checks rates.toml --text FOLDER --home HOME
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

import tyro

from runners.sweep import run_sweep
from search.asked.experiment import load_experiment
from search.belief.rate_standing import rate_standings
from search.belief.rates import log_multiplier, multiplier_of
from search.propose.cells import Ground, at_rate
from search.propose.listed import ListedProposer
from search.record.ledger import Ledger
from search.record.trial import Proposal
from search.record.trial_records import TrialRecord, loss_of

Rerate: TypeAlias = Callable[[Proposal, float], Proposal]
"""A shape at another multiple of the rule's rate."""

OCTAVES = (-1.0, 0.0, 1.0)
BATCHES, WARMUPS = (0.5, 2.0), (0.5, 2.0)


@dataclass(frozen=True)
class Options:
    """Check the rates that a sweep has chosen, and its recipe."""

    experiment: tyro.conf.Positional[Path]
    """The experiment's file."""
    text: Path
    """Its folder of text."""
    home: Path = Path("runs")
    """Where the sweep is."""
    seeds: int = 3
    """Data orders of each rate."""
    only_report: bool = False
    """Train nothing."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One configuration beside a leader."""

    what: str
    """rate, batch or warm-up."""
    arm: str
    train_flops: float
    factor: float
    """Of the rate, the batch or the warm-up over the leader's."""
    octaves: float
    """Of the rate over the leader's."""
    proposals: tuple[Proposal, ...]
    """One for each seed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is missing, then print what it says."""
    options = tyro.cli(Options, args=argv, description=__doc__)
    experiment = load_experiment(str(options.experiment))
    text = experiment.text.model_copy(update={"source": options.text.resolve()})
    with closing(Ledger(options.home)) as ledger:
        records = ledger.trials(experiment.name)
    rerate = partial(at_rate, experiment)
    checks = list(checks_of(records, load=rerate, seeds=options.seeds))
    proposals = [proposal for check in checks for proposal in check.proposals]
    name = f"{experiment.name}-checks"
    beside = experiment.model_copy(update={"name": name, "text": text, "trials": len(proposals)})

    def make_proposer(_: object, __: Ground) -> ListedProposer:
        return ListedProposer(proposals)

    if not options.only_report:
        run_sweep(beside, options.home, make_proposer=make_proposer, say=print)
    with closing(Ledger(options.home)) as ledger:
        report(checks, ledger.trials(name))
    return 0


def checks_of(records: Sequence[TrialRecord], *, load: Rerate, seeds: int) -> Iterator[Check]:
    """What is trained beside the leaders of a sweep."""
    by_hash = {record.config_hash: record.proposal for record in records}
    standings = rate_standings(records)
    budgets = sorted({standing.train_flops for standing in standings})
    for standing in standings:
        leader = replace(by_hash[standing.config_hash], purpose="tuning")
        if standing.train_flops == budgets[-1]:
            yield from _rates(leader, load, seeds)
        if standing.arm == "standard" and standing.train_flops in (budgets[0], budgets[-1]):
            yield from _recipes(leader, load)


def _rates(leader: Proposal, load: Rerate, seeds: int) -> Iterator[Check]:
    for octaves in OCTAVES:
        moved = _moved(leader, load, octaves)
        seeded = tuple(_seeded(moved, seed) for seed in range(seeds))
        yield _check("rate", leader, factor=2**octaves, octaves=octaves, proposals=seeded)


def _recipes(leader: Proposal, load: Rerate) -> Iterator[Check]:
    for octaves in (half / 2 for half in OCTAVES):
        base = _moved(leader, load, octaves)
        sequences = base.config.training.batch_sequences
        for factor in (*BATCHES, 1.0):
            one = (_with(base, batch_sequences=max(1, round(sequences * factor))),)
            yield _check("batch", leader, factor=factor, octaves=octaves, proposals=one)
    for factor in WARMUPS:
        warm = leader.config.training.warmup_fraction * factor
        one = (_seeded(_with(leader, warmup_fraction=warm), 0),)
        yield _check("warm-up", leader, factor=factor, octaves=0.0, proposals=one)


def _check(
    what: str, leader: Proposal, *, factor: float, octaves: float, proposals: tuple[Proposal, ...]
) -> Check:
    assert leader.budget.train_flops is not None
    return Check(
        what=what,
        arm=leader.arm,
        train_flops=leader.budget.train_flops,
        factor=factor,
        octaves=octaves,
        proposals=proposals,
    )


def _moved(leader: Proposal, load: Rerate, octaves: float) -> Proposal:
    """A leader at a rate so many octaves from its own, on the first seeds."""
    u = log_multiplier(leader) + octaves * math.log(2)
    return _seeded(load(leader, multiplier_of(u)), 0)


def _seeded(proposal: Proposal, seed: int) -> Proposal:
    return replace(proposal, config=replace(proposal.config, init_seed=seed, data_seed=seed))


def _with(proposal: Proposal, **changes: float | int) -> Proposal:
    training = replace(proposal.config.training, **changes)  # type: ignore[arg-type]
    return replace(proposal, config=replace(proposal.config, training=training))


def report(checks: Sequence[Check], records: Sequence[TrialRecord]) -> None:
    """Loss of every check less that of the leader on the same seeds, nats."""
    losses = {r.config_hash: loss_of(r) for r in records if r.is_result}
    noise = _pair_noise(checks, losses)
    for check in checks:
        base = next(
            each
            for each in checks
            if (each.arm, each.train_flops) == (check.arm, check.train_flops)
            and each.octaves == 0.0
            and (each.factor == 1.0)
            and each.what == ("rate" if check.what == "rate" else "batch")
        )
        pairs = [
            losses[one.config_hash] - losses[two.config_hash]
            for one, two in zip(check.proposals, base.proposals, strict=True)
            if one.config_hash in losses and two.config_hash in losses
        ]
        if not pairs:
            print(f"{check.what} {check.arm} {check.train_flops:.1e}: no result")
            continue
        half = f" ± {noise * math.sqrt(2 / len(pairs)):.4f}" if len(pairs) > 1 else ""
        loss = fmean(losses[p.config_hash] for p in check.proposals if p.config_hash in losses)
        config = check.proposals[0].config
        print(
            f"{check.what:8} {check.arm:9} {check.train_flops:.1e} FLOPs  x {check.factor:<5.3g} "
            f"rate x {2**check.octaves:<5.3g} (lr {config.training.learning_rate:.3g}, batch "
            f"{config.training.batch_sequences}): loss {loss:.4f}, {fmean(pairs):+.4f}{half} nats "
            f"({len(pairs)} seeds)"
        )


def _pair_noise(checks: Sequence[Check], losses: dict[str, float]) -> float:
    """Half-width (95 %) of one run's noise about the sum of its rate and its data order."""
    from scipy.stats import t

    squares, degrees = 0.0, 0
    for arm in sorted({check.arm for check in checks}):
        rows = [
            [losses.get(p.config_hash, math.nan) for p in check.proposals]
            for check in checks
            if check.what == "rate" and check.arm == arm
        ]
        if not rows or any(math.isnan(loss) for row in rows for loss in row):
            continue
        columns = [fmean(row[i] for row in rows) for i in range(len(rows[0]))]
        mean = fmean(columns)
        squares += sum(
            (loss - fmean(row) - columns[i] + mean) ** 2
            for row in rows
            for i, loss in enumerate(row)
        )
        degrees += (len(rows) - 1) * (len(columns) - 1)
    if not degrees:
        return math.nan
    return float(t.ppf(0.975, degrees)) * math.sqrt(squares / degrees)


if __name__ == "__main__":
    sys.exit(main())
