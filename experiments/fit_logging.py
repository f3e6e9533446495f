"""Where does a sweep's fit go? Its figures into a folder, the rest to MLflow beside the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import talk
from search.record.ledger import Ledger
from spaces.errors import RequestError

if TYPE_CHECKING:
    from analysis.sweep.sweep_fit import SweepFit


def draw_into(asked: Path | None, fitted: SweepFit, own: Path) -> list[Path]:
    """Draw a sweep's figures into the folder that is asked for, else into its own; none, and said
    so, where a home is read only. Raises `RequestError` where the one asked for will not do."""
    from analysis.sweep.sweep_fit import draw_sweep

    try:
        return draw_sweep(fitted, asked or own)
    except OSError as error:
        why = f"{error.filename}: {error.strerror}"
        if asked is not None:
            raise RequestError(f"figures need a folder that can be written: {why}") from error
        talk(f"no figures, since their folder cannot be written ({why}); --figures names another")
        return []


def log_sweep_fit(
    name: str, home: Path, document: Mapping[str, Any], figures: Sequence[Path]
) -> str | None:
    """Put a fit on the sweep's run in MLflow; what went wrong, or None."""
    from runners.mlflow.projection import log_fit

    ledger = Ledger(home)
    sweep = ledger.sweep(name)
    ledger.close()
    return log_fit(home, sweep, document, figures)
