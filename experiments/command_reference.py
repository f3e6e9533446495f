"""Which options does every verb have? ``docs/commands.md``, from the options that verbs parse.

``python -m experiments.command_reference`` writes the page; a test says when it is stale.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import tyro

from experiments.cli import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_WRONG_REQUEST, VERBS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"

HEAD = f"""# Commands

Written by `python -m experiments.command_reference` from the options that verbs parse; do not edit
it by hand. `isoflop VERB --help` says the same.

Every verb takes `--debug` (a traceback instead of one line) and `--arms-from FILE` (a Python file
with arms of your own, see [extending.md](extending.md)). Results go to standard output, talk to
standard error. `ISOFLOP_HOME` stands in for `--home` where that is left out. Exit codes:
{EXIT_DONE} done, {EXIT_FAILED} something failed, {EXIT_WRONG_REQUEST} the request was wrong,
{EXIT_INTERRUPTED} interrupted and saved.
"""

OF_EXPERIMENT = "settings."
"""Where fields of the experiment begin, in the names of a verb's options."""

FIELDS_HEAD = """## Fields of an experiment

In a TOML file (`[budget]`, then `train_flops = …`) or, of the verbs that say so, on the command
line (`--budget.train-flops …`). Defaults are those of `quickstart`, the first that ships.
"""


class _Asked(Exception):
    """What a verb gave to the parser."""

    def __init__(self, options: Any, **settings: Any) -> None:
        super().__init__()
        self.options, self.settings = options, settings


def reference() -> str:
    """The whole page."""
    with patch.dict(os.environ):
        os.environ.pop("ISOFLOP_HOME", None)  # whoever writes the page may have one
        options = {verb: options_of(verb) for verb in VERBS}
    sections = [_verb_section(verb, actions) for verb, actions in options.items()]
    return "\n".join([HEAD, *sections, _fields_section(options["plan"])])


def options_of(verb: str) -> list[argparse.Action]:
    """The options that a verb would parse."""

    def ask(options: Any, **settings: Any) -> None:
        raise _Asked(options, **settings)

    module = importlib.import_module(f"experiments.verbs.{verb}")
    with patch.object(tyro, "cli", ask):
        try:
            module.run([])
        except _Asked as asked:
            return _actions(asked)
    raise AssertionError(f"{verb} parses no options by `experiments.command.parse_options`")


def _actions(asked: _Asked) -> list[argparse.Action]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tyro names nothing in its place
        parser = tyro.extras.get_parser(
            asked.options, default=asked.settings["default"], config=asked.settings["config"]
        )
    return [each for each in parser._actions if each.dest != "help"]


def _verb_section(verb: str, actions: list[argparse.Action]) -> str:
    own = [each for each in actions if not each.dest.startswith(OF_EXPERIMENT)]
    summary = f"{VERBS[verb][0].upper()}{VERBS[verb][1:]}."
    lines = [f"## isoflop {verb}", "", summary, "", *_table(own)]
    if len(own) < len(actions):
        lines.append("\nAny field of the experiment is an option, too: see the end of this page.")
    return "\n".join(lines) + "\n"


def _fields_section(actions: list[argparse.Action]) -> str:
    fields = [each for each in actions if each.dest.startswith(OF_EXPERIMENT)]
    return "\n".join([FIELDS_HEAD, *_table(fields)]) + "\n"


def _table(actions: list[argparse.Action]) -> Iterator[str]:
    yield "| option | values | meaning |"
    yield "|---|---|---|"
    for each in actions:
        yield f"| `{_name(each)}` | {_values(each)} | {_meaning(each)} |"


def _name(action: argparse.Action) -> str:
    return max(action.option_strings, key=len, default=action.dest.upper())


def _values(action: argparse.Action) -> str:
    if not action.option_strings or action.metavar is None:
        return ""
    metavar = str(action.metavar).replace("{None}|", "").replace("{None,", "{")
    return f"`{_in_a_cell(metavar)}`"


def _meaning(action: argparse.Action) -> str:
    said = re.sub(r"\s+", " ", str(action.help or "")).removesuffix(" (repeatable)")
    answer = "Answers no: " if re.search(r"[-.]no-", _name(action)) else ""
    return answer + _in_a_cell(re.sub(r" ?\(default: ([^()]*)\)$", _default, said))


def _default(found: re.Match[str]) -> str:
    """A flag's default goes without saying; so does a folder of this machine."""
    said = found[1]
    is_plain = said in ("", "None", "True", "False") or Path(said).is_absolute()
    return "" if is_plain else f" Default: `{said}`."


def _in_a_cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(reference())
