"""How are arms, and what only they have, named on the command line?

Options are made from fields. What an arm alone has (its own fields, its axes) is on no list that is
known when the options are made: such words are taken out first.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import MISSING, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from search.asked.experiment import Experiment
from search.asked.settings import AxisSettings, LearningRates, declared_axes
from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.arms.registry import known_arms, load_arms
from spaces.errors import RequestError

ARMS_FROM = "arms-from"
"""The option of every verb that names a Python file of arms."""

_RATES = "training.learning_rate."
_OF_ARMS = ("own", "arm_source")


def load_named_arms(argv: list[str]) -> list[str]:
    """Load the files that ``--arms-from`` names; the other words. Raises `RequestError`."""
    rest, named = taken_options(argv, [ARMS_FROM])
    if ARMS_FROM in named and not named[ARMS_FROM]:
        raise RequestError(f"--{ARMS_FROM} names a Python file of arms, got nothing")
    for file in named.get(ARMS_FROM, []):
        load_arms(Path(file))
    return rest


def taken_options(
    argv: list[str], names: Collection[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """The words without the options of these names, and these with the words after each.

    A name is written with dashes or underscores, its first value after a blank or an equals sign.
    """
    by_word = {f"--{name.replace('_', '-')}": name for name in names}
    rest: list[str] = []
    taken: dict[str, list[str]] = {}
    current: list[str] | None = None
    for word in argv:
        if word.startswith("--"):
            option, _, value = word.partition("=")
            name = by_word.get(option.replace("_", "-"))
            current = None if name is None else taken.setdefault(name, [])
            if current is None:
                rest.append(word)
            elif value:
                current.append(value)
        elif current is None:
            rest.append(word)
        else:
            current.append(word)
    return rest, taken


def own_field_names() -> set[str]:
    """Fields that only some known arm has."""
    kinds = (find_arm(name).fields for name in known_arms())
    return {each.name for kind in kinds if kind is not None for each in fields(kind)}


def architecture_options() -> Any:
    """A dataclass of the fields of `Architecture` that all arms share, with their docstrings."""
    import tyro
    from docstring_parser import parse_from_object

    docs = {
        each.arg_name: each.description or ""
        for kind in reversed(Architecture.__mro__[:-1])
        for each in parse_from_object(kind).params
    }
    hints = get_type_hints(Architecture)
    flat = [each for each in fields(Architecture) if each.name not in _OF_ARMS]
    return make_dataclass(
        "ArchitectureOptions",
        [
            (
                each.name,
                Annotated[hints[each.name], tyro.conf.arg(help=docs.get(each.name, ""))],
                field() if each.default is MISSING else field(default=each.default),
            )
            for each in flat
        ],
        frozen=True,
        kw_only=True,
    )


def options_of_arms() -> list[str]:
    """Settings of an experiment that arms declare and no field of it is named after."""
    axes = declared_axes().keys() - AxisSettings.model_fields.keys()
    families = {find_arm(arm).family for arm in known_arms()} - LearningRates.model_fields.keys()
    return [f"axes.{name}" for name in sorted(axes)] + [
        f"{_RATES}{family}" for family in sorted(families)
    ]


def with_options_of_arms(experiment: Experiment, options: dict[str, list[str]]) -> Experiment:
    """The experiment with these settings. Raises pydantic's ValidationError."""
    fields_of = experiment.model_dump(mode="python")
    for name, words in options.items():
        group = fields_of["axes"]
        value: Any = [_number(word) for word in words]
        if name.startswith(_RATES):
            group, value = fields_of["training"]["learning_rate"], value[0] if value else None
        group[name.rpartition(".")[2]] = value
    return type(experiment).model_validate(fields_of) if options else experiment


def with_settings_of_arms(experiment: Experiment, base: Experiment) -> Experiment:
    """The experiment with what arms declare as another has it: options of fields do not keep it."""
    rates = experiment.training.learning_rate
    extra_rates = base.training.learning_rate.model_extra or {}
    learning_rate = rates.model_validate(dict(rates) | extra_rates)
    training = experiment.training.model_copy(update={"learning_rate": learning_rate})
    axes = experiment.axes.model_validate(dict(experiment.axes) | (base.axes.model_extra or {}))
    return experiment.model_copy(update={"axes": axes, "training": training})


def _number(word: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word
