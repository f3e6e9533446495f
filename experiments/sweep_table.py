"""A sweep by name and home: its table, and its fit back to where MLflow shows the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.command import talk
from experiments.setup import sweep_name
from search.record.ledger import Ledger
from spaces.errors import RequestError

if TYPE_CHECKING:
    import polars as pl

    from analysis.sweep.sweep_fit import SweepFit


def load_frame(experiment: str, home: Path) -> pl.DataFrame:
    """Results of a sweep of a home. Raises `RequestError` where there is no sweep or no result."""
    from analysis.points.sweep_frame import frame_of

    ledger = Ledger(home)
    name = sweep_name(experiment)
    ledger.sweep(name)
    frame = frame_of(ledger.trials(name))
    ledger.close()
    if frame.is_empty():
        raise RequestError(f"sweep {name!r} in {home} has no finished trial to fit yet")
    return frame


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
