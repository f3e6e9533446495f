"""How does a recorded experiment become a file again? TOML that `load_experiment` reads."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"^[A-Za-z0-9_-]+$")


def as_toml(fields: Mapping[str, Any]) -> str:
    """The fields as TOML, groups after plain values; what is null is left out, as the default."""
    return "\n".join(_lines(fields, ())).strip() + "\n"


def _lines(fields: Mapping[str, Any], path: tuple[str, ...]) -> list[str]:
    plain = {k: v for k, v in fields.items() if v is not None and not isinstance(v, Mapping)}
    lines = [
        f"{_key(name)} = {json.dumps(value, ensure_ascii=False)}" for name, value in plain.items()
    ]
    if path and lines:
        lines = ["", f"[{'.'.join(map(_key, path))}]", *lines]
    for name, group in fields.items():
        if isinstance(group, Mapping):
            lines += _lines(group, (*path, name))
    return lines


def _key(name: str) -> str:
    return name if _BARE.match(name) else json.dumps(name)
