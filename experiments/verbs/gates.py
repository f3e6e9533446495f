"""``isoflop gates``: where trained models send the tokens of a text."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from analysis.routing.class_means import By, ClassMean, ClassMeans, Measure, WordGate, class_means
from analysis.routing.over_models import ClassOverModels, over_models
from analysis.routing.published import against_published
from experiments.command import default_home, parse_options, print_json, talk
from experiments.setup import sweep_name
from search.record.ledger import Ledger
from search.record.ranking import by_budget
from search.record.trial_records import TrialRecord
from spaces.arms.contract import find_arm, shape_in_words
from spaces.errors import RequestError

if TYPE_CHECKING:
    import polars as pl

    from runners.probes.conllu import TaggedDocument


@dataclass(frozen=True)
class GatesOptions:
    """Where trained models send the tokens of a text."""

    run: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Hashes of trials (beginnings are enough), or one experiment with --best or --all. Several are
    set beside each other: what is drawn then are models, not documents."""
    conllu: Path | None = None
    """Tagged text: a CoNLL-U file, packed or not, as the treebanks of universaldependencies.org
    (for English: English Web Treebank, CC BY-SA 4.0)."""
    text: Path | None = None
    """Plain text instead, for --page: its words have no tags."""
    page: Path | None = None
    """Write one HTML file with every token of the text tinted by where it goes, layer by layer."""
    figures: Path | None = None
    """Write figures into this folder as PNG and SVG: by class, tag and layer, and over training."""
    best: bool = False
    """RUN is an experiment: its best run that routes, at its largest budget."""
    all: bool = False
    """RUN is an experiment: all its results that route and left weights."""
    by: By = "class"
    """What to compare: classes of tokens, parts of speech, layers, positions, or how often a token
    occurs in the text (both by powers of 2)."""
    measure: Measure | None = None
    """deep_share, g_d, g_w or expected_loops; left out: deep_share where there are gates."""
    word_gate: WordGate = "mean"
    """A word's gate: the mean over its pieces, or its last piece's."""
    documents: int = 0
    """Documents to read, from the first; 0 for all."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto: cuda where there is one."""
    out: Path | None = None
    """Where to leave the rows of one run as Parquet; left out: the home's folder probes."""
    home: Path = field(default_factory=default_home)
    """Where ledger, MLflow database and artifacts live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """One run on the text."""

    record: TrialRecord
    rows: pl.DataFrame
    """One per token and layer."""
    path: Path
    """Where they are."""
    pieces: tuple[str, ...]
    """Each token's part of the text."""

    @property
    def title(self) -> str:
        """The run in a few words."""
        proposal = self.record.proposal
        shape = shape_in_words(proposal.config.architecture)
        return f"{proposal.arm} {shape} ({self.record.config_hash})"


def run(argv: list[str]) -> int:
    """Probe runs, keep the rows, and print means by class."""
    options = parse_options(GatesOptions, argv, verb="gates")
    _check(options)
    with contextlib.closing(Ledger(options.home)) as ledger:
        records = _records(ledger, options)
    if len(records) > 1 and (options.page or options.out):
        raise RequestError("--page and --out are of one RUN; name one, or leave them out")
    probed = [_probed(record, options) for record in records]
    if options.page is not None:
        _write_page(probed[0], options, options.page)
    if options.figures is not None:
        _draw(probed, options, options.figures)
    if options.conllu is None:
        return 0
    found = [_means(each, options, by=options.by) for each in probed]
    documents = [gates_document(*each) for each in zip(probed, found, strict=True)]
    if len(probed) == 1:
        if options.json:
            print_json(documents[0])
        else:
            print_gates(probed[0].record, found[0])
        return 0
    rows = over_models(found)
    if options.json:
        print_json({"models": documents, "over_models": [asdict(row) for row in rows]})
    else:
        print_over_models(rows, probed, found[0])
    return 0


def _check(options: GatesOptions) -> None:
    if not options.run:
        raise RequestError("gates needs RUN: hashes of trials, or an experiment with --best")
    if (options.conllu is None) == (options.text is None):
        raise RequestError(
            "gates needs --conllu FILE, a text whose words are tagged (treebanks of many languages "
            "are free at universaldependencies.org, for English the English Web Treebank, "
            "UD_English-EWT, CC BY-SA 4.0), or --text FILE with --page"
        )
    if options.text is not None and options.page is None and options.figures is None:
        raise RequestError("a plain text has no classes to compare; add --page FILE")
    if options.documents < 0:
        raise RequestError(f"--documents must be 1 or more, or 0 for all, got {options.documents}")
    if (options.best or options.all) and len(options.run) != 1:
        raise RequestError("--best and --all take one experiment as RUN")
    if options.best and options.all:
        raise RequestError("--best is one run, --all are all of them; use one of both")


