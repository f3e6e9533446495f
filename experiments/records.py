"""The table of a sweep, by name and home."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from experiments.setup import sweep_name
from search.ledger import Ledger
from spaces.errors import RequestError

if TYPE_CHECKING:
    import polars as pl


def load_frame(experiment: str, home: Path) -> pl.DataFrame:
    """Results of a sweep of a home. Raises `RequestError` where there is no sweep or no result."""
    from analysis.records import frame_of

    ledger = Ledger(home)
    name = sweep_name(experiment)
    ledger.sweep(name)
    frame = frame_of(ledger.trials(name))
    ledger.close()
    if frame.is_empty():
        raise RequestError(f"sweep {name!r} in {home} has no finished trial to fit yet")
    return frame
