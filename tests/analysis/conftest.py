"""What the tests of laws share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder of published data, which is not part of the product."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "reference"
    if not (folder / "expected.json").is_file():
        pytest.skip(f"the reference data is absent from {folder}")
    return folder
