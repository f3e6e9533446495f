"""Does the best rate of a small model do for a wider, deeper, looped or longer one?

Loss against peak rate at targets that differ from a reference in one thing, under each
parametrisation, with paired seeds; then what the reference's best rate loses at each target. Every
run is a line of ``--out`` as it ends: a cut loses nothing, and the same command goes on.

    python -m experiments.benchmarks.rates.rate_transfer --text FOLDER --out rates.jsonl
    python -m experiments.benchmarks.rates.rate_transfer --analyse rates.jsonl
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from experiments.benchmarks.rates.rate_fits import RateFit, fit_rates, transfer
from experiments.benchmarks.rates.rate_runs import (
    RateCell,
    RateRow,
    append_row,
    rate_cells,
    rates_of_cell,
    read_rows,
    run_row,
)
from experiments.benchmarks.rates.rate_targets import ON_CPU, ON_GPU, TARGETS, Target
from experiments.command import talk
from runners.text.corpus import Corpus, prepare_corpus
from search.asked.settings import TrainingSettings
from spaces.errors import RequestError

RULES = {
    "the rule, loops as layers": TrainingSettings(),
    "the rule, layers alone": TrainingSettings(loop_exponent=0.0),
}
"""How a rate follows the shape under the standard parametrisation."""
RATES = tuple(0.00025 * 2**octave for octave in range(8))


@dataclass(frozen=True)
class Options:
    """Measure loss against peak rate, and what a transferred rate loses."""

    targets: tuple[str, ...] = tuple(TARGETS)
    """Which shapes, in this order; those without their reference are not analysed."""
    parametrizations: tuple[str, ...] = ("standard", "mup", "complete-p", "complete-p-loops")
    """Which of standard, mup, mup-loops, complete-p, complete-p-loops."""
    rates: tuple[float, ...] = RATES
    """Peak rates in order; the middle one is tried first."""
    beside: int = 2
    """Rates on each side of the best one that are run."""
    seeds: int = 2
    """Seeds of weights and order, the same at every rate."""
    tokens: int | None = None
    """Training tokens of the reference; left out: 10 M on a GPU, 20 thousand on a CPU."""
    batch_sequences: int | None = None
    """Sequences a step, at every target; left out: 32 of 512 tokens on a GPU, 8 of 64 on a CPU."""
    seconds: float = 3600.0
    """No run starts later than this."""
    text: Path | None = None
    """File or folder; left out: the default corpus."""
    tokenizer: str = "bytes"
    """As in an experiment's [text]."""
    out: Path = Path("rates.jsonl")
    """Where runs are written, and which of them are there."""
    analyse: Path | None = None
    """A file to analyse; nothing is run."""
    reach: float = 2.0
    """Octaves from the best rate within which the parabola is fitted."""


def measure(options: Options, rows: dict[str, RateRow]) -> None:
    """Run what is missing until the time is up."""
    until = time.monotonic() + options.seconds
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        corpus = prepare_corpus(options.text, tokenizer=options.tokenizer, cache_dir=Path(folder))
        cells = cells_of(options, corpus, on_gpu=device == "cuda")
        require_one_study(cells, rows)
        for cell in cells:
            talk(f"{title(cell.target, cell.parametrizations)}: {cell.train_flops:.3g} FLOPs a run")
        for cell in cells:
            wanted = rates_of_cell(
                cell, rows, rates=options.rates, seeds=options.seeds, beside=options.beside
            )
            for config in wanted:
                if time.monotonic() > until:
                    talk(f"time is up; not yet whole: {cell.target.name} and what follows")
                    return
                row = rows[config.config_hash] = run_row(cell, config, corpus, device)
                append_row(options.out, row)
                talk(in_words(row))


def cells_of(options: Options, corpus: Corpus, *, on_gpu: bool) -> list[RateCell]:
    """The cells that the options name. Raises `RequestError` for a name that is none."""
    scale = ON_GPU if on_gpu else ON_CPU
    if options.batch_sequences is not None:
        scale = replace(scale, batch_sequences=options.batch_sequences)
    for asked, known in (
        (options.targets, [*TARGETS]),
        (options.parametrizations, [*scale.rules()]),
    ):
        if unknown := [name for name in asked if name not in known]:
            raise RequestError(f"{', '.join(unknown)} is none of {', '.join(known)}")
    return rate_cells(
        [TARGETS[name] for name in options.targets],
        options.parametrizations,
        scale=scale,
        corpus=corpus,
        tokens=options.tokens,
        on_gpu=on_gpu,
    )


