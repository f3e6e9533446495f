"""Does a wrong setting ever pass, or crash? Every field of an experiment, strange values in it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from experiments.cli import run
from experiments.verbs.plan import plan_document
from runners.engine.batches import epoch_order
from runners.plan import plan
from search.asked.bounds import in_short
from search.asked.experiment import Experiment, describe_errors, load_experiment
from spaces.errors import RequestError
from tests.sweeps import toy_experiment

STRANGE: tuple[Any, ...] = (
    float("inf"),
    float("-inf"),
    float("nan"),
    0,
    0.0,
    -1,
    -0.5,
    0.5,
    1,
    5e-324,
    1e308,
    10**30,
    2**63,
    2**63 - 1,
    -(2**63),
    10**5000,
    True,
    False,
    "3",
    "",
    "\0",
    [],
    [1, 1],
    [True],
    ["3"],
    [[1]],
    {},
    {"x": 1},
)
"""What a setting might be given; some of it is right for some."""

NEVER: tuple[Any, ...] = (float("inf"), float("-inf"), float("nan"), 1e308, 10**5000, {}, [[1]])
"""What is right for no setting that is not a group of others."""


def leaves(group: type[BaseModel] = Experiment, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every setting that is no group of others, by its dotted name."""
    for name, field in group.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, (*path, name))
        else:
            yield ".".join((*path, name))


SETTINGS = (*leaves(), "axes.num_experts", "axes.top_k", "training.learning_rate.moe")


def with_setting(fields: dict[str, Any], setting: str, value: Any) -> dict[str, Any]:
    """The fields with one of them changed."""
    head, _, rest = setting.partition(".")
    inner = with_setting(dict(fields.get(head) or {}), rest, value) if rest else value
    return {**fields, head: inner}


def toy_toml(line: str) -> str:
    """The smallest experiment as a file, a line of it given."""
    trials = "" if line.startswith("trials") else "trials = 2\n"
    return f"{line}\n{trials}[budget]\ntrain_flops = [2e9]\n"


DERIVING: dict[str, Any] = {
    "budget": {"train_flops": [2e9, 4e9], "solve": "d_model", "tokens": [16_000, 32_000]},
    "arms": ["dual", "moe"],
    "training": {
        "batch_tokens": 256,
        "batch_reference_flops": 2e9,
        "eval_sequences": 8,
        "schedule": "wsd",
    },
    "search": {"replicates_per_budget": 1},
    "tuning": {"learning_rate_multipliers": [0.5, 1, 2]},
    "pruning": {"rule": "median"},
    "limits": {"max_flops": 1e11},
}
"""Changes of the toy experiment under which the settings count that it leaves alone."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose text is prepared."""
    folder = tmp_path_factory.mktemp("settings")
    plan(toy_experiment(), folder)
    return folder


