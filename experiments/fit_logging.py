"""A sweep's fit goes back to where MLflow shows the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search.record.ledger import Ledger


def log_sweep_fit(
    name: str, home: Path, document: Mapping[str, Any], figures: Sequence[Path]
) -> str | None:
    """Put a fit on the sweep's run in MLflow; what went wrong, or None."""
    from runners.mlflow.projection import log_fit

    ledger = Ledger(home)
    sweep = ledger.sweep(name)
    ledger.close()
    return log_fit(home, sweep, document, figures)
