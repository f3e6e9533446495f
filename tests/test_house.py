"""The house: packages come from this checkout, imports point one way, help answers at once."""

from __future__ import annotations

import importlib
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("spaces", "search", "runners", "analysis", "experiments")


@pytest.mark.parametrize("name", [*ROOMS, "isoflop"])
def test_each_package_is_this_checkout(name: str) -> None:
    """``spaces`` is also the name of a package on the index."""
    module = importlib.import_module(name)
    assert module.__file__ is not None
    assert ROOT in Path(module.__file__).resolve().parents


def test_imports_point_one_way() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_help_answers_within_half_a_second() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "experiments", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # CPU seconds, which another process on the core does not change
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
    assert all(verb in done.stdout for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str) -> None:
    command = [sys.executable, "-m", "experiments", verb, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--home" in done.stdout


def test_every_public_name_is_there() -> None:
    isoflop = importlib.import_module("isoflop")
    assert isoflop.__all__
    assert all(hasattr(isoflop, name) for name in isoflop.__all__)
    assert sorted(isoflop.__all__) == isoflop.__all__