def _records(ledger: Ledger, options: GatesOptions) -> list[TrialRecord]:
    if options.best:
        return [_best(ledger, options.run[0])]
    if options.all:
        return _all(ledger, options.run[0])
    return [_named(ledger, name) for name in dict.fromkeys(options.run)]


def _means(each: Probed, options: GatesOptions, *, by: By) -> ClassMeans:
    lacks_gates = bool(each.rows["g_d"].is_null().all())
    measure = options.measure or ("expected_loops" if lacks_gates else "deep_share")
    return class_means(each.rows, measure=measure, by=by, word_gate=options.word_gate)


def _named(ledger: Ledger, name: str) -> TrialRecord:
    """The trial whose hash begins so."""
    records = [record for sweep in ledger.sweep_names() for record in ledger.trials(sweep)]
    found = {r.config_hash: r for r in records if r.config_hash.startswith(name)}
    if len(found) != 1:
        raise RequestError(
            f"RUN must be the hash of one trial of this home, but {name!r} begins those of "
            f"{len(found)}; isoflop best --json lists config_hash, and an experiment needs --best"
        )
    return next(iter(found.values()))


def _best(ledger: Ledger, experiment: str) -> TrialRecord:
    """The best result of a sweep, at its largest budget, that has something that routes."""
    sweep = sweep_name(experiment)
    ledger.sweep(sweep)  # says so where there is none
    for group in reversed(by_budget(ledger.trials(sweep)).values()):
        for record in group:
            if _routes(record):
                return record
    raise RequestError(f"{sweep} has no result of an arm that routes; sweep the dual or loop arm")


def _all(ledger: Ledger, experiment: str) -> list[TrialRecord]:
    """All results of a sweep that route and left weights, in the order of their numbers."""
    sweep = sweep_name(experiment)
    ledger.sweep(sweep)  # says so where there is none
    found = [
        record
        for record in ledger.trials(sweep)
        if record.is_result and _routes(record) and record.outcome and record.outcome.weights_path
    ]
    if not found:
        raise RequestError(
            f"{sweep} has no result that routes and left weights; sweep the dual or loop arm with "
            f"--training.save-weights in a new --home"
        )
    return found


def _routes(record: TrialRecord) -> bool:
    architecture = record.proposal.config.architecture
    return architecture.is_known and bool(find_arm(architecture.arm).readouts_of(architecture))


def _probed(record: TrialRecord, options: GatesOptions) -> Probed:
    """The rows of a run on a text, and where they are kept."""
    from analysis.report.token_page import pieces_of
    from runners.probes.gates import probe_gates, require_routing
    from runners.trial.trained import load_trained

    trained = load_trained(record, options.home, device=options.device)
    require_routing(trained.model)
    source = options.conllu or options.text
    assert source is not None
    documents = _documents(options)[: options.documents or None]
    rows = probe_gates(trained.model, trained.tokenizer, documents, name=record.config_hash)
    stem = source.name.split(".")[0]
    path = options.out or options.home / "probes" / f"gates-{record.config_hash}-{stem}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.write_parquet(path)
    talk(f"{len(rows):,} rows, one per token and layer, in {path}")
    pieces: list[str] = []
    if options.page is not None:
        tokens = rows.filter(layer=0)["token"].to_numpy()
        sizes = trained.tokenizer.token_num_bytes()[tokens].tolist()
        pieces = pieces_of([document.text for document in documents], sizes)
    return Probed(record=record, rows=rows, path=path, pieces=tuple(pieces))


def _documents(options: GatesOptions) -> list[TaggedDocument]:
    from runners.probes.conllu import TaggedDocument, read_conllu
    from runners.text.opening import open_text

    if options.conllu is not None:
        return read_conllu(options.conllu)
    assert options.text is not None
    try:
        with open_text(options.text) as file:
            text = file.read().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{options.text} cannot be read as UTF-8 text: {error}") from error
    if not text.strip():
        raise RequestError(f"{options.text} holds no text; name a file with some")
    return [TaggedDocument(name=options.text.name, text=text)]


def _write_page(probed: Probed, options: GatesOptions, path: Path) -> None:
    from analysis.report.token_page import TokenPage, token_page

    outcome, config = probed.record.outcome, probed.record.proposal.config
    source = options.conllu or options.text
    assert outcome is not None
    assert source is not None
    facts = [
        ("run", probed.record.config_hash),
        ("shape", shape_in_words(config.architecture)),
        ("training tokens", f"{config.tokens:,}"),
        ("validation loss", f"{outcome.loss_nats:.4f} nats"),
        ("tokens of the text", f"{len(probed.pieces):,}"),
    ]
    about = TokenPage(title=probed.title, text_name=source.name, facts=facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token_page(about, probed.rows, probed.pieces), encoding="utf-8")
    talk(f"{path}: every token tinted; open it in a browser")


