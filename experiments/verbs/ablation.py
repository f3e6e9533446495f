"""``isoflop ablation``: what each choice does beside the base, seed by seed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.solve.told_apart import LEVEL
from analysis.sweep.ablation import ROUTES, Ablation, Variant, ablation
from experiments.command import print_json
from experiments.setup import SweepOptions, parse_sweep_options


@dataclass(frozen=True)
class AblationOptions(SweepOptions):
    """Each choice of an ablation (search.goal = "ablation") beside the base, by the same seeds."""


def run(argv: list[str]) -> int:
    """Print the table."""
    options, name = parse_sweep_options(AblationOptions, argv, verb="ablation")
    found = ablation(name, options.home)
    if options.json:
        print_json(found.to_dict())
    else:
        print_ablation(found)
    return 0


def print_ablation(found: Ablation) -> None:
    """A table per arm and budget."""
    cells: dict[tuple[str, float], list[Variant]] = {}
    for each in found.variants:
        cells.setdefault((each.arm, each.train_flops), []).append(each)
    for (arm, flops), variants in cells.items():
        _print_cell(f"{found.name}: {arm} at {flops:.3g} training FLOPs", variants)
    print(
        f"less base: by the same seeds, 95 % of Student's t; * told apart at {LEVEL:.0%} over all "
        f"rows together (Holm)"
    )


def _print_cell(title: str, variants: Sequence[Variant]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("choice")
    shown = [name for name in ROUTES if any(name in each.routes for each in variants)]
    words = dict(zip(ROUTES, ("gate entropy", "deep share", "collapsed"), strict=True))
    for column in ("seeds", "loss (nats)", "less base", *(words[name] for name in shown)):
        table.add_column(column, justify="right")
    for each in variants:
        routes = [each.routes.get(name) for name in shown]
        table.add_row(
            each.varied,
            f"{each.num_seeds}" + (f" ({each.num_failed} failed)" if each.num_failed else ""),
            f"{each.loss_nats:.4f}",
            _difference(each),
            *("" if value is None else f"{value:.3f}" for value in routes),
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _difference(variant: Variant) -> str:
    if variant.difference_nats is None:
        return ""
    if variant.interval is None:
        return f"{variant.difference_nats:+.4f}"
    half = (variant.interval[1] - variant.interval[0]) / 2
    return f"{variant.difference_nats:+.4f} ± {half:.4f}{'*' if variant.differs else ' '}"
