"""From words on the command line to what a verb works with: experiment, ground, ledger."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro
from pydantic import ValidationError

from experiments.arm_options import (
    options_of_arms,
    taken_options,
    with_options_of_arms,
    with_settings_of_arms,
)
from experiments.command import default_home, parse_options
from search.asked.experiment import (
    Experiment,
    describe_errors,
    find_experiment,
    load_experiment,
    name_in,
)
from search.asked.settings import LimitSettings
from spaces.errors import RequestError


@dataclass(frozen=True)
class SweepOptions:
    """Options of a verb that looks at a sweep."""

    experiment: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="EXPERIMENT")]
    """Name of an experiment that ships, or path of a TOML file."""
    home: Path = field(default_factory=default_home)
    """Where ledger, MLflow database and artifacts live."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""


@dataclass(frozen=True)
class ExperimentOptions(SweepOptions):
    """Options of a verb that may change any field of the experiment."""

    max_flops: float | None = None
    """Training FLOPs that the sweep may spend in all, as limits.max_flops."""
    max_hours: float | None = None
    """Worker-hours that the sweep may spend in all, as limits.max_hours."""
    settings: Annotated[Experiment | None, tyro.conf.arg(name="")] = None
    """Fields of the experiment."""


Options = TypeVar("Options", bound=ExperimentOptions)


def parse_experiment_options(
    options: type[Options], argv: list[str], *, verb: str
) -> tuple[Options, Experiment]:
    """Options of a verb, and the experiment with every field the command line changes."""
    argv, of_arms = taken_options(argv, options_of_arms())
    wrong: ValidationError | None = None
    for reference in _references(argv):
        base = load_experiment(reference) if reference else _example()
        try:
            base = with_options_of_arms(base, of_arms)
            default = options(experiment=tyro.MISSING, settings=base)
            parsed = parse_options(options, argv, verb=verb, default=default)
        except ValidationError as error:
            wrong = error
            continue
        if parsed.experiment == reference and parsed.settings is not None:
            return parsed, _capped(parsed, with_settings_of_arms(parsed.settings, base))
        find_experiment(parsed.experiment)  # says so where it names none
    assert wrong is not None, "what is asked for is among the references"
    raise RequestError(describe_errors(wrong, where="the command line"))


Looking = TypeVar("Looking", bound=SweepOptions)


def parse_sweep_options(
    options: type[Looking], argv: list[str], *, verb: str
) -> tuple[Looking, str]:
    """Options of a verb that looks at a sweep, and the sweep's name.

    Fields of the experiment are taken and checked as the other verbs do, so that one command line
    serves them all; of these only ``--name`` matters here.
    """
    kept, given = parted(argv, options)
    parsed = parse_options(options, kept, verb=verb)
    return parsed, changed_name(parsed.experiment, given, verb=verb)


def changed_name(reference: str, given: list[str], *, verb: str) -> str:
    """The name of the sweep of a reference whose fields words of the command line change."""
    if not given:
        return sweep_name(reference)
    return parse_experiment_options(ExperimentOptions, [reference, *given], verb=verb)[1].name


def parted(argv: list[str], options: type[Any]) -> tuple[list[str], list[str]]:
    """A command line's words for a verb's own options, and those that change fields of the
    experiment."""
    own = {f"--{each.name.replace('_', '-')}" for each in fields(options)}
    names = {name.replace("_", "-") for name in Experiment.model_fields}
    caps = {"--max-flops", "--max-hours"}
    kept: list[str] = []
    given: list[str] = []
    current = kept
    for word in argv:
        if word.startswith("--"):
            option = word.partition("=")[0].replace("_", "-")
            is_field = option in caps or option[2:].partition(".")[0] in names
            current = given if is_field and option not in own else kept
        current.append(word)
    return kept, given


def _capped(options: ExperimentOptions, experiment: Experiment) -> Experiment:
    """The experiment with the caps of the verb's own options."""
    caps = {"max_flops": options.max_flops, "max_hours": options.max_hours}
    given = {name: value for name, value in caps.items() if value is not None}
    try:
        LimitSettings.model_validate(given)
    except ValidationError as error:
        said = describe_errors(error, where="the command line")
        for name in given:
            said = said.replace(f"  {name}:", f"  --{name.replace('_', '-')}:")
        raise RequestError(said) from None
    limits = experiment.limits.model_copy(update=given)
    return experiment.model_copy(update={"limits": limits})


def _references(argv: list[str]) -> list[str | None]:
    """The words that may name the experiment: the first, or, where options stand before it, all
    that name one (a home's may be among them), or None where none does."""
    if argv and not argv[0].startswith("-"):
        return [argv[0]]
    return [word for word in argv if not word.startswith("-") and _names_one(word)] or [None]


def _names_one(word: str) -> bool:
    try:
        find_experiment(word)
    except RequestError:
        return False
    return True


def _example() -> Experiment:
    """Something to show defaults of in the help text."""
    return load_experiment("quickstart")


def sweep_name(reference: str) -> str:
    """The sweep that a reference means: the name in its TOML file, or the word itself.

    Nothing else of the file is read: an arm of it may not be known here.
    """
    try:
        return name_in(find_experiment(reference))
    except RequestError:
        if Path(reference).suffix == ".toml":
            raise
        return reference


def json_number(value: Any) -> Any:
    """Whole floats as integers, so that FLOPs and tokens read as counts."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@contextlib.contextmanager
def standard_output_kept_clean() -> Iterator[None]:
    """Send what libraries write to standard output (file descriptor 1) to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