def _draw(probed: Sequence[Probed], options: GatesOptions, folder: Path) -> None:
    """Figures of one run, or of all over models."""
    from analysis.show.figures import save
    from analysis.show.routing_figures import draw_means, draw_training

    paths: list[Path] = []
    tagged = options.conllu is not None
    if len(probed) > 1:
        rows = over_models([_means(each, options, by=options.by) for each in probed])
        figure = draw_means(
            [row.name for row in rows],
            [row.difference for row in rows],
            [row.interval for row in rows],
            measure="less all others, mean over models, 95 %",
            title=f"{len(probed)} models",
        )
        paths += save(figure, folder, f"gates-{options.by}-over-models")
    for each in probed if len(probed) == 1 else ():
        kinds: tuple[By, ...] = ("class", "tag", "layer") if tagged else ("layer",)
        for by in kinds:
            found = _means(each, options, by=by)
            figure = draw_means(
                [one.name if by != "layer" else str(int(one.name) + 1) for one in found.classes],
                [one.mean for one in found.classes],
                [one.interval for one in found.classes],
                measure=f"{found.measure.replace('_', ' ')} by {by}, 95 % over {found.unit}s",
                title=each.title,
            )
            paths += save(figure, folder, f"gates-{by}")
        readout = "deep_share" if not each.rows["g_d"].is_null().all() else "expected_loops"
        curve = [
            (point.tokens, point.readouts[readout])
            for point in each.record.curve
            if readout in point.readouts
        ]
        if len(curve) > 1:
            tokens, values = zip(*curve, strict=True)
            measure = readout.replace("_", " ")
            figure = draw_training(tokens, values, measure=measure, title=each.title)
            paths += save(figure, folder, "gates-training")
    talk(f"figures in {folder}: {', '.join(path.name for path in paths)}")


def gates_document(probed: Probed, found: ClassMeans) -> dict[str, Any]:
    """The means as JSON."""
    record = probed.record
    classes = [{**asdict(each), "differs": each.differs} for each in found.classes]
    words = {
        "config_hash": record.config_hash,
        "arm": record.proposal.arm,
        "rows": str(probed.path),
    }
    published = [asdict(each) for each in against_published(found)]
    return words | asdict(found) | {"classes": classes, "against_published": published}


def print_gates(record: TrialRecord, found: ClassMeans) -> None:
    """The means as a table."""
    from rich.console import Console
    from rich.table import Table

    title = (
        f"{found.measure} of {record.config_hash} ({record.proposal.arm}) by {found.by}\n"
        f"95 % intervals over {found.num_units} {found.unit}s; * differs from all others at 5 % "
        f"over all rows together"
    )
    table = Table(title=title, title_justify="left")
    for column in (found.by, "words", "mean", "95 %", "less others", "95 %", "p (Holm)"):
        table.add_column(column, justify="left" if column == found.by else "right")
    for each in found.classes:
        table.add_row(*_cells(each))
    Console(width=110).print(table)
    for claim in against_published(found):
        print(f"{claim.name}: published {claim.published}, here {claim.verdict}")


def _cells(each: ClassMean) -> list[str]:
    def between(interval: tuple[float, float] | None) -> str:
        return "too few" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"

    difference = "" if each.difference is None else f"{each.difference:+.4f}"
    p_value = "" if each.p_adjusted is None else f"{each.p_adjusted:.2g}"
    name = f"{each.name} *" if each.differs else each.name
    interval, apart = between(each.interval), between(each.difference_interval)
    return [name, f"{each.words:,}", f"{each.mean:.4f}", interval, difference, apart, p_value]


def print_over_models(
    rows: Sequence[ClassOverModels], probed: Sequence[Probed], first: ClassMeans
) -> None:
    """One row a class, over models."""
    from rich.console import Console
    from rich.table import Table

    title = (
        f"{first.measure} of {len(probed)} models by {first.by}\n"
        f"95 % intervals over models; * differs from all others at 5 % over all rows together"
    )
    table = Table(title=title, title_justify="left")
    for column in (first.by, "mean", "less others", "95 %", "published", "here", "models alone"):
        table.add_column(column, justify="left" if column == first.by else "right")
    for row in rows:
        low, high = row.interval or (math.nan, math.nan)
        alone = ", ".join(f"{count} {words}" for words, count in row.of_models.items())
        table.add_row(
            row.name + (" *" if row.differs else ""),
            f"{row.mean:.4f}",
            f"{row.difference:+.4f}",
            "" if row.interval is None else f"{low:+.4f} to {high:+.4f}",
            row.published or "",
            row.verdict or "",
            alone,
        )
    Console(width=130).print(table)
