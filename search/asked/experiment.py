"""What does an experiment ask? A TOML file, validated whole, every error at once."""

from __future__ import annotations

import codecs
import tomllib
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from search.asked.bounds import Count, OneOrMore, in_short
from search.asked.settings import (
    ArchitectureSettings,
    AxisSettings,
    BudgetSettings,
    LimitSettings,
    PruningSettings,
    SearchSettings,
    SeedSettings,
    Settings,
    TextSettings,
    TrainingSettings,
    TuningSettings,
    WorkerSettings,
)
from spaces.arms.contract import find_arm
from spaces.errors import RequestError

SHIPPED = Path(__file__).resolve().parents[2] / "experiments"
"""Where the experiments that ship with the package lie."""


class Experiment(Settings):
    """One question: budgets, arms, axes, and how trials are trained."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """Identity of the sweep inside a home."""
    trials: Count
    """Trials of the whole sweep, over all arms and budgets."""
    budget: BudgetSettings
    arms: OneOrMore[str] = ("dual", "loop", "wide", "standard", "unrolled")
    """Arms that compete, of those that ship (also moe) and your own; left as it is, every baseline
    of the dual-path claim is there."""
    axes: AxisSettings = AxisSettings()
    architecture: ArchitectureSettings = ArchitectureSettings()
    training: TrainingSettings = TrainingSettings()
    text: TextSettings = TextSettings()
    search: SearchSettings = SearchSettings()
    tuning: TuningSettings = TuningSettings()
    pruning: PruningSettings = PruningSettings()
    limits: LimitSettings = LimitSettings()
    seeds: SeedSettings = SeedSettings()
    workers: WorkerSettings = WorkerSettings()

    @field_validator("arms")
    @classmethod
    def _some_arm(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        if not arms or len(set(arms)) != len(arms):
            raise ValueError(f"needs at least one arm, each once, got {list(arms)}")
        for arm in arms:
            find_arm(arm)
        return arms

    @property
    def replicates_per_budget(self) -> int:
        """Trials of each budget that repeat others with other seeds."""
        if self.search.goal == "ablation":  # which repeats everything alike
            return 0
        asked = self.search.replicates_per_budget
        if asked is not None:
            return asked
        per_budget = self.trials // len(self.budget.train_flops)
        return 2 * min(per_budget // 8, 3 * len(self.arms))

    @model_validator(mode="after")
    def _more_than_replicates(self) -> Self:
        repeats = self.replicates_per_budget * len(self.budget.train_flops)
        if repeats and repeats >= self.trials:
            raise ValueError(
                f"search.replicates_per_budget = {self.replicates_per_budget} over "
                f"{len(self.budget.train_flops)} budgets takes all of the {self.trials} trials; "
                f"ask for more trials or fewer replicates"
            )
        return self

    @model_validator(mode="after")
    def _an_ablation_changes_nothing_else(self) -> Self:
        if self.search.goal == "ablation" and self.tuning.learning_rate_multipliers:
            raise ValueError(
                'search.goal = "ablation" compares choices at one rate; leave [tuning] out, or '
                "give rates as axes.learning_rate_multiplier"
            )
        return self

    @model_validator(mode="after")
    def _a_trunk_has_one_recipe(self) -> Self:
        training = self.training
        asked = {
            "budget.solve = 'tokens'": self.budget.solve == "tokens",
            "training.schedule = 'wsd'": training.schedule == "wsd",
            "training.warmup_tokens": training.warmup_tokens is not None,
            "training.batch_exponent = 0": training.batch_exponent == 0,
        }
        missing = [what for what, there in asked.items() if not there]
        if self.budget.trunk and missing:
            raise ValueError(
                f"budget.trunk = true trains budgets as branches of one run, which needs "
                f"{', '.join(missing)}"
            )
        return self

    @model_validator(mode="after")
    def _prunes_where_losses_compare(self) -> Self:
        if self.pruning.rule != "none" and self.training.schedule != "wsd":
            raise ValueError(
                f"pruning.rule = {self.pruning.rule!r} compares losses along the way, which needs "
                f"training.schedule = 'wsd' (its stable phase), got {self.training.schedule!r}"
            )
        return self


WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""First bytes of a text file that is not UTF-8, longest first."""

LARGEST_FILE_BYTES = 1_000_000
"""Of an experiment; parsing takes a hundred times its size in memory."""


def load_experiment(reference: str) -> Experiment:
    """The experiment of a shipped name or of a TOML path. Raises `RequestError` with every error.

    Relative paths of text and tokenizer are looked up beside the TOML file.
    """
    path = find_experiment(reference)
    try:
        experiment = Experiment.model_validate(fields_in(path))
    except ValidationError as error:
        raise RequestError(describe_errors(error, where=str(path))) from None
    return experiment.model_copy(update={"text": experiment.text.beside(path.parent)})


def name_in(path: Path) -> str:
    """The name of the experiment in a file, whatever else is in it."""
    return str(fields_in(path)["name"])


def fields_in(path: Path) -> dict[str, Any]:
    """The fields of an experiment's file, not validated. Raises `RequestError`."""
    size = path.stat().st_size
    if size > LARGEST_FILE_BYTES:
        raise RequestError(
            f"an experiment is a short file of at most {LARGEST_FILE_BYTES:,} bytes, but {path} "
            f"has {size:,}; name the experiment's TOML file"
        )
    fields = _read_toml(path)
    fields.setdefault("name", path.stem)
    return fields


def _read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file, which is UTF-8, be it with a byte order mark."""
    content = path.read_bytes()
    wide = next((name for mark, name in WIDE_MARKS.items() if content.startswith(mark)), None)
    if wide is not None:
        raise RequestError(f"TOML is UTF-8, but {path} is {wide}; save it as UTF-8")
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except RecursionError:
        raise RequestError(f"{path} is no experiment: its values lie too deep in lists") from None
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise RequestError(f"{path} is not valid TOML: {_without_advice(error)}") from None


def _without_advice(error: ValueError) -> str:
    """What an error says to a person, not to a programmer."""
    return str(error).partition("; use sys.")[0]


def find_experiment(reference: str) -> Path:
    """The TOML file of a shipped name or a path."""
    shipped = {path.stem: path for path in sorted(SHIPPED.glob("*.toml"))}
    if reference in shipped:
        return shipped[reference]
    path = Path(reference)
    if path.suffix == ".toml" and path.is_file():
        return path
    raise RequestError(
        f"no experiment {reference!r}: it is neither a TOML file nor one that ships "
        f"({', '.join(shipped) or 'none'})"
    )


def describe_errors(error: ValidationError, *, where: str) -> str:
    """Every error of a configuration, one line each: key, problem, value."""
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "experiment"
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {key}: no such setting{_suggestion(problem['loc'])}")
        elif problem["type"] == "missing":
            lines.append(f"  {key}: is required")
        else:
            value = problem["input"]
            got = "" if isinstance(value, (dict, BaseModel)) else f" (got {in_short(value)})"
            lines.append(f"  {key}: {problem['msg'].removeprefix('Value error, ')}{got}")
    count = f"{len(lines)} error" + ("s" if len(lines) > 1 else "")
    return f"{where} has {count}:\n" + "\n".join(lines)


def _suggestion(location: tuple[int | str, ...]) -> str:
    """The nearest setting of the same group, for a misspelt key."""
    import difflib

    group: type[BaseModel] = Experiment
    for part in location[:-1]:
        field = group.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return ""
        group = annotation
    near = difflib.get_close_matches(str(location[-1]), list(group.model_fields), n=1)
    return f"; did you mean {near[0]}?" if near else f"; use one of {', '.join(group.model_fields)}"
