"""``isoflop intervene``: what a route is worth, as the change in loss where tokens are forced."""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from analysis.routing.controls import Chosen, choose_tokens, classes_held
from analysis.routing.effects import Effect, Effects, intervention_effects
from experiments.command import default_home, parse_options, print_json, talk
from search.record.ledger import Ledger
from search.record.runs import find_run
from search.record.trial_records import TrialRecord
from spaces.errors import RequestError

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class InterveneOptions:
    """What a route is worth: the loss where a class of tokens is forced along it, beside random
    tokens that are as many, as frequent and placed alike."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run by the beginning of its config_hash, its MLflow run id, or SWEEP/NUMBER."""
    conllu: Path | None = None
    """Tagged text: a CoNLL-U file, packed or not, as the treebanks of universaldependencies.org."""
    force: tuple[str, ...] = ()
    """deep, wide (that path has both gates' sum), close-deep, close-wide (that path has 0, the
    other what it had), loops=N (the deep path ends after N loops); left out: deep and wide, of a
    model without gates every number of loops but its own."""
    on: tuple[str, ...] = ()
    """Classes (punctuation, "function words", ...), tags (NOUN, ...), or all, which has no control;
    left out: every class of the text."""
    layers: tuple[int, ...] = ()
    """Force in these layers, counted from 0; left out: in all."""
    draws: int = 8
    """Random controls of each class."""
    documents: int = 0
    """Documents to read, from the first; 0 for all."""
    seed: int = 0
    """Of the controls."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto: cuda where there is one."""
    out: Path | None = None
    """Where to leave the rows as Parquet; left out: the home's folder probes."""
    home: Path = field(default_factory=default_home)
    """Where ledger, weights and text live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Intervened:
    """What was found."""

    record: TrialRecord
    loss_nats: float
    """On the text, without a force."""
    chosen: tuple[Chosen, ...]
    effects: Effects
    path: Path
    """Where the rows are."""


def run(argv: list[str]) -> int:
    """Force, measure, keep the rows and print effects beside their controls."""
    options = parse_options(InterveneOptions, argv, verb="intervene")
    if options.conllu is None:
        raise RequestError(
            "intervene needs --conllu FILE, a text whose words are tagged; treebanks of many "
            "languages are free at universaldependencies.org"
        )
    for name, least in (("documents", 0), ("draws", 1)):
        if getattr(options, name) < least:
            raise RequestError(f"--{name} must be at least {least}, got {getattr(options, name)}")
    with contextlib.closing(Ledger(options.home)) as ledger:
        record = find_run(ledger, options.run)
    found = _intervened(record, options, options.conllu)
    talk(f"one row per token and intervention in {found.path}")
    _warn_of_strange_text(found)
    if options.json:
        print_json(intervene_document(found))
    else:
        print_effects(found)
    return 0


def _intervened(record: TrialRecord, options: InterveneOptions, conllu: Path) -> Intervened:
    """Measure every force on every class."""
    import polars as pl

    from runners.probes.conllu import read_conllu
    from runners.probes.forcing import read_force, usual_forces
    from runners.probes.interventions import Interventions
    from runners.probes.windows import tagged_windows
    from runners.trial.trained import load_trained

    trained = load_trained(record, options.home, device=options.device)
    model = trained.model
    layers = options.layers or None
    asked = dict.fromkeys(options.force) or usual_forces(model)
    forces = [read_force(words, model, layers) for words in asked]
    documents = read_conllu(conllu)[: options.documents or None]
    context_length = model.architecture.context_length
    windows = tagged_windows(trained.tokenizer, documents, context_length=context_length)
    names = dict.fromkeys(options.on) or classes_held(windows.tokens)
    chosen = [
        choose_tokens(windows.tokens, name, draws=options.draws, seed=options.seed)
        for name in names
    ]
    measured = Interventions(model, windows, name=record.config_hash)
    rows = pl.concat(
        measured.rows(force, mask, on=each.name, draw=draw)
        for force in forces
        for each in chosen
        for draw, mask in zip([None, *range(options.draws)], each.masks, strict=False)
    )
    return Intervened(
        record=record,
        loss_nats=measured.loss_nats,
        chosen=tuple(chosen),
        effects=intervention_effects(rows),
        path=_kept(rows, record, options, conllu),
    )


def _warn_of_strange_text(found: Intervened) -> None:
    chance = math.log(found.record.proposal.config.architecture.vocab_size)
    if found.loss_nats > chance:
        talk(
            f"warning: the model predicts this text worse than chance ({found.loss_nats:.2f} nats "
            f"per token, chance {chance:.2f}): another language or script than it was trained on?"
        )


def _kept(rows: pl.DataFrame, record: TrialRecord, options: InterveneOptions, conllu: Path) -> Path:
    name = f"intervene-{record.config_hash}-{conllu.name.split('.')[0]}.parquet"
    path = options.out or options.home / "probes" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
    return path


def intervene_document(found: Intervened) -> dict[str, Any]:
    """The effects as JSON."""
    return {
        "config_hash": found.record.config_hash,
        "arm": found.record.proposal.arm,
        "rows": str(found.path),
        "loss_nats": found.loss_nats,
        "unit": found.effects.unit,
        "num_units": found.effects.num_units,
        "classes": [
            {
                "name": each.name,
                "tokens": each.class_tokens,
                "forced_tokens": int(each.is_forced.sum()),
                "draws": len(each.controls),
                "matched_share": each.matched_share,
            }
            for each in found.chosen
        ],
        "effects": [{**asdict(each), "differs": each.differs} for each in found.effects.effects],
    }


def print_effects(found: Intervened) -> None:
    """The effects as a table, and what the controls are."""
    from rich.console import Console
    from rich.table import Table

    effects, record = found.effects, found.record
    title = (
        f"change in nats per token of {record.config_hash} ({record.proposal.arm}; "
        f"{found.loss_nats:.3f} on this text) where tokens are forced\n"
        f"at: predictions made at forced tokens; later: at others after the first of them in a "
        f"window\n"
        f"95 % intervals over {effects.num_units} {effects.unit}s and the controls' draws; "
        f"* differs from the control at 5 % over all rows"
    )
    table = Table(title=title, title_justify="left")
    columns = ("force", "on", "where", "tokens", "change", "control", "less control", "95 %")
    for column in (*columns, "p (Holm)"):
        is_word = column in ("force", "on", "where")
        table.add_column(column, justify="left" if is_word else "right")
    for each in effects.effects:
        table.add_row(*_cells(each))
    Console(width=120).print(table)
    for chosen in found.chosen:
        if chosen.controls:
            print(_control_in_words(chosen))


def _cells(each: Effect) -> list[str]:
    interval = each.difference_interval
    apart = "none" if each.difference is None else f"{each.difference:+.4f}"
    between = "" if interval is None else f"{interval[0]:+.4f} to {interval[1]:+.4f}"
    if interval is None and each.difference is not None:
        between = "too few"
    return [
        each.force,
        f"{each.on} *" if each.differs else each.on,
        each.where,
        f"{each.tokens:,}",
        f"{each.effect:+.4f}",
        "none" if each.control is None else f"{each.control:+.4f}",
        apart,
        between,
        "" if each.p_adjusted is None else f"{each.p_adjusted:.2g}",
    ]


def _control_in_words(chosen: Chosen) -> str:
    forced = int(chosen.is_forced.sum())
    is_part = forced < chosen.class_tokens
    part = f" of {chosen.class_tokens:,}, drawn at random" if is_part else ""
    return (
        f"{chosen.name}: {forced:,} tokens{part}; {len(chosen.controls)} controls of as many "
        f"others at like positions, {chosen.matched_share:.0%} of them as frequent"
    )
