"""Under which names does a table hold what laws are fitted to? A role's own, or a sweep's.

A sweep's numbers have one name each everywhere (`search.record.numbers`); laws are written in the
short names of the field. A table may use either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

SWEEP_NAMES = {
    "params": "parameters",
    "flops": "train_flops",
    "loss": "loss_nats",
    "budget": "target_train_flops",
    "params_once": "parameters_shared",
    "params_deep": "parameters_deep",
    "params_wide": "parameters_wide",
}
"""Role to the name that a sweep's tables have for it, where that is not the role's own."""


def with_sweep_names(
    columns: Collection[str], roles: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Role to column: as asked, else a sweep's name where the table has it and not the role's."""
    found = {
        role: name for role, name in SWEEP_NAMES.items() if name in columns and role not in columns
    }
    return found | dict(roles or {})
