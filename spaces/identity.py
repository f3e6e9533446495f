"""What identifies a value? Its canonical JSON, which outlives releases.

A field that a release adds names the value that means *as before the field existed* (`added`). The
canonical form leaves the field out where it holds that value, and reading puts that value where the
field is missing: so nothing older gets another identity, whatever the field's default is today.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, field, fields, is_dataclass
from functools import cache
from typing import Any, get_type_hints

_AS_BEFORE = "as_before"


def added(*, as_before: Any, default: Any = MISSING) -> Any:
    """A dataclass field that older releases did not have.

    ``as_before`` is fixed for ever when the field is added; ``default`` is today's (left out: the
    same) and may change, which gives new values new identities and leaves old ones alone.
    """
    today = as_before if default is MISSING else default
    return field(default=today, metadata={_AS_BEFORE: as_before})


def canonical_form(value: Any) -> Any:
    """The value as plain JSON types: of dataclasses, every field that says more than before."""
    if isinstance(value, Mapping):
        return {key: canonical_form(own) for key, own in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        left_out: frozenset[str] = getattr(value, "fields_left_out", frozenset())
        return {
            each.name: canonical_form(own)
            for each in fields(value)
            if each.name not in left_out
            and (own := getattr(value, each.name)) != each.metadata.get(_AS_BEFORE, MISSING)
        }
    if isinstance(value, list | tuple):
        return [canonical_form(own) for own in value]
    return value


def canonical_json(value: Any) -> str:
    """JSON of a frozen value with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(canonical_form(value), sort_keys=True, separators=(",", ":"))


def with_fields_of_before(kind: type, form: Mapping[str, Any]) -> dict[str, Any]:
    """A dataclass's stored form with every field that was left out, its nested ones included."""
    filled = dict(form)
    for name, as_before, nested in _layout(kind):
        if name not in filled:
            if as_before is not MISSING:
                filled[name] = as_before
        elif nested is not None and isinstance(filled[name], Mapping):
            filled[name] = with_fields_of_before(nested, filled[name])
    return filled


@cache
def _layout(kind: type) -> tuple[tuple[str, Any, type | None], ...]:
    """Of each field: its name, its value of before, and its type where that is a dataclass."""
    hints = get_type_hints(kind)
    return tuple(
        (
            each.name,
            each.metadata.get(_AS_BEFORE, MISSING),
            hints[each.name] if is_dataclass(hints[each.name]) else None,
        )
        for each in fields(kind)
    )
