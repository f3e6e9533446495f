"""``isoflop export RUN --hf DIR``: a trained model as a folder that transformers loads."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from experiments.command import default_home, parse_options, print_json, talk
from search.record.ledger import Ledger
from search.record.runs import find_run


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """A run as a Hugging Face folder: weights, configuration, tokenizer, card, and code where
    transformers has no class for the arm."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A run by the beginning of its config_hash, its MLflow run id, or SWEEP/NUMBER."""
    hf: Path
    """The folder to make; it must not exist."""
    home: Path = field(default_factory=default_home)
    """Where ledger, weights and text live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


def run(argv: list[str]) -> int:
    """Write the folder."""
    options = parse_options(ExportOptions, argv, verb="export")
    with contextlib.closing(Ledger(options.home)) as ledger:
        record = find_run(ledger, options.run)
    from runners.export.folder import export_folder
    from runners.trial.trained import load_trained

    files = export_folder(load_trained(record, options.home), options.hf)
    if options.json:
        print_json({"config_hash": record.config_hash, "folder": str(options.hf), "files": files})
    else:
        print(options.hf)
        talk(f"{record.proposal.arm} {record.config_hash}: {', '.join(files)}")
    return 0