def require_one_study(cells: Sequence[RateCell], rows: Mapping[str, RateRow]) -> None:
    """Raise `RequestError` where a file has runs of a target with other text, tokens or batch."""
    asked = {
        cell.target.name: (
            cell.config.text_fingerprint,
            cell.config.tokens,
            cell.config.training.batch_sequences,
        )
        for cell in cells
    }
    for row in rows.values():
        found = (row.text_fingerprint, row.tokens, row.batch_sequences)
        if asked.get(row.target, found) != found:
            raise RequestError(
                f"runs of one target in a file need one text, number of tokens and batch, but it "
                f"has {row.target} with {row.tokens} tokens of {row.text_fingerprint[:16]}, "
                f"{row.batch_sequences} sequences a step; use another --out"
            )


def title(target: Target, parametrizations: Sequence[str]) -> str:
    """A cell in words; all parametrisations where nothing is scaled."""
    return f"{target.name} ({' = '.join(parametrizations)})"


def in_words(row: RateRow) -> str:
    """A run in words."""
    loss = row.status if row.loss_nats is None else f"{row.loss_nats:.4f} nats"
    return (
        f"{row.target} {row.parametrizations[0]} rate {row.learning_rate:g} seed {row.seed}: {loss}"
        f", {row.wall_seconds or 0:.1f} s"
    )


def ruled_factor(target: Target, settings: TrainingSettings) -> float:
    """By what an experiment's rule multiplies a rate on its way from the reference to a target."""
    base = TARGETS[target.reference]
    by_width: float = (target.d_model / base.d_model) ** settings.width_exponent
    by_layers: float = (target.num_layers / base.num_layers) ** settings.depth_exponent
    by_loops: float = (target.num_loops / base.num_loops) ** (
        settings.depth_exponent + settings.loops_beside_depth
    )
    return by_width * by_layers * by_loops


def fits(
    rows: Mapping[str, RateRow], *, reach: float
) -> dict[tuple[str, tuple[str, ...]], RateFit | None]:
    """The parabola of every cell, by target and parametrisations, in the targets' order."""
    cells: dict[tuple[str, tuple[str, ...]], list[RateRow]] = {}
    for name in TARGETS:
        for row in rows.values():
            if row.target == name:
                cells.setdefault((name, row.parametrizations), []).append(row)
    # another seed each: draws of two cells are independent
    return {
        cell: fit_rates(found, reach=reach, seed=seed)
        for seed, (cell, found) in enumerate(cells.items())
    }


def report(rows: Mapping[str, RateRow], *, reach: float = 2.0) -> Iterator[str]:
    """The lines of the analysis."""
    found = fits(rows, reach=reach)
    references = {name: fit for (name, _), fit in found.items()}  # one cell: nothing is scaled
    for (name, parametrizations), fit in found.items():
        target = TARGETS[name]
        yield title(target, parametrizations)
        if fit is None:
            yield "  no minimum within the rates that were run"
            continue
        yield described(fit)
        reference = references.get(target.reference)
        if reference is not None and name != target.reference:
            yield transferred("one rate for all", fit, reference, factor=1.0)
            for how, settings in RULES.items() if "standard" in parametrizations else ():
                factor = ruled_factor(target, settings)
                if abs(factor - 1.0) > 1e-9:
                    yield transferred(how, fit, reference, factor=factor)


def described(fit: RateFit) -> str:
    """A parabola in words."""
    low, high = fit.rate_interval
    least, most = fit.curvature_interval
    edge = "" if fit.is_bracketed else "; NOT BRACKETED: read as a bound"
    return (
        f"  best rate {2**fit.optimum:.3g} [{low:.3g}, {high:.3g}], loss {fit.loss_nats:.4f} nats, "
        f"curvature {fit.curvature:.4f} [{least:.4f}, {most:.4f}] nats per octave squared, "
        f"residual {fit.residual_nats:.4f} nats, {fit.num_runs} runs{edge}"
    )


def transferred(how: str, fit: RateFit, reference: RateFit, *, factor: float) -> str:
    """A transfer in words."""
    found = transfer(fit, reference, factor=factor)
    low, high = found.interval
    return (
        f"  {how}: {found.rate:.3g}, {found.octaves:+.2f} octaves, loses {found.loss_nats:.4f} "
        f"[{low:.4f}, {high:.4f}] nats"
    )


def main() -> None:
    """Entry point."""
    try:
        options = tyro.cli(Options, prog="rate_transfer")
        rows = read_rows(options.analyse or options.out)
        if options.analyse is None:
            measure(options, rows)
    except RequestError as error:
        sys.exit(f"rate_transfer: {error}")
    print("\n".join(report(rows, reach=options.reach)))


if __name__ == "__main__":
    main()
