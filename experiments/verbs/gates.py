"""``isoflop gates``: where a trained model sends the tokens of a tagged text."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from analysis.routing.class_means import By, ClassMean, ClassMeans, Measure, WordGate, class_means
from analysis.routing.published import against_published
from experiments.command import default_home, parse_options, print_json, talk
from experiments.setup import sweep_name
from search.record.ledger import Ledger
from search.record.ranking import by_budget
from search.record.trial_records import TrialRecord
from spaces.arms.contract import find_arm
from spaces.errors import RequestError


@dataclass(frozen=True)
class GatesOptions:
    """Where a trained model sends the tokens of a tagged text."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Hash of a trial (its beginning is enough), or an experiment with --best."""
    conllu: Path | None = None
    """Tagged text: a CoNLL-U file, packed or not, as the treebanks of universaldependencies.org
    (for English: English Web Treebank, CC BY-SA 4.0)."""
    best: bool = False
    """RUN is an experiment: its best run that routes, at its largest budget."""
    by: By = "class"
    """What to compare: classes of tokens, parts of speech, layers, or positions (powers of 2)."""
    measure: Measure | None = None
    """deep_share, g_d, g_w or expected_loops; left out: deep_share where there are gates."""
    word_gate: WordGate = "mean"
    """A word's gate: the mean over its pieces, or its last piece's."""
    documents: int = 0
    """Documents to read, from the first; 0 for all."""
    out: Path | None = None
    """Where to leave the rows as Parquet; left out: the home's folder probes."""
    home: Path = field(default_factory=default_home)
    """Where ledger, MLflow database and artifacts live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


def run(argv: list[str]) -> int:
    """Probe a run, keep the rows, and print means by class."""
    options = parse_options(GatesOptions, argv, verb="gates")
    if options.conllu is None:
        raise RequestError(
            "gates needs --conllu FILE, a text whose words are tagged; treebanks of many languages "
            "are free at universaldependencies.org, for English the English Web Treebank "
            "(UD_English-EWT, CC BY-SA 4.0)"
        )
    if options.documents < 0:
        raise RequestError(f"--documents must be 1 or more, or 0 for all, got {options.documents}")
    with contextlib.closing(Ledger(options.home)) as ledger:
        record = _best(ledger, options.run) if options.best else _named(ledger, options.run)
    path, probe = _probe(record, options, options.conllu)
    measure = options.measure or ("expected_loops" if _lacks_gates(probe) else "deep_share")
    found = class_means(probe, measure=measure, by=options.by, word_gate=options.word_gate)
    talk(f"{len(probe):,} rows, one per token and layer, in {path}")
    if options.json:
        print_json(gates_document(record, found, path))
    else:
        print_gates(record, found)
    return 0


def _lacks_gates(probe: Any) -> bool:
    return bool(probe["g_d"].is_null().all())


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
            architecture = record.proposal.config.architecture
            if architecture.is_known and find_arm(architecture.arm).readouts_of(architecture):
                return record
    raise RequestError(f"{sweep} has no result of an arm that routes; sweep the dual or loop arm")


def _probe(record: TrialRecord, options: GatesOptions, conllu: Path) -> tuple[Path, Any]:
    """The rows of a run on a text, and where they are kept."""
    from runners.probes.conllu import read_conllu
    from runners.probes.gates import probe_gates, require_routing
    from runners.trial.trained import load_trained

    trained = load_trained(record, options.home)
    require_routing(trained.model)
    documents = read_conllu(conllu)[: options.documents or None]
    probe = probe_gates(trained.model, trained.tokenizer, documents, name=record.config_hash)
    stem = conllu.name.split(".")[0]
    path = options.out or options.home / "probes" / f"gates-{record.config_hash}-{stem}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    probe.write_parquet(path)
    return path, probe


def gates_document(record: TrialRecord, found: ClassMeans, path: Path) -> dict[str, Any]:
    """The means as JSON."""
    classes = [{**asdict(each), "differs": each.differs} for each in found.classes]
    words = {"config_hash": record.config_hash, "arm": record.proposal.arm, "rows": str(path)}
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