@pytest.fixture(scope="module", params=[{}, DERIVING], ids=["tokens", "width"])
def toy(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A small experiment as its file has it."""
    return toy_experiment(**request.param).model_dump(mode="json", exclude_unset=True)


def plan_or_refusal(fields: dict[str, Any], home: Path) -> str | None:
    """Plan the experiment; what a refusal says, None where it is planned with."""
    try:
        experiment = Experiment.model_validate(fields)
        document = plan_document(plan(experiment, home))
    except ValidationError as error:
        return describe_errors(error, where="it")
    except RequestError as error:
        return str(error)
    json.dumps(document, allow_nan=False)
    return None


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_strange_value_is_planned_with_or_refused(
    setting: str, home: Path, toy: dict[str, Any]
) -> None:
    for value in STRANGE:
        said = plan_or_refusal(with_setting(toy, setting, value), home)
        if any(value is each for each in NEVER):
            assert said is not None, f"{setting} takes {in_short(value)}"
        if said is not None:
            assert len(said) < 2000
        if said is not None and any(value is each for each in NEVER):
            assert setting.rpartition(".")[2] in said


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("trials", True, "takes a whole number"),
        ("trials", "3", "takes a whole number"),
        ("trials", 3.5, "fractional part"),
        ("architecture.norm_epsilon", float("inf"), "finite"),
        ("architecture.norm_epsilon", 2, "less than or equal to 1"),
        ("architecture.context_length", 0, "greater than or equal to 1"),
        ("budget.train_flops", 1e308, "less than or equal to"),
        ("budget.train_flops", [], "at least one"),
        ("training.beta2", float("nan"), "finite"),
        ("training.save_weights", 1, "valid boolean"),
        ("seeds.init", 2**63, "less than or equal to"),
        ("axes.d_model", [True], "takes a whole number"),
        ("axes.top_k", [10**5000], "within 1e+12 of 0"),
        ("workers.address", "a\0b", "NUL"),
    ],
)
def test_a_wrong_value_is_named_with_its_setting(
    setting: str, value: Any, reason: str, home: Path
) -> None:
    toy = toy_experiment().model_dump(mode="json", exclude_unset=True)
    said = plan_or_refusal(with_setting(toy, setting, value), home)
    assert said is not None
    assert setting.rpartition(".")[2] in said
    assert reason in said


@pytest.mark.parametrize(
    ("setting", "alone", "listed"),
    [
        ("axes.d_model", 64, (64,)),
        ("axes.gate_mode", "convex", ("convex",)),
        ("axes.num_experts", 4, (4,)),
        ("budget.train_flops", 2e9, (2e9,)),
        ("arms", "standard", ("standard",)),
    ],
)
def test_a_value_alone_is_a_list_of_it(setting: str, alone: Any, listed: tuple[Any, ...]) -> None:
    toy = toy_experiment().model_dump(mode="json", exclude_unset=True)
    experiment = Experiment.model_validate(with_setting(toy, setting, alone))
    for name in setting.split("."):
        experiment = getattr(experiment, name)
    assert experiment == listed


def test_the_experiments_that_are_changed_plan(home: Path, toy: dict[str, Any]) -> None:
    assert plan_or_refusal(toy, home) is None


def test_seeds_of_64_bits_train(home: Path) -> None:
    for seed in (-(2**63), -1, 2**63 - 1, 2**63):  # a replicate's goes on from the largest
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            order = epoch_order(8, data_seed=seed, epoch=1)
        assert sorted(order.tolist()) == list(range(8))
    assert epoch_order(64, data_seed=2**63, epoch=0).tolist() != (
        epoch_order(64, data_seed=2**63 + 1, epoch=0).tolist()
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (toy_toml("trials = true"), "trials: takes a whole number"),
        (toy_toml("trials = " + "9" * 5000), "5000 digits"),
        (toy_toml("trials = 0x" + "f" * 5000), "trials"),
        (toy_toml("").encode("utf-16"), "UTF-16"),
        (toy_toml("").encode("utf-32"), "UTF-32"),
        (toy_toml("arms = ['caf\xe9']").encode("latin-1"), "not valid TOML"),
        ("x = " + "[" * 100_000, "too deep"),
    ],
    ids=["true", "digits", "hexadecimal", "UTF-16", "UTF-32", "latin", "deep"],
)
def test_a_file_that_is_no_experiment_is_refused(
    content: str | bytes, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "toy.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run(["plan", str(path), "--home", str(tmp_path / "home")]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert len(said) < 1000


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    marked, plain = tmp_path / "marked.toml", tmp_path / "plain.toml"
    marked.write_text(toy_toml("name = 'toy'"), encoding="utf-8-sig")
    plain.write_text(toy_toml("name = 'toy'"), encoding="utf-8")
    assert load_experiment(str(marked)) == load_experiment(str(plain))


@pytest.mark.parametrize(
    "words",
    [
        ("--trials", "true"),
        ("--trials", "9" * 5000),
        ("--architecture.norm-epsilon", "inf"),
        ("--budget.train-flops", "1e308"),
        ("--axes.num-experts", "inf"),
        ("--axes.d-model", "0"),
        ("--training.learning-rate.moe", "nan"),
        ("--max-flops", "inf"),
        ("--max-flops", "nan"),
        ("--max-hours", "1e308"),
        ("--price", "nan"),
        ("--price", "inf"),
    ],
)
def test_a_wrong_word_of_the_command_line_is_refused(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "toy.toml"
    path.write_text(toy_toml(""))
    try:
        code = run(["plan", str(path), "--home", str(tmp_path / "home"), *words])
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    assert code == 2, said.err
    name = words[0].rpartition(".")[2].removeprefix("--")
    assert name in said.err or name.replace("-", "_") in said.err
