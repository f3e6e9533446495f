"""The house: packages come from this checkout, imports point one way, help answers at once."""

from __future__ import annotations

import ast
import functools
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


DOORS = {
    "fvcore": "spaces.certificate",
    "jinja2": "analysis.report.pages",
    "matplotlib": "analysis.show",
    "mlflow": "runners.mlflow",
    "optuna": "search.propose.samplers",
    "plotly": "analysis.show.interactive",
    "transformers": "runners.export.modeling_isoflop",
    "ray": "runners.pools.ray_pool",
    "triton": "runners.engine.kernels",
    "wandb": "runners.wandb_copy",
}
"""Heavy library to the one module or package that may import it."""

PEERS = "experiments.benchmarks"
"""What we are measured against is imported there."""


@pytest.mark.parametrize("library", DOORS)
def test_a_heavy_library_has_one_door(library: str) -> None:
    """Wherever in a module the import stands: at its top, in a function, for types alone."""
    importers = {module for module, names in _imported_by_module().items() if library in names}
    inside = {module for module in importers if _is_in(module, DOORS[library])}
    assert inside, f"{DOORS[library]} does not import {library}: correct the list of doors"
    assert {module for module in importers - inside if not _is_in(module, PEERS)} == set()


def _is_in(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@functools.cache
def _imported_by_module() -> dict[str, set[str]]:
    """Every module of the house, to the top-level packages that it imports."""
    files = [ROOT / "isoflop.py", *(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
    return {_dotted(file): _imported_by(file) for file in files}


def _dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _imported_by(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            names.add(node.module.partition(".")[0])
    return names


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
