"""What do all verbs share? Parsing options, the home folder, and printing one JSON document."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TypeVar

from search.record.redaction import redact

Options = TypeVar("Options")


def parse_options(
    options: type[Options], argv: list[str], *, verb: str, default: Options | None = None
) -> Options:
    """Options of a verb from its dataclass; the help is the fields' docstrings. Exits with 2."""
    import tyro

    return tyro.cli(
        options,
        prog=f"isoflop {verb}",
        args=argv,
        default=tyro.MISSING_NONPROP if default is None else default,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.AvoidSubcommands),
        compact_help=default is not None,  # an experiment has too many fields to explain at once
    )


def default_home() -> Path:
    """``ISOFLOP_HOME`` or ``./runs``."""
    return Path(os.environ.get("ISOFLOP_HOME", "runs"))


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output; NaN and infinities are refused."""
    print(json.dumps(document, indent=2, allow_nan=False))


def talk(message: str) -> None:
    """One line for a person, on standard error, without secrets of addresses."""
    print(redact(message), file=sys.stderr)
