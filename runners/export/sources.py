"""Which source does a model need that trained here, and how does it run elsewhere?

The modules of `spaces` that a model's module imports, one after the other, lie flat beside it:
``spaces.parts.norm`` becomes ``spaces_parts_norm.py``, and an import of it relative. So the folder
holds the very code that trained. The registry of arms knows one arm there.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from spaces.architecture import Architecture
from spaces.arms.contract import find_arm
from spaces.arms.registry import loaded_files
from spaces.errors import RequestError

MODELING = "modeling_isoflop"
REGISTRY = "spaces.arms.registry"
_HOME_MADE = ("spaces", "search", "runners", "analysis", "experiments", "isoflop")
_IMPORT = re.compile(r"^(\s*)from (spaces\.[\w.]+) import ", re.MULTILINE)


def source_files(architecture: Architecture, *, identity: str) -> dict[str, str]:
    """File names and texts of all that loads a model of that architecture.

    ``identity`` keeps the operators of two exports in one process apart. Raises `RequestError`
    where the arm is one's own and imports what cannot travel.
    """
    arm = find_arm(architecture.arm)
    module = type(arm).__module__
    texts = {f"runners.export.{MODELING}": _text_of(f"runners.export.{MODELING}")}
    texts[module] = _arm_text(module)
    waiting = list(texts)
    while waiting:
        for name in _imported(waiting.pop(), texts):
            if name not in texts and name != REGISTRY:
                texts[name] = _text_of(name)
                waiting.append(name)
    instance = next(
        key for key, value in vars(importlib.import_module(module)).items() if value is arm
    )
    files = {f"{_flat(name)}.py": _moved(text, identity) for name, text in texts.items()}
    return files | {f"{_flat(REGISTRY)}.py": _registry(arm.name, _flat(module), instance)}


def _text_of(module: str) -> str:
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).read_text(encoding="utf-8")


def _arm_text(module: str) -> str:
    """The source of an arm's module, which may be a file that a user named."""
    named = {file.name: file.text for file in loaded_files()}
    return _with_own_imports(named.get(module) or _text_of(module), module)


def _with_own_imports(text: str, module: str) -> str:
    """The source with public names of isoflop imported from where they are."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == "isoflop" and node.level == 0:
            public = importlib.import_module("isoflop")
            lines = [
                f"from {getattr(public, each.name).__module__} import {each.name}"
                + (f" as {each.asname}" if each.asname else "")
                for each in node.names
            ]
            segment = ast.get_source_segment(text, node)
            assert segment is not None
            text = text.replace(segment, f"\n{' ' * node.col_offset}".join(lines))
    for name in _roots(text):
        if name in _HOME_MADE and name != "spaces":
            raise RequestError(
                f"an exported model runs without isoflop, but {module} imports {name}; import the "
                f"names that it needs from spaces"
            )
    return text


def _roots(text: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add("" if node.level else (node.module or "").partition(".")[0])
    return names


def _imported(module: str, texts: Mapping[str, str]) -> list[str]:
    return [found.group(2) for found in _IMPORT.finditer(texts[module])]


def _moved(text: str, identity: str) -> str:
    """The source with its imports relative and its operators under a name of their own."""
    text = _IMPORT.sub(lambda found: f"{found[1]}from .{_flat(found[2])} import ", text)
    text = text.replace('"isoflop::', f'"isoflop_{identity}::')
    return text.replace("torch.ops.isoflop.", f"torch.ops.isoflop_{identity}.")


def _flat(module: str) -> str:
    return module.removeprefix("runners.export.").replace(".", "_")


def _registry(arm: str, module: str, instance: str) -> str:
    return f'''"""Which arm is known here? The one of this model."""


def find_arm_object(name):
    """The arm."""
    from .{module} import {instance}

    assert is_known(name), name
    return {instance}


def is_known(name):
    """Whether it is the arm."""
    return name == {arm!r}
'''
