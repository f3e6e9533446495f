"""Which arms are known? Those that ship, a line each, and those that a user brings.

An arm is loaded when it is first asked for, by name: nothing here imports one. A user's arm comes
from the entry-point group ``isoflop.arms`` of an installed package or from a Python file that the
user names; never from an experiment file, which may be anybody's.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from spaces.errors import RequestError

BUILT_IN = {
    "dual": "spaces.arms.dual:ARM",
    "loop": "spaces.arms.loop:ARM",
    "wide": "spaces.arms.wide:ARM",
    "standard": "spaces.arms.standard:ARM",
    "unrolled": "spaces.arms.unrolled:ARM",
    "moe": "spaces.arms.moe:ARM",
}
"""Name to module and attribute."""

ENTRY_POINTS = "isoflop.arms"


@dataclass(frozen=True, kw_only=True)
class ArmFile:
    """A user's file of arms, as it travels to workers."""

    name: str
    """Name of its module."""
    text: str
    """Its source."""

    @property
    def source(self) -> str:
        """Identity of the source: the first 16 digits of its SHA-256."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


_FROM_FILES: dict[str, Any] = {}
_FILES: dict[str, ArmFile] = {}


def known_arms() -> tuple[str, ...]:
    """Names of all arms that can be asked for."""
    return (*BUILT_IN, *(name for name in (*_installed(), *_FROM_FILES) if name not in BUILT_IN))


def is_known(name: str) -> bool:
    """Whether the arm of that name can be loaded here."""
    if name in BUILT_IN or name in _FROM_FILES:
        return True
    try:
        return name in _installed() and _load_installed(name) is not None
    except RequestError:
        return False


def find_arm_object(name: str) -> Any:
    """The arm of that name; see `spaces.arms.contract.find_arm`. Raises `RequestError`."""
    if name in BUILT_IN:
        return _load(BUILT_IN[name])
    if name in _FROM_FILES:
        return _FROM_FILES[name]
    if name in _installed():
        return _load_installed(name)
    raise RequestError(
        f"arm must be one of {', '.join(known_arms())}, got {name!r}; an arm of your own is named "
        f"on the command line (--arms-from FILE) or installed as an entry point of {ENTRY_POINTS}"
    )


def load_arms(path: Path) -> tuple[str, ...]:
    """Make the arms of a Python file known; their names. Raises `RequestError`."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as a file of arms: {error}") from None
    return load_arm_file(ArmFile(name=f"isoflop_arms_{Path(path).stem}", text=text))


def load_arm_file(file: ArmFile) -> tuple[str, ...]:
    """Make the arms of a file known in this process; their names. Raises `RequestError`."""
    module = _executed(file)
    arms = {arm.name: arm for arm in vars(module).values() if _is_arm(arm, module)}
    if not arms:
        raise RequestError(
            f"{file.name} holds no arm: it needs an instance of a subclass of isoflop.Arm"
        )
    for name, arm in arms.items():
        if name in BUILT_IN:
            raise RequestError(f"an arm of your own needs a name of its own, got {name!r}")
        arm.source = file.source
        _FROM_FILES[name] = arm
    _FILES[file.name] = file
    return tuple(arms)


def loaded_files() -> tuple[ArmFile, ...]:
    """Files whose arms are known in this process, for workers to load too."""
    return tuple(_FILES.values())


def _is_arm(value: Any, module: ModuleType) -> bool:
    kind = type(value)
    return hasattr(kind, "is_arm") and kind.__module__ == module.__name__


def _executed(file: ArmFile) -> ModuleType:
    """The file's code, run as a module that pickles can name."""
    module = ModuleType(file.name)
    module.__file__ = f"<{file.name}>"
    sys.modules[file.name] = module
    try:
        exec(compile(file.text, f"{file.name}.py", "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[file.name]
        raise RequestError(
            f"the arms of {file.name} cannot be loaded: {type(error).__name__}: {error}"
        ) from None
    return module


@cache
def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


@cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


@cache
def _load_installed(name: str) -> Any:
    point = _installed()[name]
    try:
        arm = point.load()
        module = importlib.util.find_spec(point.module)
        assert module is not None
        assert module.origin is not None
        text = Path(module.origin).read_text(encoding="utf-8")
    except Exception as error:
        raise RequestError(
            f"the arm {name!r} ({point.value}) cannot be loaded: {type(error).__name__}: {error}"
        ) from None
    arm.source = ArmFile(name=point.module, text=text).source
    return arm
