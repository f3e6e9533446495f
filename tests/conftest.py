"""What all tests share: one thread each, because two workers share two cores; closed ledgers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"


@pytest.fixture(autouse=True)
def _ledgers_are_closed() -> Iterator[None]:
    """Whatever ledgers a test had of `tests.sweeps` are closed after it."""
    yield
    sweeps = sys.modules.get("tests.sweeps")
    while sweeps is not None and sweeps.OPENED:
        sweeps.OPENED.pop().close()
